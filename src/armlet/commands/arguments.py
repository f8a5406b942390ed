"""The arguments that commands share, and what is checked of them before anything takes its time."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from armlet.redistribution.errors import ArgumentError

POLICY = "outward, inward or transport, with settings if need be: outward:band=0.2,share=0.02/0.25"


class ScopeName(StrEnum):
    """Over which values statistics are taken."""

    token = "token"
    sequence = "sequence"
    call = "call"


class SiteName(StrEnum):
    """Where in the MLP ARM is."""

    gate = "gate"
    product = "product"


class PlaceName(StrEnum):
    """Where a filler stands."""

    before = "before"
    between = "between"
    end = "end"
    random = "random"


def unslashed(model: str | None) -> str | None:
    """A model's name, by which its runs are called and found again: "folder/", as shells complete it, is "folder"."""
    return model and (model.rstrip("/") or model)


ScopeOption = Annotated[ScopeName, typer.Option(help="Over which values statistics are taken.")]
SiteOption = Annotated[SiteName, typer.Option(help="Behind the gate's activation, or behind its product with up.")]
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


def requested_prompts(prompt: list[str] | None, prompts: Path | None, default: tuple[str, ...]) -> list[str]:
    """The prompts that the command line gives, one by one and in a file, or else `default`."""
    from armlet.prompts.questions import read_prompts

    given = [*(prompt or []), *(read_prompts(prompts) if prompts else [])]
    return given or list(default)


def refuse_idle(context: typer.Context, names: tuple[str, ...], because: str) -> None:
    """Refuses options that were given on the command line and would change nothing.

    Args:
        context: of the command.
        names: of its parameters.
        because: why they would not.

    Raises:
        ArgumentError: names the first of them.
    """
    for name in names:
        source = context.get_parameter_source(name)
        if source and source.name == "COMMANDLINE":
            raise ArgumentError(f"--{name.replace('_', '-')}: {because}; leave it out")


def check_folder(out: Path, option: str = "--out") -> None:
    """Refuses, before anything takes its time, a folder that cannot be made or written to."""
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        reason = "may not be written to" if nearest.is_dir() else "is a file"
        raise ArgumentError(f"{option}: {out} cannot be written, {nearest} {reason}")


def refuse_meta(device: str | None) -> None:
    """Refuses the device that holds no values."""
    if device == "meta":
        raise ArgumentError("--device: 'meta' holds no values; name cpu, or cuda where there is one")
