"""`armlet conform`: whether what runs applies the clamps that a checkpoint was trained with."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Context, Exit, Option

from armlet import bounds
from armlet.bounds import Conformity
from armlet.checkpoints.pretrained import default_model
from armlet.commands import options
from armlet.commands.options import FAILED, folder_option, refuse_unused, show
from armlet.presentation.terminal import note


def conform(
    context: Context,
    model: options.ModelArgument = None,
    *,
    engine: Annotated[
        Literal["local", "vllm"], Option(help="vllm: check vLLM's dense MLPs and shared experts instead.")
    ] = "local",
    prompts: options.PromptOptions,
    out: Annotated[Path | None, folder_option("Folder for the figure and conform.json; none by default.")] = None,
    dtype: options.DtypeOption = "auto",
    device: options.DeviceOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Check that what runs applies the clamps that a checkpoint was trained with, in every layer and expert."""
    if engine == "vllm":
        refuse_unused(context, ("prompt", "prompts", "device"), "it has no effect with --engine vllm")
        result = _in_vllm(str(default_model() if model is None else model), dtype)
    else:
        result = bounds.conform(model, prompt=prompts.texts(), dtype=dtype, device=device)
    for warning in result.warnings():
        note(warning, style="bold red")
    show(result, out, as_json, figures_key="figure")
    if result.conforms is False:
        raise Exit(FAILED)


def _in_vllm(model: str, dtype: str) -> Conformity:
    from armlet.integrations.vllm.conformity import check_vllm  # after the command line is known to need it

    return check_vllm(model, dtype=dtype)
