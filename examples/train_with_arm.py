"""Train small Llama-style models from scratch with ARM in every layer and without, up to rates at which they break.

    python examples/train_with_arm.py ../shared/data/wikitext.txt --out training-runs

Writes results.json, training.png and training.svg. The same command goes on where it was stopped.
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
from armlet.presentation.style import save
from armlet.presentation.terminal import BAD_INPUT, notes, progress
from armlet.runs.folder import RunError, open_run_folder
from armlet.runs.machine import machine

RATES = "0.008,0.064,0.256,0.512,1.024,2.048"


def main(
    text: Annotated[Path, typer.Argument(help="To train on, any file; its last tenth is held out.")],
    out: Annotated[Path, typer.Option(help="Where all goes; the same command goes on there.")] = Path("training-runs"),
    seeds: Annotated[int, typer.Option(min=2, help="Runs of each kind.")] = 6,
    rates: Annotated[str, typer.Option(help="Learning rates, ascending.")] = RATES,
    steps: Annotated[int, typer.Option(min=2, help="Optimiser steps of a run.")] = Recipe.steps,
    processes: Annotated[int, typer.Option(min=1, help="Runs at a time, each on one thread.")] = 2,
) -> None:
    """Train with and without `Inward`, and say what differs."""
    wanted = _ascending(rates)
    recipe = Recipe(steps=steps)
    data = _read(text, recipe)
    runs = [Run(p, r, s, arm) for s in range(seeds) for p in PRECISIONS for r in wanted for arm in (False, True)]
    manifest = {"text": hashlib.sha256(text.read_bytes()).hexdigest(), "recipe": asdict(recipe)}
    manifest |= {"rates": wanted, "seeds": seeds, "torch": torch.__version__}
    with open_run_folder(out, manifest, machine()) as journal:
        missing = [run for run in runs if not journal.has(run.key)]
        try:
            with progress("training", len(missing)) as tick:
                for run, found in _trained(missing, recipe, data, processes):
                    journal.close(run.key, [], found)
                    tick()
        except KeyboardInterrupt:
            notes.print(f"interrupted: {out} keeps {len(journal.closed)} of {len(runs)} runs; the same command goes on")
            raise typer.Exit(INTERRUPTED) from None
        outcomes = {run: journal.closed[run.key] for run in runs}
    result = tabulate(outcomes, wanted, seeds, data.bound())
    write_json(out / "results.json", result)
    figures = save(draw(outcomes, result["bound"]), out, "training")
    for table in _tables(result, seeds):
        Console().print(table)
    if not any(sum(row["trained"]) for row in result["rows"]):
        print(f"No run came below {result['bound']:.2f} nats a byte, so nothing is compared: try more --steps")
    print(*(f"figure: {path}" for path in figures), sep="\n")


def _ascending(rates: str) -> list[float]:
    try:
        wanted = [float(each) for each in rates.split(",")]
    except ValueError:
        wanted = []
    if not wanted or wanted != sorted(set(wanted)) or not 0 < wanted[0] <= wanted[-1] < math.inf:
        notes.print(f"--rates: expected such as 0.01,0.1, each above the one before it, found {rates}", markup=False)
        raise typer.Exit(BAD_INPUT)
    return wanted


def _read(path: Path, recipe: Recipe) -> Text:
    try:
        data = Text.read(path)
    except OSError as error:
        notes.print(f"{path}: cannot be read ({error.strerror})", markup=False, soft_wrap=True)
        raise typer.Exit(BAD_INPUT) from None
    if len(data.held_out) <= recipe.tokens + 1:
        size = len(data.train) + len(data.held_out)
        notes.print(f"{path}: {size} bytes are too few; give a text of 10 kB or more", markup=False)
        raise typer.Exit(BAD_INPUT)
    return data


def _trained(runs: Sequence[Run], recipe: Recipe, data: Text, processes: int) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Each run with what came of it, as they end."""
    work = partial(_one, recipe=recipe, data=data)
    with get_context("spawn").Pool(processes, _begin) as pool:  # a fork would lose torch's threads
        yield from pool.imap_unordered(work, runs)


def _begin() -> None:
    """Ctrl-C is the parent's to answer; a model this small gains nothing by a second thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _one(run: Run, recipe: Recipe, data: Text) -> tuple[Run, dict[str, Any]]:
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


def _effect(found: dict[str, Any] | None, between: str = " ") -> str:
    if found is None:
        return ""
    bounds = "" if found["low"] is None else f"{between}[{found['low']:.2g}, {found['high']:.2g}]"
    return f"{found['effect']:.3g}{bounds}"


def _rates(rates: Sequence[float], smallest: float) -> str:
    return " ".join("none" if rate < smallest else f"{rate:g}" for rate in rates)


if __name__ == "__main__":
    try:
        typer.run(main)
    except RunError as error:
        notes.print(str(error), markup=False, soft_wrap=True)
        sys.exit(BAD_INPUT)
