"""`armlet generate`: an answer without ARM and one with it."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Context, Option

from armlet.attachment.config import describe, load_config
from armlet.commands import options
from armlet.commands.engines import loading
from armlet.commands.options import finish, folder_option, refuse_idle
from armlet.presentation.files import write_json
from armlet.presentation.terminal import progress
from armlet.redistribution.spelling import parse_policy


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
    from armlet.answers.measure import answer_twice
    from armlet.answers.tables import answers_table
    from armlet.attachment.attach import attach
    from armlet.checkpoints.pretrained import load
    from armlet.prompts.generation import Decoding

    if config:
        decided = ("policy", "layers", "scope", "site", "seed")
        refuse_idle(context, decided, "--config names policy, layers, scope, site and seed")
    attached = load_config(config) if config else place.arguments(parse_policy(policy), compute.seed)
    # --config gives the seed of sampling too.
    seed = getattr(attached["noise"], "seed", compute.seed) % 2**63
    decoding = Decoding(max_new_tokens, temperature, seed=seed)
    with loading(model):
        loaded, tokenizer = load(model, dtype=compute.dtype, device=compute.device)
    with attach(loaded, **attached) as attachment, progress("generating", 2 * max_new_tokens) as tick:
        answers = answer_twice(loaded, tokenizer, attachment, prompt, decoding, tick)
    used = describe(attachment.policy, attachment.layers, attachment.scope, attachment.noise, attachment.site)
    result = {"model": model, "prompt": prompt, "armlet": used} | answers.to_dict()
    if out:
        attachment.save(out)
        write_json(out / "generate.json", result)
    finish(result, as_json, [answers_table(tokenizer, answers, attachment)], interrupted=answers.interrupted)
