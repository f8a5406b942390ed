"""`armlet generate`: answers a prompt without ARM and with it."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Context, Option

from armlet import answers
from armlet.attachment.config import load_config
from armlet.commands import options
from armlet.commands.options import folder_option, is_class_of, refuse_unused, show

CONFIGURED = ("policy", "layers", "scope", "site", "experts", "seed")  # options that an armlet.json sets


def generate(
    context: Context,
    model: Annotated[str, Argument(help="A folder or hub id.")],
    prompt: Annotated[str, Argument(help="The prompt: the user's turn in the chat template, if there is one.")],
    *,
    policy: options.PolicyOption = "outward",
    place: options.PlaceOptions,
    config: Annotated[
        Path | None,
        Option(
            help="An armlet.json, which sets policy, place and seed; --policy FILE.PY:CLASS names its class in a file."
        ),
    ] = None,
    max_new_tokens: Annotated[int, Option(min=1, help="Maximum number of tokens of each answer.")] = 128,
    temperature: Annotated[float, Option(min=0, help="Sampling temperature; 0 for greedy.")] = 0.0,
    out: Annotated[
        Path | None, folder_option("Folder for the figure, generate.json and armlet.json; none by default.")
    ] = None,
    compute: options.ComputeOptions,
    as_json: options.JsonOption = False,
) -> None:
    """Answer a prompt without ARM and with it, side by side; the first token that differs is marked."""
    attached: dict[str, Any] = {"policy": policy, **vars(place), "seed": compute.seed}
    if config:
        unused = [name for name in CONFIGURED if name != "policy" or not is_class_of(policy, config)]
        refuse_unused(context, unused, "--config sets the policy, its place and the seed")
        attached = {**load_config(config)}
    asked = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    show(answers.generate(model, prompt, **attached, **asked, dtype=compute.dtype, device=compute.device), out, as_json)
