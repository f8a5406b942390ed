"""`armlet generate`: an answer without ARM and one with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from armlet.attachment.config import AttachArguments, describe, load_config, parse_layers
from armlet.commands import arguments
from armlet.presentation.files import write_json
from armlet.presentation.terminal import notes, progress
from armlet.redistribution.noise import Noise
from armlet.redistribution.spelling import parse_policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def generate(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A folder or hub id.")],
    prompt: Annotated[str, typer.Argument(help="What to ask: the user's turn of the chat template, if there is one.")],
    policy: Annotated[str, typer.Option(help=arguments.POLICY + ".")] = "outward",
    layers: arguments.LayersOption = "0",
    scope: arguments.ScopeOption = arguments.ScopeName.token,
    site: arguments.SiteOption = arguments.SiteName.gate,
    config: Annotated[Path | None, typer.Option(help="An armlet.json: policy, layers, scope, site and noise.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of each answer.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="Of sampling; 0 for greedy.")] = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="Where generate.json and armlet.json go; nowhere by default.")
    ] = None,
    seed: arguments.SeedOption = 0,
    dtype: arguments.DtypeOption = "auto",
    device: arguments.DeviceOption = None,
    as_json: arguments.JsonOption = False,
) -> None:
    """Answer a prompt without ARM and with it, side by side; marked: the first token at which the answers part."""
    from armlet.answers.measure import answer_twice
    from armlet.answers.tables import answers_table
    from armlet.attachment.attach import attach
    from armlet.prompts.generation import Decoding

    attached: AttachArguments = {
        "policy": parse_policy(policy),
        "layers": parse_layers(layers),
        "scope": scope.value,
        "noise": Noise(seed),
        "site": site.value,
    }
    if config:
        decided = ("policy", "layers", "scope", "site", "seed")
        arguments.refuse_idle(context, decided, "--config names policy, layers, scope, site and seed")
        attached = load_config(config)
    if out:
        arguments.check_folder(out)
    # --config gives the seed of sampling too.
    decoding = Decoding(max_new_tokens, temperature, seed=getattr(attached["noise"], "seed", seed) % 2**63)
    loaded, tokenizer = _load_model(model, dtype, device)
    with attach(loaded, **attached) as attachment, progress("generating", 2 * max_new_tokens) as tick:
        answers = answer_twice(loaded, tokenizer, attachment, prompt, decoding, tick)
    used = describe(attachment.policy, attachment.layers, attachment.scope, attachment.noise, attachment.site)
    result = {"model": model, "prompt": prompt, "armlet": used} | answers.to_dict()
    if out:
        attachment.save(out)
        write_json(out / "generate.json", result)
    table = answers_table(tokenizer, answers, attachment)
    arguments.finish(result, as_json, lambda: Console().print(table), interrupted=answers.interrupted)


def _load_model(model: str, dtype: str, device: str | None) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    from armlet.checkpoints.pretrained import load

    arguments.refuse_meta(device)
    with notes.status(escape(f"loading {model} ...")):
        loaded = load(model, dtype=dtype, device=device)
    from transformers.utils import logging

    logging.set_verbosity_error()  # this process is the command's own, and stderr is for what the user must know
    return loaded
