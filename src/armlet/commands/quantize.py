"""`armlet quantize`: the cost of fewer bits at the input of down, and which treatment of outliers pays."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from armlet import precision
from armlet.commands.options import ComputeOptions, JsonOption, folder_option, show
from armlet.precision.plan import PrecisionOptions


def quantize(
    model: Annotated[
        str | None, Argument(help="A folder, a hub id or abacus; SmolLM2-135M-Instruct by default.")
    ] = None,
    *,
    text: PrecisionOptions,
    out: Annotated[
        Path | None, folder_option("Folder in which the same command resumes; named after the run by default.")
    ] = None,
    compute: ComputeOptions,
    as_json: JsonOption = False,
) -> None:
    """Measure the cost of few bits at the input of down, with companding, contraction and common alternatives."""
    quantized = precision.quantize(model, **vars(text), run=out, **vars(compute))
    show(quantized, quantized.folder, as_json, figures_key="figures", setting_key="setting")
