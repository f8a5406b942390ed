"""`armlet bench`: the cost of ARM on this machine, as ratios."""

from pathlib import Path
from typing import Annotated

from armlet import cost
from armlet.commands import options
from armlet.commands.options import show
from armlet.cost.plan import MODEL_DTYPE, ShapeOptions, TimingOptions


def bench(
    model: options.ModelArgument = None,
    *,
    policy: options.PolicyOption = "outward",
    shapes: ShapeOptions,
    timing: TimingOptions,
    out: Annotated[Path, options.folder_option("Folder for the figure and bench.json.")] = Path("armlet-bench"),
    seed: options.SeedOption = 0,
    dtype: options.DtypeOption = MODEL_DTYPE,
    device: options.DeviceOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Measure the cost of ARM, compared with the literal algorithm, the activation and a copy, and inside a model."""
    compute = {"seed": seed, "dtype": dtype, "device": device}
    measured = cost.bench(model, policy=policy, **vars(shapes), **vars(timing), **compute)
    show(measured, out, as_json, figures_key="figure")
