"""`armlet quantize`: the cost of fewer bits at the input of down, and which treatment of outliers pays."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.markup import escape
from typer import Argument, Option

from armlet.checkpoints.pretrained import default_model
from armlet.commands.options import ComputeOptions, JsonOption, SiteName, finish, folder_option, unslashed
from armlet.evaluation.tasks.arithmetic import exercise
from armlet.precision.findings import Precision, save_setting
from armlet.precision.plan import PrecisionPlan, load_bench
from armlet.precision.run import measure_precision
from armlet.precision.tables import precision_tables
from armlet.presentation.files import write_json
from armlet.presentation.interruption import INTERRUPTED
from armlet.presentation.terminal import notes
from armlet.runs.folder import default_run_folder


@dataclass(frozen=True)
class TextOptions:
    """The text, and the cost and the site that are allowed for contracting."""

    data: Annotated[Path | None, Option(help="A text in UTF-8; a small built-in one by default.")] = None
    windows: Annotated[int, Option(min=2, help="Number of held-out windows, from the text's beginning.")] = 24
    tokens: Annotated[int, Option(min=2, help="Number of tokens of a window.")] = 48
    calibration: Annotated[int, Option(min=1, help="Number of windows to choose settings by, from the text's end.")] = 4
    limit: Annotated[
        float,
        Option(
            min=0,
            max=1,
            help="Maximum cost of contracting without rounding, as a share of the perplexity on calibration text.",
        ),
    ] = 0.01
    site: Annotated[
        SiteName | None,
        Option(
            help="Contract only at gate (as vLLM serves it) or only at product (down's input); at either by default."
        ),
    ] = None


def quantize(
    model: Annotated[
        str | None, Argument(callback=unslashed, help="A folder, a hub id or abacus; SmolLM2-135M-Instruct by default.")
    ] = None,
    *,
    text: TextOptions,
    out: Annotated[
        Path | None, folder_option("Folder in which the same command resumes; named after the run by default.")
    ] = None,
    compute: ComputeOptions,
    as_json: JsonOption = False,
) -> None:
    """Measure the cost of few bits at the input of down, with companding, contraction and common alternatives."""
    name = model or default_model()
    plan = PrecisionPlan(name, **vars(text), **vars(compute))
    with notes.status(escape(f"loading {name} ...")):
        bench, manifest = load_bench(plan, _abacus_problem)
    folder = out or default_run_folder(manifest)
    result = measure_precision(plan, bench, manifest, folder)
    if result.rows:
        _show_precision(result, folder, as_json)
    if result.interrupted:
        notes.print(f"interrupted: the same command resumes the run in {folder}", markup=False)
        sys.exit(INTERRUPTED)


def _abacus_problem(index: int, split: Literal["train", "test"]) -> str:
    problem = exercise(index, split=split)
    return f"{problem.question}=?{problem.answer}"


def _show_precision(result: Precision, folder: Path, as_json: bool) -> None:
    """Writes the files and prints the result."""
    from armlet.precision.figures import draw_precision
    from armlet.presentation.style import save

    with notes.status("drawing ..."):
        setting = save_setting(result.contraction, folder)
        figures = [str(path) for path in save(draw_precision(result.rows, result.layers), folder, "quantize")]
        content = {**result.to_dict(), "setting": setting, "figures": figures}
        write_json(folder / "quantize.json", content)
    lines = [*(f"setting: {path}" for path in setting), *(f"  {line}" for line in result.cautions)]
    lines += [f"figure: {path}" for path in figures]
    finish(content, as_json, [*result.headline, *precision_tables(result), *lines])
