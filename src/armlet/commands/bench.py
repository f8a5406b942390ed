"""`armlet bench`: the cost of ARM on this machine, as ratios."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from typer import Context, Option

from armlet.checkpoints.pretrained import check_device, default_model, parse_dtype
from armlet.commands import options
from armlet.commands.options import finish, refuse_unused
from armlet.cost.findings import Cost
from armlet.cost.measure import Shapes
from armlet.cost.run import CostPlan, measure_cost
from armlet.cost.tables import cost_tables
from armlet.presentation.files import write_json
from armlet.presentation.interruption import report_interruption
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policies import parse_policy


@dataclass(frozen=True)
class FunctionOptions:
    """Inputs and turns for timing the function."""

    widths: Annotated[str, Option(help="MLP widths at which the function is timed.")] = "1536,8960,14336,18944"
    tokens: Annotated[str, Option(help="Numbers of tokens in one call.")] = "1,32,1024"
    dtypes: Annotated[str, Option(help="Dtypes in which the function is timed.")] = "float32,bfloat16"
    turns: Annotated[int, Option(min=2, help="Number of timings of the function and of what it is compared with.")] = 20

    def shapes(self) -> Shapes:
        """The shapes and dtypes of the function's tensors."""
        numbers = _parse_numbers("--widths", self.widths), _parse_numbers("--tokens", self.tokens)
        return Shapes(*numbers, _parse_dtypes(self.dtypes))


@dataclass(frozen=True)
class HalfOptions:
    """How the model is timed, and which half of the measurement runs."""

    # Fewer than for the function: a turn takes seconds (three runs for generation and three for prefill).
    model_turns: Annotated[int, Option(min=2, help="Number of timings of the model, with and without ARM.")] = 9
    threads: Annotated[int | None, Option(min=1, help="torch's threads; torch's own choice by default.")] = None
    only: Annotated[
        Literal["function", "model"] | None, Option(help="Run only one half of the measurement; both by default.")
    ] = None

    def check(self, context: Context) -> None:
        """Refuses options of the half that does not run."""
        if self.only == "function":
            refuse_unused(context, ("model", "dtype", "model_turns"), "has no effect with --only function")
        if self.only == "model":
            refuse_unused(context, ("widths", "tokens", "dtypes", "turns"), "has no effect with --only model")


def bench(
    context: Context,
    model: options.ModelArgument = None,
    *,
    policy: options.PolicyOption = "outward",
    function: FunctionOptions,
    half: HalfOptions,
    out: Annotated[Path, options.folder_option("Folder for the figure and bench.json.")] = Path("armlet-bench"),
    seed: options.SeedOption = 0,
    dtype: options.DtypeOption = "float32",
    device: options.DeviceOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Measure the cost of ARM, compared with the literal algorithm, the activation and a copy, and inside a model."""
    half.check(context)
    chosen, shapes = parse_policy(policy), function.shapes()
    check_device(device)
    if half.threads:
        torch.set_num_threads(half.threads)
    parts = None if half.only == "model" else shapes, None if half.only == "function" else model or default_model()
    cost = measure_cost(CostPlan(chosen, *parts, function.turns, half.model_turns, dtype, device, seed))
    report_interruption(cost.interrupted, cost.function or cost.model)
    _show_cost(cost, out, as_json)


def _show_cost(cost: Cost, out: Path, as_json: bool) -> None:
    """Writes the files and prints the result."""
    from armlet.cost.figures import draw_cost
    from armlet.presentation.style import save

    figure = [str(path) for path in save(draw_cost(cost), out, "bench")]
    content = {**cost.to_dict(), "figure": figure}
    write_json(out / "bench.json", content)
    shown = [*cost_tables(cost), *(f"figure: {path}" for path in figure)]
    finish(content, as_json, shown, interrupted=cost.interrupted)


def _parse_numbers(option: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ArgumentError(f"{option}: expected whole numbers from 1 such as 1536,8960, found {text!r}")
    return [int(part) for part in parts]


def _parse_dtypes(text: str) -> list[torch.dtype]:
    parsed = [parse_dtype(part.strip()) for part in text.split(",")]
    if None in parsed:
        raise ArgumentError("--dtypes: auto is not supported; name dtypes such as float32,bfloat16")
    return [dtype for dtype in parsed if dtype]
