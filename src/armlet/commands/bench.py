"""`armlet bench`: what ARM costs, as ratios, on this machine."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

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
from armlet.presentation.terminal import INTERRUPTED, notes, progress, say_interrupted
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.rows import settings
from armlet.redistribution.spelling import parse_policy

if TYPE_CHECKING:
    import torch

MODEL_TURNS = 9
"""Of the model, whose jobs take seconds; three for each of generation and prefill."""


class Only(StrEnum):
    """One half of the measurement."""

    function = "function"
    model = "model"


def bench(
    context: typer.Context,
    model: ModelArgument = None,
    policy: Annotated[str, typer.Option(help=POLICY + ".")] = "outward",
    widths: Annotated[str, typer.Option(help="MLP widths at which the function is timed.")] = "1536,8960,14336,18944",
    tokens: Annotated[str, typer.Option(help="How many tokens it is given at once.")] = "1,32,1024",
    dtypes: Annotated[str, typer.Option(help="In which dtypes.")] = "float32,bfloat16",
    turns: Annotated[int, typer.Option(min=2, help="How often the function and each yardstick are timed.")] = 20,
    model_turns: Annotated[int, typer.Option(min=2, help="How often the model is, with and without.")] = MODEL_TURNS,
    threads: Annotated[int | None, typer.Option(min=1, help="torch's threads; its own choice by default.")] = None,
    only: Annotated[Only | None, typer.Option(help="One half of the measurement; both by default.")] = None,
    out: Annotated[Path, typer.Option(help="Where the figure and bench.json go.")] = Path("armlet-bench"),
    seed: SeedOption = 0,
    dtype: DtypeOption = "float32",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what ARM costs: against the literal algorithm, the activation and a copy; and in a model."""
    import torch

    from armlet.checkpoints.pretrained import check_device

    if only is Only.function:
        refuse_idle(context, ("model", "dtype", "model_turns"), "is the model's, and --only function times none")
    if only is Only.model:
        refuse_idle(context, ("widths", "tokens", "dtypes", "turns"), "is the function's; --only model times none")
    chosen = parse_policy(policy)
    shapes = (_numbers("--widths", widths), _numbers("--tokens", tokens), _dtypes(dtypes))
    refuse_meta(device)
    check_device(device)
    check_folder(out)
    if threads:
        torch.set_num_threads(threads)
    result: dict[str, Any] = {**_about(device, seed), "policy": {"name": chosen.name, **settings(chosen)}}
    result |= {"function": [], "model": None, "interrupted": False}
    try:
        if only is not Only.model:
            _time_function(result, shapes, chosen, turns)
        if only is not Only.function:
            _time_model(result, model, chosen, model_turns, dtype)
    except KeyboardInterrupt:
        result["interrupted"] = True
        say_interrupted(result["function"] or result["model"])
    if result["function"] or result["model"]:
        _tell(result, out, as_json)
    if result["interrupted"]:
        raise typer.Exit(INTERRUPTED)


def _about(device: str | None, seed: int) -> dict[str, Any]:
    import torch

    from armlet.redistribution.backends.choice import backend_name
    from armlet.runs.machine import machine

    place = torch.device(device or "cpu")
    return {
        "machine": machine(),
        "torch": torch.__version__,
        "device": str(place),
        "backend": backend_name(place),
        "seed": seed,
    }


def _time_function(result: dict[str, Any], shapes: Any, policy: Any, turns: int) -> None:
    from armlet.cost.measure import time_function

    widths, tokens, dtypes = shapes
    with progress("timing the function", len(widths) * len(tokens) * len(dtypes) * turns) as tick:
        found = time_function(
            widths, tokens, dtypes, policy, turns=turns, device=result["device"], seed=result["seed"], tick=tick
        )
        for row in found:
            result["function"].append(row)
    result["turns"] = turns


def _time_model(result: dict[str, Any], model: str | None, policy: Any, turns: int, dtype: str) -> None:
    from armlet.checkpoints.pretrained import default_model, load
    from armlet.cost.allocator import keep_freed_memory
    from armlet.cost.measure import time_model

    kept = keep_freed_memory()
    name = model or default_model()
    with notes.status(escape(f"loading {name} ...")):
        loaded, _ = load(name, dtype=dtype, device=result["device"])
    result["model"] = {"name": name, "dtype": str(loaded.dtype).removeprefix("torch."), "turns": turns}
    result["model"] |= {"freed_memory_kept": kept, "work": []}
    with progress("timing the model", 2 * turns) as tick:
        for row in time_model(loaded, policy, turns=turns, seed=result["seed"], tick=tick):
            result["model"]["work"].append(row)


def _tell(result: dict[str, Any], out: Path, as_json: bool) -> None:
    """Writes bench.json and the figure, and prints JSON or tables."""
    from armlet.cost.figures import draw_speed
    from armlet.cost.tables import speed_tables
    from armlet.presentation.style import save

    result["figure"] = [str(path) for path in save(draw_speed(result), out, "bench")]
    write_json(out / "bench.json", result)
    if as_json:
        print(json_text(result), end="")
        return
    for table in speed_tables(result):
        Console().print(table)
    print(*(f"figure: {path}" for path in result["figure"]), sep="\n")


def _numbers(option: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ArgumentError(f"{option}: expected whole numbers from 1 such as 1536,8960, found {text!r}")
    return [int(part) for part in parts]


def _dtypes(text: str) -> "list[torch.dtype]":
    from armlet.checkpoints.pretrained import parse_dtype

    found = [parse_dtype(part.strip()) for part in text.split(",")]
    if None in found:
        raise ArgumentError("--dtypes: name each, such as float32,bfloat16")
    return [dtype for dtype in found if dtype]
