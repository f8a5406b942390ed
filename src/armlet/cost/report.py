"""The files of a result: bench.json and the figure."""

from pathlib import Path

from armlet.cost.figures import draw_cost
from armlet.cost.findings import Cost
from armlet.presentation.files import write_json
from armlet.presentation.style import save


def save_cost(cost: Cost, folder: Path) -> dict[str, object]:
    """Writes both into a folder; returns the content of bench.json, in which "figure" has the paths of the figure.

    Raises:
        OSError: they cannot be written.
    """
    figures = [str(path) for path in save(draw_cost(cost), folder, "bench")]
    content = {**cost.to_dict(), "figure": figures}
    write_json(folder / "bench.json", content)
    return content
