"""Splits a prefill's time with ARM in all layers: ARM's modules, the kernel inside them, and a copy of as many bytes.

    python benchmarks/prefill.py models/smollm2-135m-instruct --turns 11

The modules' time is part of the prefill with ARM. The rest of the difference is noise, and other operations that find
the caches in another state.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict

import torch

from armlet import Outward, attach
from armlet.attachment.module import ARM
from armlet.checkpoints.pretrained import load
from armlet.cost.measure import PREFILL
from armlet.cost.timing import Spread, keep_freed_memory
from armlet.redistribution.backends.cpu import threads


class Stopwatch:
    """Replaces a function by one that adds up its seconds."""

    def __init__(self, owner: object, name: str) -> None:
        self.owner, self.name, self.function, self.seconds = owner, name, getattr(owner, name), 0.0
        stopwatch = self

        def timed(*args: object, **kwargs: object) -> object:
            start = time.perf_counter()
            result = stopwatch.function(*args, **kwargs)
            stopwatch.seconds += time.perf_counter() - start
            return result

        setattr(owner, name, timed)

    def read(self) -> float:
        """Returns the seconds since the last read."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def seconds(call: Callable[[], object]) -> float:
    """Times one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Prints medians in milliseconds and their share of the prefill without ARM, or the ratios as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print only the ratios, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    model, _ = load(options.model, dtype="float32")
    ids = torch.randint(int(model.config.vocab_size), (1, PREFILL), generator=torch.Generator().manual_seed(0))
    kernel, module = Stopwatch(threads, "run_job"), Stopwatch(ARM, "forward")
    layers, width = model.config.num_hidden_layers, model.config.intermediate_size
    gate = torch.randn(PREFILL, width)
    copies = [torch.empty_like(gate) for _ in range(layers)]

    def prefill() -> object:
        return model(input_ids=ids, logits_to_keep=1)

    def copy() -> None:
        for target in copies:
            target.copy_(gate)

    rows: dict[str, list[float]] = {"without": [], "with": [], "ARM's modules": [], "the kernel": [], "a copy": []}
    with torch.inference_mode():
        for turn in range(options.turns + 2):
            times = [seconds(prefill)]
            with attach(model, Outward(), layers="all"):
                times += [seconds(prefill), module.read(), kernel.read()]
            times.append(seconds(copy))
            for name, value in zip(rows, times, strict=True):
                rows[name] += [value] if turn > 1 else []
    pairs = {"with / without": ("with", "without"), "the kernel / a copy": ("the kernel", "a copy")}
    ratios = {
        name: Spread.of([first / second for first, second in zip(rows[upper], rows[lower], strict=True)])
        for name, (upper, lower) in pairs.items()
    }
    if options.json:
        print(json.dumps({name: asdict(ratio) for name, ratio in ratios.items()}))
        return
    middle = {name: statistics.median(values) for name, values in rows.items()}
    for name, value in middle.items():
        print(f"{name:14} {1e3 * value:8.1f} ms {100 * value / middle['without']:6.1f} %")
    values = PREFILL * width * layers
    print(f"with / without: {ratios['with / without'].median:.3f};", end=" ")
    print(f"the kernel: {1e9 * middle['the kernel'] / values:.2f} ns a value")


if __name__ == "__main__":
    main()
