"""Measures `import armlet` after `import torch`, in fresh interpreters.

    python benchmarks/import_time.py --repeats 9

The time is also a multiple of that of `import torch` in the same interpreter.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict

from armlet.cost.timing import Spread

PROGRAM = """
import time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import armlet
print(middle - start, time.perf_counter() - middle)
"""


def import_seconds() -> tuple[float, float]:
    """The seconds of `import torch`, and of `import armlet` after it, in an interpreter of their own."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    torch, armlet = map(float, run.stdout.split())
    return torch, armlet


def main() -> None:
    """Prints the median and its quartiles, or the ratio as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print only the ratio, as JSON")
    options = parser.parse_args()
    import_seconds()  # reads the files from the disk
    runs = [import_seconds() for _ in range(options.repeats)]
    ratio, seconds = Spread.of([armlet / torch for torch, armlet in runs]), Spread.of([armlet for _, armlet in runs])
    if options.json:
        print(json.dumps({"import armlet / import torch": asdict(ratio)}))
        return
    low, high = (1000 * quartile for quartile in seconds.quartiles)
    print(f"import armlet after torch: {low:.0f} / {1000 * seconds.median:.0f} / {high:.0f} ms;", end=" ")
    print(f"{ratio.median:.4f} of torch's time")


if __name__ == "__main__":
    main()
