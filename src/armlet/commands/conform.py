"""`armlet conform`: whether what runs applies the clamps that a checkpoint was trained with."""

from pathlib import Path
from typing import Annotated

from typer import Exit

from armlet import bounds
from armlet.commands import options
from armlet.commands.options import FAILED, folder_option, show
from armlet.presentation.terminal import note


def conform(
    model: options.ModelArgument = None,
    *,
    prompts: options.PromptOptions,
    out: Annotated[Path | None, folder_option("Folder for the figure and conform.json; none by default.")] = None,
    dtype: options.DtypeOption = "auto",
    device: options.DeviceOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Check that what runs applies the clamps that a checkpoint was trained with, in every layer and expert."""
    result = bounds.conform(model, prompt=prompts.texts(), dtype=dtype, device=device)
    for warning in result.warnings():
        note(warning, style="bold red")
    show(result, out, as_json, figures_key="figure")
    if result.conforms is False:
        raise Exit(FAILED)
