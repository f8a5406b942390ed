"""Measures the cost of ARM in decoding: whole generations with and without ARM, and single calls inside the model.

    python benchmarks/decode.py models/smollm2-135m-instruct --turns 11

A call is measured inside the model, where every row and most of the code come from memory. The second table measures
a single row of any width after other work, a product that reads 256 MB.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict

import torch

from armlet import ARM, Outward
from armlet.checkpoints.pretrained import load
from armlet.cost.measure import NEW_TOKENS, PLACEMENTS, gate, time_model

OTHER_WORK = (8192, 8192)
"""Shape of the float32 matrix that is read between two calls; it is larger than any cache."""

CALLS = 200


def quartiles(seconds: list[float]) -> str:
    """Formats quartiles in microseconds."""
    return " / ".join(f"{1e6 * quartile:6.1f}" for quartile in statistics.quantiles(seconds, n=4, method="inclusive"))


def time_after_other_work(width: int) -> list[float]:
    """Times single calls for a row of this width, in seconds."""
    arm, row, position = ARM(Outward(), width=width), gate(1, width, torch.float32)[None], torch.zeros(1, 1).long()
    matrix, vector, seconds = torch.randn(OTHER_WORK), torch.randn(OTHER_WORK[1]), []
    for _ in range(CALLS + 3):
        torch.mv(matrix, vector)
        start = time.perf_counter()
        arm(row, position)
        seconds.append(time.perf_counter() - start)
    return seconds[3:]


def main() -> None:
    """Prints both tables, or the ratios of the first as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--widths", type=int, nargs="*", default=[1536, 8960, 18944])
    parser.add_argument("--json", action="store_true", help="print only the ratios, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, _ = load(options.model, dtype="float32")
    generated = next(time_model(model, Outward(), turns=options.turns))
    if options.json:
        print(json.dumps({name: asdict(ratio) for name, ratio in generated.ratios.items()}))
        return
    print(f"{NEW_TOKENS} new tokens, {options.turns} turns: quartiles")
    for label in PLACEMENTS:
        ratio, call = generated.ratios[f"{label} / without"], (generated.calls or {})[label]
        low, high = ratio.quartiles
        fast, slow = (1e6 * seconds for seconds in call.quartiles)
        print(f"  {label:10} {low:.3f} / {ratio.median:.3f} / {high:.3f} of the time without;", end=" ")
        print(f"a call {fast:.0f} / {1e6 * call.median:.0f} / {slow:.0f} µs")
    print(
        f"a row after a product that reads {OTHER_WORK[0] * OTHER_WORK[1] // 2**18} MB, {CALLS} calls: quartiles in µs"
    )
    with torch.inference_mode():
        for width in options.widths:
            print(f"  {width:6,} wide {quartiles(time_after_other_work(width))}")


if __name__ == "__main__":
    main()
