"""`armlet bench`: what ARM costs, as ratios, on this machine."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from armlet.commands.arguments import (
    POLICY,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    check_folder,
    refuse_idle,
    refuse_meta,
)
from armlet.presentation.files import json_text, write_json
from armlet.presentation.terminal import INTERRUPTED, say_interrupted
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.spelling import parse_policy

if TYPE_CHECKING:
    import torch

    from armlet.cost.findings import Cost
    from armlet.cost.measure import Shapes


class Only(StrEnum):
    """One half of the measurement."""

    function = "function"
    model = "model"


OnePolicy = Annotated[str, typer.Option(help=POLICY + ".")]
Widths = Annotated[str, typer.Option(help="MLP widths at which the function is timed.")]
TokenCounts = Annotated[str, typer.Option(help="How many tokens it is given at once.")]
Dtypes = Annotated[str, typer.Option(help="In which dtypes.")]
Turns = Annotated[int, typer.Option(min=2, help="How often the function and each yardstick are timed.")]
# Fewer than of the function: each turn of the model, three for generation and three for prefill, takes seconds.
ModelTurns = Annotated[int, typer.Option(min=2, help="How often the model is, with and without.")]
Threads = Annotated[int | None, typer.Option(min=1, help="torch's threads; its own choice by default.")]
OnlyHalf = Annotated[Only | None, typer.Option(help="One half of the measurement; both by default.")]
Out = Annotated[Path, typer.Option(help="Where the figure and bench.json go.")]


def bench(
    context: typer.Context,
    model: ModelArgument = None,
    policy: OnePolicy = "outward",
    widths: Widths = "1536,8960,14336,18944",
    tokens: TokenCounts = "1,32,1024",
    dtypes: Dtypes = "float32,bfloat16",
    turns: Turns = 20,
    model_turns: ModelTurns = 9,
    threads: Threads = None,
    only: OnlyHalf = None,
    out: Out = Path("armlet-bench"),
    seed: SeedOption = 0,
    dtype: DtypeOption = "float32",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what ARM costs: against the literal algorithm, the activation and a copy; and in a model."""
    from armlet.checkpoints.pretrained import default_model
    from armlet.cost.run import CostPlan, measure_cost

    _refuse_other_half(context, only)
    chosen, shapes = parse_policy(policy), _parse_shapes(widths, tokens, dtypes)
    _prepare(device, out, threads)
    function = None if only is Only.model else shapes
    name = None if only is Only.function else model or default_model()
    cost = measure_cost(CostPlan(chosen, function, name, turns, model_turns, dtype, device, seed))
    if cost.interrupted:
        say_interrupted(cost.function or cost.model)
    if cost.function or cost.model:
        _show_cost(cost, out, as_json)
    if cost.interrupted:
        raise typer.Exit(INTERRUPTED)


def _refuse_other_half(context: typer.Context, only: Only | None) -> None:
    if only is Only.function:
        refuse_idle(context, ("model", "dtype", "model_turns"), "is the model's, and --only function times none")
    if only is Only.model:
        refuse_idle(context, ("widths", "tokens", "dtypes", "turns"), "is the function's; --only model times none")


def _prepare(device: str | None, out: Path, threads: int | None) -> None:
    """Checks where tensors and files go, and sets torch's threads."""
    import torch

    from armlet.checkpoints.pretrained import check_device

    refuse_meta(device)
    check_device(device)
    check_folder(out)
    if threads:
        torch.set_num_threads(threads)


def _show_cost(cost: "Cost", out: Path, as_json: bool) -> None:
    """Writes the files and prints the result."""
    from armlet.cost.figures import draw_cost
    from armlet.cost.tables import cost_tables
    from armlet.presentation.style import save

    content = {**cost.to_dict(), "figure": [str(path) for path in save(draw_cost(cost), out, "bench")]}
    write_json(out / "bench.json", content)
    if as_json:
        print(json_text(content), end="")
        return
    for table in cost_tables(cost):
        Console().print(table)
    print(*(f"figure: {out / f'bench.{ending}'}" for ending in ("png", "svg")), sep="\n")


def _parse_shapes(widths: str, tokens: str, dtypes: str) -> "Shapes":
    from armlet.cost.measure import Shapes

    return Shapes(_parse_numbers("--widths", widths), _parse_numbers("--tokens", tokens), _parse_dtypes(dtypes))


def _parse_numbers(option: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ArgumentError(f"{option}: expected whole numbers from 1 such as 1536,8960, found {text!r}")
    return [int(part) for part in parts]


def _parse_dtypes(text: str) -> "list[torch.dtype]":
    from armlet.checkpoints.pretrained import parse_dtype

    parsed = [parse_dtype(part.strip()) for part in text.split(",")]
    if None in parsed:
        raise ArgumentError("--dtypes: name each, such as float32,bfloat16")
    return [dtype for dtype in parsed if dtype]
