"""Runs the short benchmarks and compares them with the stored results of another run.

    python benchmarks/compare.py models/smollm2-135m-instruct --fail-above 1.2

Only ratios of times that were measured in turns, in one process, are compared: seconds of different machines, or of one
machine on different days, are not comparable. Ratios differ between processors too, so nothing fails without
`--fail-above`. `--save` stores this run in place of the other.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from armlet.cost import bench
from armlet.cost.timing import Spread
from armlet.presentation.files import write_json
from armlet.presentation.tables import titled_table
from armlet.presentation.terminal import print_tables
from armlet.runs.machine import machine

HERE = Path(__file__).parent
STORED = HERE / "results" / "cpu.json"
PACKAGES = ("armlet", "torch", "transformers", "numba", "numpy")

Ratios: TypeAlias = dict[str, Spread]


def programs(model: str, threads: int) -> dict[str, list[str]]:
    """The arguments of each program that prints ratios as JSON."""
    timed = ["--threads", str(threads), "--turns"]
    return {
        "import_time": ["--repeats", "9"],
        "limits": [*timed, "15", "--tokens", "1024"],
        "decode": [model, *timed, "7"],
        "prefill": [model, *timed, "5"],
    }


def run(name: str, arguments: list[str]) -> Ratios:
    """The ratios that a program of this folder prints."""
    command = [sys.executable, str(HERE / f"{name}.py"), *arguments, "--json"]
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    return parsed(json.loads(printed))


def parsed(content: dict[str, dict[str, Any]]) -> Ratios:
    """Ratios from JSON."""
    return {name: Spread(spread["median"], tuple(spread["quartiles"])) for name, spread in content.items()}


def function_ratios(threads: int) -> Ratios:
    """ARM's function as multiples of SiLU and of a copy, by shape."""
    rows = bench(only="function", widths=8960, tokens=[1, 1024], turns=15, threads=threads).function
    return {
        f"{row.tokens} tokens, {row.dtype}: {name}": row.ratios[name]
        for row in rows
        for name in ("arm / silu", "arm / copy")
    }


def measured(model: str, threads: int) -> Iterator[tuple[str, Ratios]]:
    """The ratios of each benchmark, as soon as it is done; says on stderr how long it took."""
    for name in ("function", *programs(model, threads)):
        start = time.perf_counter()
        yield name, function_ratios(threads) if name == "function" else run(name, programs(model, threads)[name])
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)


def is_slower(now: Spread, before: Spread, factor: float) -> bool:
    """Whether the median rose by more than a factor, and even the lower quartile lies above the stored upper one."""
    return now.median > factor * before.median and now.quartiles[0] > before.quartiles[1]


def complaint(name: str, now: Spread, before: Spread | None, factor: float) -> str | None:
    """What is wrong with a ratio, or None."""
    if before is None:
        return f"{name} is not stored"
    return f"{name} rose to {now.median / before.median:.2f}" if is_slower(now, before, factor) else None


def text(spread: Spread) -> str:
    """The median, and the quartiles in brackets."""
    low, high = spread.quartiles
    return f"{spread.median:.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    """Prints a table of the ratios now and before; exits 1 if one rose by more than `--fail-above`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stored", type=Path, default=STORED, help="file of the stored results")
    parser.add_argument("--save", action="store_true", help="write this run to the file of the stored results")
    parser.add_argument("--fail-above", type=float, help="exit 1 if a ratio rose by more than this factor, such as 1.2")
    options = parser.parse_args()
    if not options.stored.exists() and not options.save:
        parser.error(f"{options.stored} is no file: store results with --save first")
    stored = json.loads(options.stored.read_text(encoding="utf-8"))["ratios"] if options.stored.exists() else {}
    table = titled_table("ratios of times: median (quartiles)", ("benchmark", "ratio", "stored", "now", "now / stored"))
    complaints, results = [], {}
    for benchmark, ratios in measured(options.model, options.threads):
        results[benchmark] = {name: asdict(spread) for name, spread in ratios.items()}
        before = parsed(stored.get(benchmark, {}))
        for name, now in ratios.items():
            old = before.get(name)
            change = ("-", text(now), "-") if old is None else (text(old), text(now), f"{now.median / old.median:.2f}")
            table.add_row(benchmark, name, *change)
            if options.fail_above and (wrong := complaint(f"{benchmark}, {name}", now, old, options.fail_above)):
                complaints.append(wrong)
    print_tables(table)
    if options.save:
        versions = {name: version(name) for name in PACKAGES}
        environment = {"machine": machine() | {"threads": options.threads}, "versions": versions}
        write_json(options.stored, environment | {"ratios": results})
    if complaints:
        sys.exit(f"of {options.stored.name}: " + "; ".join(complaints))


if __name__ == "__main__":
    main()
