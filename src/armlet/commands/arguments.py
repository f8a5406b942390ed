"""Options that commands share, and checks of them that run before anything slow."""

import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from armlet.presentation.files import json_text
from armlet.presentation.terminal import INTERRUPTED
from armlet.redistribution.errors import ArgumentError

POLICY = "outward, inward or transport, with settings if need be: outward:band=0.2,share=0.02/0.25"


ScopeName = StrEnum("ScopeName", {"token": "token", "sequence": "sequence", "call": "call"})
SiteName = StrEnum("SiteName", {"gate": "gate", "product": "product"})
PlaceName = StrEnum("PlaceName", {"before": "before", "between": "between", "end": "end", "random": "random"})
"""Where a filler goes."""


def unslashed(model: str | None) -> str | None:
    """A model's name without a trailing slash, which shells add; runs are named after it."""
    return model and (model.rstrip("/") or model)


ScopeOption = Annotated[ScopeName, typer.Option(help="Over which values statistics are taken.")]
LayersOption = Annotated[str, typer.Option(help="An index, several (0,3), a range (0-5), or all.")]
SiteOption = Annotated[SiteName, typer.Option(help="After the gate's activation, or after its product with up.")]
ModelArgument = Annotated[
    str | None, typer.Argument(callback=unslashed, help="A folder or hub id; SmolLM2-135M-Instruct by default.")
]
PromptOption = Annotated[list[str] | None, typer.Option(help="A prompt. May be repeated; built-in ones by default.")]
PromptsOption = Annotated[Path | None, typer.Option(help="A text file with a prompt on each line.")]
SeedOption = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the keyed noise, of samples and of sampling.")]
DtypeOption = Annotated[
    str, typer.Option(help="Of the weights: auto (the checkpoint's), float32, bfloat16, float16 or float64.")
]
DeviceOption = Annotated[str | None, typer.Option(help="Where the model runs, such as cuda; the CPU by default.")]
JsonOption = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout, and nothing else.")]


def requested_prompts(prompt: list[str] | None, prompts: Path | None, *, formulas: bool = False) -> list[str]:
    """The prompts of --prompt and then those of the file of --prompts; without any, built-in ones."""
    from armlet.prompts.questions import BUILT_IN, FORMULAS, read_prompts

    given = [*(prompt or []), *(read_prompts(prompts) if prompts else [])]
    return given or [*BUILT_IN, *(FORMULAS if formulas else ())]


def refuse_idle(context: typer.Context, names: tuple[str, ...], because: str) -> None:
    """Refuses options, named as the command's parameters, that are on the command line and would have no effect."""
    for name in names:
        source = context.get_parameter_source(name)
        if source and source.name == "COMMANDLINE":
            raise ArgumentError(f"--{name.replace('_', '-')}: {because}; leave it out")


def finish(result: object, as_json: bool, show: Callable[[], None], *, interrupted: bool) -> None:
    """Prints a command's result, as JSON or as `show` prints it; exits with 130 after Ctrl-C."""
    if as_json:
        print(json_text(result), end="")
    else:
        show()
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def check_folder(out: Path, option: str = "--out") -> None:
    """Refuses a folder that cannot be created or written to."""
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        reason = "may not be written to" if nearest.is_dir() else "is a file"
        raise ArgumentError(f"{option}: {out} cannot be written, {nearest} {reason}")


def refuse_meta(device: str | None) -> None:
    """Refuses the device "meta", whose tensors have no values."""
    if device == "meta":
        raise ArgumentError("--device: 'meta' has no values; name cpu, or cuda where there is one")
