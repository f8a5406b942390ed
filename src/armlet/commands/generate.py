"""`armlet generate`: answers a prompt without ARM and with it."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from armlet.answers.measure import answer_twice
from armlet.answers.tables import answers_table
from armlet.attachment.attach import Attachment, attach
from armlet.attachment.config import AttachArguments, describe, load_config
from armlet.checkpoints.pretrained import load
from armlet.commands import options
from armlet.commands.engines import loading
from armlet.commands.options import finish, folder_option, refuse_unused
from armlet.presentation.files import write_json
from armlet.presentation.terminal import progress
from armlet.prompts.generation import Decoding
from armlet.redistribution.policies import parse_policy

CONFIGURED = ("policy", "layers", "scope", "site", "seed")  # options that an armlet.json sets


def generate(
    context: Context,
    model: Annotated[str, Argument(help="A folder or hub id.")],
    prompt: Annotated[str, Argument(help="The prompt: the user's turn in the chat template, if there is one.")],
    *,
    policy: options.PolicyOption = "outward",
    place: options.PlaceOptions,
    config: Annotated[Path | None, Option(help="An armlet.json: policy, layers, scope, site and noise.")] = None,
    max_new_tokens: Annotated[int, Option(min=1, help="Maximum number of tokens of each answer.")] = 128,
    temperature: Annotated[float, Option(min=0, help="Sampling temperature; 0 for greedy.")] = 0.0,
    out: Annotated[Path | None, folder_option("Folder for generate.json and armlet.json; none by default.")] = None,
    compute: options.ComputeOptions,
    as_json: options.JsonOption = False,
) -> None:
    """Answer a prompt without ARM and with it, side by side; the first token that differs is marked."""
    arguments = _attach_arguments(context, policy, place, config, compute.seed)
    # --config also sets the seed of sampling.
    decoding = Decoding(max_new_tokens, temperature, seed=getattr(arguments["noise"], "seed", compute.seed) % 2**63)
    with loading(model):
        loaded, tokenizer = load(model, dtype=compute.dtype, device=compute.device)
    with attach(loaded, **arguments) as arm, progress("generating", 2 * max_new_tokens) as tick:
        answers = answer_twice(loaded, tokenizer, arm, prompt, decoding, tick)
    used = describe(arm.policy, arm.layers, arm.scope, arm.noise, arm.site)
    result = {"model": model, "prompt": prompt, "armlet": used} | answers.to_dict()
    _save_answers(out, arm, result)
    finish(result, as_json, [answers_table(tokenizer, answers, arm)], interrupted=answers.interrupted)


def _attach_arguments(
    context: Context, policy: str, place: options.PlaceOptions, config: Path | None, seed: int
) -> AttachArguments:
    if config:
        refuse_unused(context, CONFIGURED, "--config sets policy, layers, scope, site and seed")
        return load_config(config)
    return place.arguments(parse_policy(policy), seed)


def _save_answers(out: Path | None, arm: Attachment, result: dict[str, object]) -> None:
    if out:
        arm.save(out)
        write_json(out / "generate.json", result)
