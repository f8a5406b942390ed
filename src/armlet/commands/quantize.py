"""`armlet quantize`: what fewer bits at the input of down cost, and which way around the outliers pays."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from armlet.commands.arguments import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    SeedOption,
    SiteName,
    check_folder,
    refuse_meta,
    unslashed,
)
from armlet.presentation.files import json_text, write_json
from armlet.presentation.terminal import INTERRUPTED, notes
from armlet.runs.folder import default_run_folder

if TYPE_CHECKING:
    from armlet.precision.findings import Precision

AnyModel = Annotated[
    str | None,
    typer.Argument(callback=unslashed, help="A folder, a hub id or abacus; SmolLM2-135M-Instruct by default."),
]
TextFile = Annotated[Path | None, typer.Option(help="A text in UTF-8; a small built-in one by default.")]
WindowCount = Annotated[int, typer.Option(min=2, help="Held-out windows, from the text's beginning.")]
WindowTokens = Annotated[int, typer.Option(min=2, help="Tokens of a window.")]
Calibration = Annotated[int, typer.Option(min=1, help="Windows to choose by, from the text's end.")]
Limit = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Most that contracting may cost the unrounded model: a share of its perplexity on calibration text.",
    ),
]
OnlySite = Annotated[
    SiteName | None,
    typer.Option(
        help="Contract only there: at gate, after its activation, as vLLM serves it; or at product, the input of down. "
        "At either by default."
    ),
]
RunFolderOption = Annotated[
    Path | None,
    typer.Option(help="Where all goes; the same command goes on there. Named after the run by default."),
]


def quantize(
    model: AnyModel = None,
    data: TextFile = None,
    windows: WindowCount = 24,
    tokens: WindowTokens = 48,
    calibration: Calibration = 4,
    limit: Limit = 0.01,
    site: OnlySite = None,
    out: RunFolderOption = None,
    seed: SeedOption = 0,
    dtype: DtypeOption = "auto",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what few bits at the input of down cost, with companding, contraction and what else is used today."""
    from armlet.checkpoints.pretrained import default_model
    from armlet.precision.plan import PrecisionPlan, load_bench
    from armlet.precision.run import measure_precision

    refuse_meta(device)
    if out:
        check_folder(out)
    name = model or default_model()
    plan = PrecisionPlan(name, data, windows, tokens, calibration, limit, site, seed, dtype, device)
    with notes.status(escape(f"loading {name} ...")):
        bench, manifest = load_bench(plan, _abacus_problem)
    folder = out or default_run_folder(manifest)
    result = measure_precision(plan, bench, manifest, folder)
    if result.rows:
        _show_precision(result, folder, as_json)
    if result.interrupted:
        notes.print(f"interrupted: {folder} keeps what there is, and the same command goes on", markup=False)
        raise typer.Exit(INTERRUPTED)


def _abacus_problem(index: int, split: Literal["train", "test"]) -> str:
    from armlet.evaluation.tasks.arithmetic import exercise

    problem = exercise(index, split=split)
    return f"{problem.question}=?{problem.answer}"


def _show_precision(result: "Precision", folder: Path, as_json: bool) -> None:
    """Writes the files and prints the result."""
    from armlet.precision.figures import draw_precision
    from armlet.precision.findings import save_setting
    from armlet.precision.tables import precision_tables
    from armlet.presentation.style import save

    with notes.status("drawing ..."):
        setting = save_setting(result.contraction, folder)
        figures = [str(path) for path in save(draw_precision(result.rows, result.layers), folder, "quantize")]
        content = {**result.to_dict(), "setting": setting, "figures": figures}
        write_json(folder / "quantize.json", content)
    if as_json:
        print(json_text(content), end="")
        return
    print(*result.headline, sep="\n")
    for table in precision_tables(result):
        Console().print(table)
    print(*(f"setting: {path}" for path in setting), *(f"  {line}" for line in result.cautions), sep="\n")
    print(*(f"figure: {path}" for path in figures), sep="\n")
