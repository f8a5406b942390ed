"""`armlet bench`: what ARM costs, as ratios, on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Context, Exit, Option

from armlet.commands import options
from armlet.commands.options import finish, refuse_idle
from armlet.presentation.files import write_json
from armlet.presentation.terminal import INTERRUPTED, say_interrupted
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.spelling import parse_policy

if TYPE_CHECKING:
    import torch

    from armlet.cost.findings import Cost


def bench(
    context: Context,
    model: options.ModelArgument = None,
    policy: options.PolicyOption = "outward",
    widths: Annotated[str, Option(help="MLP widths at which the function is timed.")] = "1536,8960,14336,18944",
    tokens: Annotated[str, Option(help="How many tokens it is given at once.")] = "1,32,1024",
    dtypes: Annotated[str, Option(help="In which dtypes.")] = "float32,bfloat16",
    turns: Annotated[int, Option(min=2, help="How often the function and each yardstick are timed.")] = 20,
    # Fewer than of the function: each turn of the model, three for generation and three for prefill, takes seconds.
    model_turns: Annotated[int, Option(min=2, help="How often the model is, with and without.")] = 9,
    threads: Annotated[int | None, Option(min=1, help="torch's threads; its own choice by default.")] = None,
    only: Annotated[
        Literal["function", "model"] | None, Option(help="One half of the measurement; both by default.")
    ] = None,
    out: Annotated[Path, options.folder_option("Where the figure and bench.json go.")] = Path("armlet-bench"),
    seed: options.SeedOption = 0,
    dtype: options.DtypeOption = "float32",
    device: options.DeviceOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Measure what ARM costs: against the literal algorithm, the activation and a copy; and in a model."""
    import torch

    from armlet.checkpoints.pretrained import check_device, default_model
    from armlet.cost.measure import Shapes
    from armlet.cost.run import CostPlan, measure_cost

    if only == "function":
        refuse_idle(context, ("model", "dtype", "model_turns"), "is the model's, and --only function times none")
    if only == "model":
        refuse_idle(context, ("widths", "tokens", "dtypes", "turns"), "is the function's; --only model times none")
    chosen = parse_policy(policy)
    shapes = Shapes(_parse_numbers("--widths", widths), _parse_numbers("--tokens", tokens), _parse_dtypes(dtypes))
    check_device(device)
    if threads:
        torch.set_num_threads(threads)
    function = None if only == "model" else shapes
    name = None if only == "function" else model or default_model()
    cost = measure_cost(CostPlan(chosen, function, name, turns, model_turns, dtype, device, seed))
    if cost.interrupted:
        say_interrupted(cost.function or cost.model)
    if not (cost.function or cost.model):
        raise Exit(INTERRUPTED)
    _show_cost(cost, out, as_json)


def _show_cost(cost: "Cost", out: Path, as_json: bool) -> None:
    """Writes the files and prints the result."""
    from armlet.cost.figures import draw_cost
    from armlet.cost.tables import cost_tables
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


def _parse_dtypes(text: str) -> "list[torch.dtype]":
    from armlet.checkpoints.pretrained import parse_dtype

    parsed = [parse_dtype(part.strip()) for part in text.split(",")]
    if None in parsed:
        raise ArgumentError("--dtypes: name each, such as float32,bfloat16")
    return [dtype for dtype in parsed if dtype]
