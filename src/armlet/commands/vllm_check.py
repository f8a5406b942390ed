"""`armlet vllm-check`: does ARM fire in vLLM, and what does it cost."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from armlet.attachment.config import describe, load_config, parse_layers
from armlet.commands.arguments import (
    POLICY,
    DtypeOption,
    JsonOption,
    PromptOption,
    PromptsOption,
    SeedOption,
    check_folder,
    refuse_idle,
    requested_prompts,
)
from armlet.presentation.files import json_text, write_json
from armlet.presentation.terminal import notes
from armlet.redistribution.noise import Noise
from armlet.redistribution.spelling import parse_policy

if TYPE_CHECKING:
    from armlet.integrations.vllm.check import Check

FAILED = 1
"""Exit code where ARM did not fire as it should."""


def vllm_check(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A folder or hub id.")],
    policy: Annotated[str, typer.Option(help=POLICY + ".")] = "outward",
    layers: Annotated[str, typer.Option(help="An index, several (0,3), a range (0-5), or all.")] = "0",
    config: Annotated[Path | None, typer.Option(help="An armlet.json: policy, layers and seed.")] = None,
    prompt: PromptOption = None,
    prompts: PromptsOption = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each answer.")] = 32,
    eager: Annotated[bool, typer.Option(help="Without compilation and graphs, which loads sooner.")] = False,
    tensor_parallel: Annotated[int, typer.Option(min=1, help="Ranks along the width.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Where vllm-check.json goes; nowhere by default.")] = None,
    seed: SeedOption = 0,
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Load a model in vLLM without ARM and with it: where ARM is, what it moves, what it leaves unchanged, its cost."""
    from armlet.integrations.vllm.check import check_serving

    if config:
        refuse_idle(context, ("policy", "layers", "seed"), "--config names it")
        settings, chosen = str(config), load_config(config)["policy"]
    else:
        chosen = parse_policy(policy)
        settings = describe(chosen, [], "token", Noise(seed)) | {"layers": parse_layers(layers)}
    if not chosen.strength:
        notes.print("strength 0: ARM acts only on requests that ask for it, and none here does", style="yellow")
    if out:
        check_folder(out)
    texts = requested_prompts(prompt, prompts)
    with notes.status("vLLM ...") as status:
        result = check_serving(
            model,
            settings,
            texts,
            tokens=max_new_tokens,
            eager=eager,
            tensor_parallel=tensor_parallel,
            dtype=dtype,
            tick=lambda what: status.update(f"{what} ..."),
        )
    plain = asdict(result) | {"passed": result.passed}
    if out:
        write_json(out / "vllm-check.json", plain)
    if as_json:
        print(json_text(plain), end="")
    else:
        _show_check(result)
    if not result.passed:
        raise typer.Exit(FAILED)


def _show_check(result: "Check") -> None:
    table = Table(title=f"ARM in vLLM: {result.model}", title_justify="left")
    for name in ("rank", "layer", "tokens seen", "values moved", "share moved", "rows passed"):
        table.add_column(name, justify="right")
    for rank in result.ranks:
        for layer, counts in rank["layers"].items():
            share = f"{100 * counts['share_moved']:.2f} %"
            row = (counts["tokens"], counts["moved"])
            table.add_row(str(rank["rank"]), layer, *(f"{n:,}" for n in row), share, str(counts["passed"]))
    Console().print(table)
    seconds = result.seconds
    on, off = (seconds[mode] / seconds["baseline"] for mode in ("on", "off"))
    lines = [
        f"answers that differ with ARM on: {result.changed} of {result.prompts}",
        f"requests with ARM off: {_equal(result.off_equal)} in tokens and log-probabilities",
        f"requests with ARM off in a batch with requests that have it: {_equal(result.mates_equal)} in tokens",
        f"time per token: {1e3 * seconds['baseline']:.2f} ms without, {on:.2f} × with, "
        f"{off:.2f} × with ARM off by request (medians, one engine after the other)",
        *(f"layer {layer}: asked for, and no token came through" for layer in result.missing),
    ]
    print(*lines, sep="\n")


def _equal(equal: bool) -> str:
    return "as the baseline" if equal else "NOT as the baseline"
