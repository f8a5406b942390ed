"""Trains small Llama-style models from scratch with ARM in every layer and without, up to rates at which they break.

    python examples/train_with_arm.py ../shared/data/wikitext.txt --out training-runs

Writes results.json, training.png and training.svg. The same command resumes an interrupted study.
"""

import hashlib
import math
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from training_figure import draw
from training_results import tabulate
from training_run import PRECISIONS, Recipe, Run, Text, train

from armlet.presentation.files import write_json
from armlet.presentation.interruption import INTERRUPTED
from armlet.presentation.progress import progress
from armlet.presentation.style import save
from armlet.presentation.terminal import BAD_INPUT, notes
from armlet.runs.folder import RunError, open_run_folder
from armlet.runs.machine import machine

RATES = "0.008,0.064,0.256,0.512,1.024,2.048"


def main(
    text: Annotated[Path, typer.Argument(help="Any file to train on; its last tenth is held out.")],
    out: Annotated[Path, typer.Option(help="Folder in which the same command resumes.")] = Path("training-runs"),
    seeds: Annotated[int, typer.Option(min=2, help="Number of runs of each kind.")] = 6,
    rates: Annotated[str, typer.Option(help="Learning rates, ascending.")] = RATES,
    steps: Annotated[int, typer.Option(min=2, help="Number of optimiser steps of a run.")] = Recipe.steps,
    processes: Annotated[int, typer.Option(min=1, help="Number of concurrent runs, each on one thread.")] = 2,
) -> None:
    """Train with and without `Inward`, and show the differences."""
    rate_list = _ascending(rates)
    recipe = Recipe(steps=steps)
    data = _read(text, recipe)
    runs = [Run(p, r, s, arm) for s in range(seeds) for p in PRECISIONS for r in rate_list for arm in (False, True)]
    manifest = {"text": hashlib.sha256(text.read_bytes()).hexdigest(), "recipe": asdict(recipe)}
    manifest |= {"rates": rate_list, "seeds": seeds, "torch": torch.__version__}
    with open_run_folder(out, manifest, machine()) as journal:
        missing = [run for run in runs if not journal.has(run.key)]
        try:
            with progress("training", len(missing)) as tick:
                for run, outcome in _trained(missing, recipe, data, processes):
                    journal.close(run.key, [], outcome)
                    tick()
        except KeyboardInterrupt:
            notes.print(f"interrupted: {out} has {len(journal.closed)} of {len(runs)} runs; the same command resumes")
            raise typer.Exit(INTERRUPTED) from None
        outcomes = {run: journal.closed[run.key] for run in runs}
    result = tabulate(outcomes, rate_list, seeds, data.bound())
    write_json(out / "results.json", result)
    figures = save(draw(outcomes, result["bound"]), out, "training")
    for table in _tables(result, seeds):
        Console().print(table)
    if not any(sum(row["trained"]) for row in result["rows"]):
        print(f"No run came below {result['bound']:.2f} nats per byte, so nothing is compared: try more --steps")
    print(*(f"figure: {path}" for path in figures), sep="\n")


def _ascending(rates: str) -> list[float]:
    try:
        numbers = [float(number) for number in rates.split(",")]
    except ValueError:
        numbers = []
    if not numbers or numbers != sorted(set(numbers)) or not 0 < numbers[0] <= numbers[-1] < math.inf:
        notes.print(f"--rates: expected ascending numbers such as 0.01,0.1, found {rates}", markup=False)
        raise typer.Exit(BAD_INPUT)
    return numbers


def _read(path: Path, recipe: Recipe) -> Text:
    try:
        data = Text.read(path)
    except OSError as error:
        notes.print(f"{path}: cannot be read ({error.strerror})", markup=False, soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from None
    if len(data.held_out) <= recipe.tokens + 1:
        size = len(data.train) + len(data.held_out)
        notes.print(f"{path}: expected a text of 10 kB or more, found {size} bytes", markup=False)
        raise typer.Exit(BAD_INPUT)
    return data


def _trained(runs: Sequence[Run], recipe: Recipe, data: Text, processes: int) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Yields each run with its outcome, as runs end."""
    work = partial(_train_run, recipe=recipe, data=data)
    with get_context("spawn").Pool(processes, _begin) as pool:  # a fork would lose torch's threads
        yield from pool.imap_unordered(work, runs)


def _begin() -> None:
    """Leaves Ctrl-C to the parent; a model this small gains nothing from a second thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _train_run(run: Run, recipe: Recipe, data: Text) -> tuple[Run, dict[str, Any]]:
    return run, train(run, recipe, data)


def _tables(result: dict[str, Any], seeds: int) -> Iterator[Table]:
    names = {
        "loss": "loss",
        "spikes": "spikes",
        "gradient 0.99": "gradient\nq99 ×",
        "gate max / median": "gate\nreach ×",
        "down max / median": "down\nreach ×",
    }
    for precision in PRECISIONS:
        table = _table(f"{precision}: with Inward against without, over {seeds} seeds [95 %]")
        for name in ("rate", "trained", *names.values()):
            table.add_column(name, justify="right", no_wrap=True)
        for row in result["rows"]:
            if row["precision"] == precision:
                trained = "{} → {}".format(*row["trained"])
                table.add_row(f"{row['rate']:g}", trained, *(_effect(row[name], "\n") for name in names))
        yield table
    edge = _table("Largest rate that trains, by seed, and the difference in doublings")
    for name in ("precision", "without", "with", "doublings"):
        edge.add_column(name)
    for row in result["edges"]:
        sides = (_rates(row[side], result["rows"][0]["rate"]) for side in ("without", "with"))
        edge.add_row(row["precision"], *sides, _effect(row["doublings"]))
    yield edge


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))


def _effect(difference: dict[str, Any] | None, separator: str = " ") -> str:
    if difference is None:
        return ""
    low, high = difference["low"], difference["high"]
    bounds = "" if low is None else f"{separator}[{low:.2g}, {high:.2g}]"
    return f"{difference['effect']:.3g}{bounds}"


def _rates(rates: Sequence[float], smallest: float) -> str:
    return " ".join("none" if rate < smallest else f"{rate:g}" for rate in rates)


if __name__ == "__main__":
    try:
        typer.run(main)
    except RunError as error:
        notes.print(str(error), markup=False, soft_wrap=True)
        sys.exit(BAD_INPUT)
