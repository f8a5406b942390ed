"""Measures a bound with a limit, `Inward(limit=...)`, as multiples of SiLU's time, by shape, curve and share beyond.

    python benchmarks/limits.py --threads 2 --turns 21

All calls of a shape run in turns, allocate their outputs, and see the same values, from N(0, 1).
"""

import argparse
import json
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor, nn

from armlet import ARM, Inward
from armlet.cost.timing import Spread, TimedJob, in_turns, keep_freed_memory, summarize

CURVES, SHARES = ("clip", "log", "tanh"), (0.001, 0.01, 0.05)


def bounds(a: Tensor) -> dict[str, Inward]:
    """The policies, by curve and share beyond the limit, and those with a quantile in place of the limit."""
    magnitudes = a.float().abs().flatten()
    limits = {share: float(magnitudes.kthvalue(round((1 - share) * a.numel())).values) for share in SHARES}
    named = {f"{curve} {share:.1%}": Inward(limit=limits[share], curve=curve) for curve in CURVES for share in SHARES}
    return named | {f"{curve}, no limit": Inward(knee=0.99, curve=curve) for curve in CURVES}


def ratios(shape: list[int], dtype: torch.dtype, turns: int) -> tuple[float, dict[str, Spread]]:
    """Median seconds of SiLU, and the ratios of the bounds' times to it in the same turn."""
    a = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    arms = {name: ARM(policy, width=shape[-1]) for name, policy in bounds(a).items()}
    calls = {"SiLU": nn.SiLU(), **arms}
    times = in_turns({name: TimedJob(partial(call, a)) for name, call in calls.items()}, turns)
    seconds, spreads = summarize(times, [(name, "SiLU") for name in arms])
    return seconds["SiLU"], spreads


def main() -> None:
    """Prints a table for each shape, or the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=21)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=8960)
    parser.add_argument("--tokens", type=int, nargs="*", default=[1024, 1])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--keep-freed", action="store_true", help="glibc keeps freed memory: no page faults")
    parser.add_argument("--json", action="store_true", help="print only the ratios, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.keep_freed:
        keep_freed_memory()
    measured = {}
    for tokens in options.tokens:
        shape = [1, tokens, options.width]
        with torch.inference_mode():
            silu, spreads = ratios(shape, getattr(torch, options.dtype), options.turns)
        measured |= {f"{tokens} tokens: {name}": asdict(spread) for name, spread in spreads.items()}
        if options.json:
            continue
        print(f"{shape}, {options.dtype}, {options.threads} threads: SiLU {1e6 * silu:,.1f} µs;", end=" ")
        print("quartiles of multiples of it")
        for name, spread in spreads.items():
            low, high = spread.quartiles
            print(f"  {name.removesuffix(' / SiLU'):20} {low:6.2f} / {spread.median:6.2f} / {high:6.2f}")
    if options.json:
        print(json.dumps(measured))


if __name__ == "__main__":
    main()
