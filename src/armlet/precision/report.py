"""The files of a result: quantize.json, the figure, and armlet.json where a contraction was chosen."""

from dataclasses import dataclass
from pathlib import Path

from armlet.attachment.config import CONFIG_FILE, describe
from armlet.precision.figures import draw_precision
from armlet.precision.findings import Precision
from armlet.precision.trials import Contraction
from armlet.presentation.files import write_json
from armlet.presentation.style import save
from armlet.redistribution.noise import Noise

RESULT_FILE = "quantize.json"


@dataclass(frozen=True)
class SavedPrecision:
    """What was written: the content of quantize.json, and the paths of the setting (none or one) and the figures."""

    content: dict[str, object]
    setting: list[str]
    figures: list[str]


def save_precision(result: Precision, folder: Path) -> SavedPrecision:
    """Writes all files of a result into a folder.

    Raises:
        OSError: they cannot be written.
    """
    setting = save_setting(result.contraction, folder)
    figures = [str(path) for path in save(draw_precision(result.rows, result.layers), folder, "quantize")]
    content = {**result.to_dict(), "setting": setting, "figures": figures}
    write_json(folder / RESULT_FILE, content)
    return SavedPrecision(content, setting, figures)


def save_setting(contraction: Contraction | None, folder: Path) -> list[str]:
    """Writes armlet.json for a contraction and returns its path; without one, removes the file of an earlier run."""
    if contraction is None:
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        return []
    content = describe(contraction.policy, contraction.layers, contraction.scope, Noise(0), contraction.site)
    return [str(write_json(folder / CONFIG_FILE, content))]
