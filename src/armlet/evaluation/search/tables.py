"""The table of a search's best trials."""

from collections.abc import Sequence

from rich.table import Table

from armlet.evaluation.search.trials import TrialResult
from armlet.presentation.numbers import bounds, percent, points, with_count
from armlet.presentation.tables import titled_table

SHOWN_TRIALS = 5


def trials_table(trials: Sequence[TrialResult], searched: Sequence[str]) -> Table:
    """The best trials, with their settings and differences."""
    shown, total = min(SHOWN_TRIALS, len(trials)), with_count(len(trials), "trial")
    headings = (*searched, "layers", "accuracy", "difference", "95 % interval")
    table = titled_table(f"the best {shown} of {total} on tuning items", headings)
    table.columns[0].justify = "right"
    for trial in sorted(trials, key=lambda trial: -trial.difference)[:SHOWN_TRIALS]:
        table.add_row(*_trial_cells(trial))
    return table


def _trial_cells(trial: TrialResult) -> list[str]:
    values, interval = (f"{v:.4g}" for v in trial.values.values()), " to ".join(bounds(trial.low, trial.high))
    return [*values, trial.layers, percent(trial.accuracy), points(trial.difference), interval]
