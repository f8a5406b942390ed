"""The command line that inspects the same values, for a page that is sent to somebody."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from armlet.attachment.sites import GATE
from armlet.checkpoints.given import Model, model_name

ANY_MODEL = "MODEL"  # in place of a folder, whose path is this machine's


def sample_arguments(
    model: Model | None, layer: int, site: str, prompts: Sequence[str], synthetic: str | None, dtype: object
) -> tuple[str, ...]:
    """The arguments of `armlet inspect` that read the same values; the device is left out, and so are defaults."""
    if synthetic is not None:
        return ("--synthetic", synthetic)
    arguments = [] if model is None else [_shown_model(model)]
    options = {"--layer": (layer, 0), "--site": (site, GATE), "--dtype": (str(dtype).removeprefix("torch."), "auto")}
    arguments += [text for name, (value, usual) in options.items() if value != usual for text in (name, str(value))]
    return (*arguments, *(text for prompt in prompts for text in ("--prompt", prompt)))


def _shown_model(model: Model) -> str:
    name = model_name(model)
    return ANY_MODEL if not isinstance(model, str | Path) or Path(name).exists() else name


def inspect_command(arguments: Sequence[str], scope: str, seed: int, policy: str) -> str:
    """A line for a shell; arguments: from `sample_arguments`; policy: as text."""
    options = {"--scope": (scope, "token"), "--seed": (str(seed), "0")}
    changed = [text for name, (value, usual) in options.items() if value != usual for text in (name, value)]
    return shlex.join(["armlet", "inspect", *arguments, *changed, "--policy", policy])
