"""`armlet bench`: the cost of ARM on this machine, as ratios."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from armlet import cost
from armlet.commands import options
from armlet.commands.options import show


@dataclass(frozen=True)
class FunctionOptions:
    """Inputs and turns for timing the function."""

    widths: Annotated[str, Option(help="MLP widths at which the function is timed.")] = "1536,8960,14336,18944"
    tokens: Annotated[str, Option(help="Numbers of tokens in one call.")] = "1,32,1024"
    dtypes: Annotated[str, Option(help="Dtypes in which the function is timed.")] = "float32,bfloat16"
    turns: Annotated[int, Option(min=2, help="Number of timings of the function and of what it is compared with.")] = 20


@dataclass(frozen=True)
class HalfOptions:
    """How the model is timed, and which half of the measurement runs."""

    # Fewer than for the function: a turn takes seconds (three runs for generation and three for prefill).
    model_turns: Annotated[int, Option(min=2, help="Number of timings of the model, with and without ARM.")] = 9
    threads: Annotated[int | None, Option(min=1, help="torch's threads; torch's own choice by default.")] = None
    only: Annotated[
        Literal["function", "model"] | None, Option(help="Run only one half of the measurement; both by default.")
    ] = None


def bench(
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
    compute = {"seed": seed, "dtype": dtype, "device": device}
    measured = cost.bench(model, policy=policy, **vars(function), **vars(half), **compute)
    show(measured, out, as_json, figures_key="figure")
