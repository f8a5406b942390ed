"""`armlet limits`: how large a model's values are against number formats, and the limits that keep them inside."""

from pathlib import Path
from typing import Annotated

from typer import Argument

from armlet import bounds
from armlet.bounds.limits_plan import LimitsOptions
from armlet.commands.options import ComputeOptions, JsonOption, folder_option, show


def limits(
    model: Annotated[
        str | None, Argument(help="A folder, a hub id or abacus; SmolLM2-135M-Instruct by default.")
    ] = None,
    *,
    text: LimitsOptions,
    out: Annotated[
        Path | None, folder_option("Folder in which the same command resumes; named after the run by default.")
    ] = None,
    compute: ComputeOptions,
    as_json: JsonOption = False,
) -> None:
    """Measure the headroom of each layer in number formats, and find the limits that keep its product inside one."""
    result = bounds.limits(model, **vars(text), run=out, **vars(compute))
    show(result, result.folder, as_json, figures_key="figures", setting_key="setting")
