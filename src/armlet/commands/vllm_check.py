"""`armlet vllm-check`: checks that ARM fires in vLLM, and measures its cost."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated

from rich.table import Table
from typer import Argument, Context, Exit, Option

from armlet.attachment.config import all_placements, describe, layer_indices, load_config, parse_config
from armlet.commands import options
from armlet.commands.options import FAILED, folder_option, refuse_unused
from armlet.integrations.vllm.check import REPEATS, Check, check_serving
from armlet.presentation.files import write_json
from armlet.presentation.tables import titled_table
from armlet.presentation.terminal import notes, print_json, print_tables
from armlet.prompts.questions import BUILT_IN
from armlet.redistribution.noise import Noise
from armlet.redistribution.policies import parse_policy
from armlet.redistribution.rows import Policy


def vllm_check(
    context: Context,
    model: Annotated[str, Argument(help="A folder or hub id.")],
    *,
    policy: options.PolicyOption = "outward",
    layers: options.LayersOption = "0",
    site: options.SiteOption = "gate",
    config: Annotated[Path | None, Option(help="An armlet.json: policies, layers, sites and seed.")] = None,
    prompts: options.PromptOptions,
    max_new_tokens: Annotated[int, Option(min=1, help="Number of tokens of each answer.")] = 32,
    eager: Annotated[bool, Option(help="Load faster, without compilation and graphs.")] = False,
    tensor_parallel: Annotated[int, Option(min=1, help="Number of ranks that split the width.")] = 1,
    memory: Annotated[
        float | None,
        Option(
            min=0.01,
            max=1,
            help="Share of a GPU's memory that must be free; vLLM's default if omitted. Not used on a CPU.",
        ),
    ] = None,
    out: Annotated[Path | None, folder_option("Folder for vllm-check.json; none by default.")] = None,
    seed: options.SeedOption = 0,
    dtype: options.DtypeOption = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Load a model in vLLM without ARM and with it, and show where ARM is, what it moves, and its cost."""
    if config:
        refuse_unused(context, ("policy", "layers", "site", "seed"), "--config sets it")
    settings = str(config) if config else _serving_settings(parse_policy(policy), layers, site, seed)
    placements = all_placements(load_config(config) if config else parse_config(settings))
    if not any(placement["policy"].strength for placement in placements):
        notes.print("strength 0: ARM acts only on requests that turn it on, and no request here does", style="yellow")
    limits = {"tokens": max_new_tokens, "eager": eager, "tensor_parallel": tensor_parallel}
    limits |= {"dtype": dtype, "memory": memory}
    texts = prompts.texts() or [*BUILT_IN]
    with notes.status("vLLM ...") as status:
        result = check_serving(model, settings, texts, **limits, tick=lambda what: status.update(f"{what} ..."))
    _show_check(result, out, as_json)


def _serving_settings(policy: Policy, layers: str, site: str, seed: int) -> dict[str, object]:
    return describe(policy, layer_indices(layers), "token", Noise(seed), site)


def _show_check(result: Check, out: Path | None, as_json: bool) -> None:
    """Writes the file and prints the result."""
    content = asdict(result) | {"passed": result.passed}
    if out:
        write_json(out / "vllm-check.json", content)
    if as_json:
        print_json(content)
    else:
        print_tables(_ranks_table(result))
        print("\n".join(_sentences(result)))
    if not result.passed:
        raise Exit(FAILED)


def _ranks_table(result: Check) -> Table:
    headings = ("rank", "layer", "tokens seen", "values moved", "share moved", "rows passed")
    table = titled_table(f"ARM in vLLM: {result.model}", headings)
    table.columns[0].justify = "right"
    for rank in result.ranks:
        for layer, counts in rank["layers"].items():
            share = f"{100 * counts['share_moved']:.2f} %"
            row = (counts["tokens"], counts["moved"])
            table.add_row(str(rank["rank"]), layer, *(f"{n:,}" for n in row), share, str(counts["passed"]))
    return table


def _sentences(result: Check) -> Iterator[str]:
    off, mates = ("as" if equal else "NOT as" for equal in (result.off_equal, result.mates_equal))
    without, with_arm, turned_off = (_milliseconds(result.seconds[mode]) for mode in ("baseline", "on", "off"))
    yield f"answers that differ with ARM on: {result.changed} of {result.prompts}"
    yield f"requests with ARM off: {off} the baseline in tokens and log-probabilities"
    yield f"requests with ARM off in a batch with requests with ARM on: {mates} the baseline in tokens"
    yield (
        f"ms per token: {without} without, {with_arm} with, {turned_off} with ARM off by request (median and range of "
        f"{REPEATS} runs, one engine after the other; ranges that overlap show no difference)"
    )
    yield from (f"layer {layer}: configured, but no token passed through it" for layer in result.missing)


def _milliseconds(seconds: Sequence[float]) -> str:
    milliseconds = sorted(1e3 * second for second in seconds)
    return f"{median(milliseconds):.2f} ({milliseconds[0]:.2f} to {milliseconds[-1]:.2f})"
