"""`armlet generate`: an answer without ARM and one with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from armlet.attachment.config import describe, load_config, parse_layers
from armlet.commands.arguments import (
    POLICY,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ScopeName,
    ScopeOption,
    SeedOption,
    SiteName,
    SiteOption,
    check_folder,
    refuse_meta,
)
from armlet.presentation.files import json_text, write_json
from armlet.presentation.terminal import INTERRUPTED, notes, progress
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise
from armlet.redistribution.spelling import parse_policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def generate(
    model: Annotated[str, typer.Argument(help="A folder or hub id.")],
    prompt: Annotated[str, typer.Argument(help="What to ask: the user's turn of the chat template, if there is one.")],
    policy: Annotated[str, typer.Option(help=POLICY + ".")] = "outward",
    layers: Annotated[str, typer.Option(help="An index, several (0,3), a range (0-5), or all.")] = "0",
    scope: ScopeOption = ScopeName.token,
    site: SiteOption = SiteName.gate,
    config: Annotated[Path | None, typer.Option(help="An armlet.json: policy, layers, scope, site and noise.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of each answer.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="Of sampling; 0 for greedy.")] = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="Where generate.json and armlet.json go; nowhere by default.")
    ] = None,
    seed: SeedOption = 0,
    dtype: DtypeOption = "auto",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer a prompt without ARM and with it, side by side; marked: the first token at which the answers part."""
    from armlet.answers.generation import Answers, answer
    from armlet.answers.tables import answers_table
    from armlet.attachment.attach import attach

    described = _described(policy, layers, scope, site, seed)
    if config and described != _described("outward", "0", ScopeName.token, SiteName.gate, 0):
        raise ArgumentError(
            "--config names policy, layers, scope, site and seed: leave --policy, --layers, --scope, --site, --seed out"
        )
    arguments = load_config(config) if config else described
    seed = getattr(arguments["noise"], "seed", seed) % 2**63  # of sampling too: --config gives the saved answer again
    if out:
        check_folder(out)
    loaded, tokenizer = _load(model, dtype, device)
    answers = Answers()
    with attach(loaded, **arguments) as attachment, progress("generating", 2 * max_new_tokens) as tick:
        how: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed, "tick": tick}
        with attachment.paused():
            answers.baseline = answer(loaded, tokenizer, prompt, **how)
        if not answers.baseline.interrupted:
            answers.treated = answer(loaded, tokenizer, prompt, **how)
    used = describe(attachment.policy, attachment.layers, attachment.scope, attachment.noise, attachment.site)
    result = {"model": model, "prompt": prompt, "armlet": used, "report": attachment.report()} | answers.plain()
    if out:
        attachment.save(out)
        write_json(out / "generate.json", result)
    if as_json:
        print(json_text(result), end="")
    else:
        Console().print(answers_table(tokenizer, answers, attachment))
    if answers.interrupted:
        raise typer.Exit(INTERRUPTED)


def _described(policy: str, layers: str, scope: ScopeName, site: SiteName, seed: int) -> dict[str, Any]:
    """The arguments of `attach` that the command line gives."""
    place = {"layers": parse_layers(layers), "scope": scope.value, "site": site.value}
    return {"policy": parse_policy(policy), **place, "noise": Noise(seed)}


def _load(model: str, dtype: str, device: str | None) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    from armlet.checkpoints.pretrained import load

    refuse_meta(device)
    with notes.status(escape(f"loading {model} ...")):
        loaded = load(model, dtype=dtype, device=device)
    from transformers.utils import logging

    logging.set_verbosity_error()  # this process is the command's own, and stderr is for what the user must know
    return loaded
