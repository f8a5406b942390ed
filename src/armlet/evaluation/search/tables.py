"""The table of a study's best trials."""

from rich.table import Table

from armlet.evaluation.search.results import StudyResult, TrialResult
from armlet.presentation.numbers import bounds, percent, points
from armlet.presentation.terminal import titled_table

SHOWN_TRIALS = 5


def trials_table(study: StudyResult) -> Table:
    """The best trials, with their settings and differences."""
    title = f"the best {min(SHOWN_TRIALS, len(study.trials))} of {len(study.trials)} trials on tuning items"
    table = titled_table(title, [*study.searched, "layers", "accuracy", "difference", "95 % interval"])
    for trial in sorted(study.trials, key=lambda trial: -trial.difference)[:SHOWN_TRIALS]:
        table.add_row(*_trial_cells(trial))
    return table


def _trial_cells(trial: TrialResult) -> list[str]:
    values, interval = (f"{v:.4g}" for v in trial.values.values()), " to ".join(bounds(trial.low, trial.high))
    return [*values, trial.layers, percent(trial.accuracy), points(trial.difference), interval]
