"""Measures `import armlet` after `import torch`: the median of fresh interpreters, in milliseconds."""

import statistics
import subprocess
import sys

PROGRAM = "import time, torch; start = time.perf_counter(); import armlet; print(time.perf_counter() - start)"


def main(repeats: int = 9) -> None:
    """Prints the median, the smallest and the largest."""
    runs = [subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True) for _ in range(repeats)]
    times = sorted(1000 * float(run.stdout) for run in runs)
    spread = f"{times[0]:.0f} to {times[-1]:.0f}, {repeats} runs"
    print(f"import armlet after torch: {statistics.median(times):.0f} ms ({spread})")


if __name__ == "__main__":
    main()
