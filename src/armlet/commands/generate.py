"""`armlet generate`: an answer without ARM and one with it."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from armlet.answers.measure import answer_twice
from armlet.answers.tables import answers_table
from armlet.attachment.attach import attach
from armlet.attachment.config import describe, load_config
from armlet.checkpoints.pretrained import load
from armlet.commands import options
from armlet.commands.engines import loading
from armlet.commands.options import finish, folder_option, refuse_idle
from armlet.presentation.files import write_json
from armlet.presentation.terminal import progress
from armlet.prompts.generation import Decoding
from armlet.redistribution.policies import parse_policy

DECIDED = ("policy", "layers", "scope", "site", "seed")
"""Options whose values an armlet.json gives."""


def generate(
    context: Context,
    model: Annotated[str, Argument(help="A folder or hub id.")],
    prompt: Annotated[str, Argument(help="What to ask: the user's turn of the chat template, if there is one.")],
    *,
    policy: options.PolicyOption = "outward",
    place: options.PlaceOptions,
    config: Annotated[Path | None, Option(help="An armlet.json: policy, layers, scope, site and noise.")] = None,
    max_new_tokens: Annotated[int, Option(min=1, help="Most tokens of each answer.")] = 128,
    temperature: Annotated[float, Option(min=0, help="Of sampling; 0 for greedy.")] = 0.0,
    out: Annotated[Path | None, folder_option("Where generate.json and armlet.json go; nowhere by default.")] = None,
    compute: options.ComputeOptions,
    as_json: options.JsonOption = False,
) -> None:
    """Answer a prompt without ARM and with it, side by side; marked: the first token at which the answers part."""
    if config:
        refuse_idle(context, DECIDED, "--config names policy, layers, scope, site and seed")
    arguments = load_config(config) if config else place.arguments(parse_policy(policy), compute.seed)
    # --config gives the seed of sampling too.
    decoding = Decoding(max_new_tokens, temperature, seed=getattr(arguments["noise"], "seed", compute.seed) % 2**63)
    with loading(model):
        loaded, tokenizer = load(model, dtype=compute.dtype, device=compute.device)
    with attach(loaded, **arguments) as arm, progress("generating", 2 * max_new_tokens) as tick:
        answers = answer_twice(loaded, tokenizer, arm, prompt, decoding, tick)
    used = describe(arm.policy, arm.layers, arm.scope, arm.noise, arm.site)
    result = {"model": model, "prompt": prompt, "armlet": used} | answers.to_dict()
    if out:
        arm.save(out)
        write_json(out / "generate.json", result)
    finish(result, as_json, [answers_table(tokenizer, answers, arm)], interrupted=answers.interrupted)
