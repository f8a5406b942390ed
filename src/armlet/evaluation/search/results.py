"""The result of `tune`: a search with its trials, as stored in search.json."""

import json
from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from rich.table import Table

from armlet.attachment.config import setting_file, storing_problem
from armlet.attachment.origin import ORIGIN_KEY
from armlet.checkpoints.identity import LOADED
from armlet.evaluation.search.tables import trials_table
from armlet.evaluation.search.trials import SearchMap, TrialResult, best
from armlet.evaluation.settings import Facts
from armlet.presentation.arguments import output_folder
from armlet.presentation.files import csv_text, json_text, write_json, write_text
from armlet.presentation.result import Result
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEARCH_FILE = "search.json"


@dataclass(frozen=True)
class Budget:
    """The cost of a search: trials, tuning items, and the total number of answers, including the baseline's."""

    trials: int
    items: int
    answers: int


@dataclass(frozen=True)
class SearchTask:
    """The tuning items of a task."""

    name: str
    items: int
    source: Facts


@dataclass(frozen=True)
class SearchArguments:
    """The options of `armlet tune` that `armlet confirm` also needs, by their names."""

    model: str | None
    task: list[str] | None
    data: list[str]
    items: int | None
    difficulty: int | None
    max_new_tokens: int | None
    system: str | None
    allow_code: bool
    batch: int | None
    seed: int
    dtype: str
    device: str | None
    shots: int = 0
    examples: str | None = None
    template: str | None = None


@dataclass(frozen=True, repr=False, eq=False)
class Search(Result):
    """A search for the best setting, measured on the tuning items only."""

    folder: Path  # the search's folder, for `confirm`
    arguments: SearchArguments  # the options of the command
    engine: Facts  # the model that answered
    space: Record  # the searched settings
    tasks: Sequence[SearchTask]
    budget: Budget
    armlet: Facts  # the best trial's setting, as the content of an armlet.json
    interrupted: bool  # Ctrl-C interrupted the search
    trials: Sequence[TrialResult]  # in the order in which they were run
    searched: Sequence[str]  # the names of the searched settings
    mapped: Sequence[int]  # the numbers of the trials on the map
    origin: Facts | None = None  # the tuning items, for armlet.json; None in the files of earlier versions
    prompts: Facts | None = None  # few-shot examples and template; None for the default

    @classmethod
    def from_dict(cls, folder: Path, content: Record) -> "Search":
        """Reads the content of a folder's search.json; raises LookupError or TypeError for any other content."""
        if not content["trials"]:
            raise LookupError("it has no trials")
        return cls(
            folder=folder,
            arguments=SearchArguments(**content["arguments"]),
            engine=content["engine"],
            space=content["search"],
            tasks=[SearchTask(**task) for task in content["tasks"]],
            budget=Budget(**content["budget"]),
            armlet=content["best"]["armlet"],
            interrupted=content["interrupted"],
            trials=[TrialResult.from_dict(row) for row in content["trials"]],
            searched=content["map"]["names"],
            mapped=content["map"]["trials"],
            origin=content.get("origin"),
            prompts=content.get("prompts"),
        )

    def to_dict(self) -> Facts:
        """The content of search.json."""
        content = {
            "arguments": asdict(self.arguments),
            "engine": self.engine,
            "search": self.space,
            **self.summary(),
            "interrupted": self.interrupted,
            "trials": [trial.to_dict() for trial in self.trials],
            "map": {"names": self.searched, "trials": self.mapped},
            **({"origin": self.origin} if self.origin else {}),
            **({"prompts": self.prompts} if self.prompts else {}),
        }
        return deepcopy(content)

    def summary(self) -> Facts:
        """The "search" in a confirmation's report.json: the best trial, the cost and the tuning items."""
        return {
            "best": {**best(self.trials).to_dict(), "armlet": self.armlet},
            "budget": asdict(self.budget),
            "tasks": [asdict(task) for task in self.tasks],
        }

    def map(self) -> SearchMap | None:
        """The sensitivity map; None if only one setting was searched."""
        if len(self.searched) != 2:
            return None
        tasks = ", ".join(task.name for task in self.tasks)
        title = f"{self.space['treatment']['policy']} on the tuning items of {tasks}"
        return SearchMap([self.trials[number] for number in self.mapped], *self.searched, title=title)

    def tables(self) -> list[Table]:
        """The best trials."""
        return [trials_table(self.trials, self.searched)]

    def sentences(self) -> list[str]:
        """What to do next."""
        if self.interrupted:
            return [f"the search was interrupted: the same call resumes it in {self.folder}; confirm it only then"]
        tried = {trial.layers for trial in self.trials}
        untried = [str(candidate) for candidate in self.space["layers"] if str(candidate) not in tried]
        missed = [f"layers never tried, because there were few trials: {' and '.join(untried)}"] if untried else []
        tied = sum(trial.difference == best(self.trials).difference for trial in self.trials)
        fact = "the best setting looks better than it is on the items that chose it"
        if tied > 1:
            trials = f"all {tied} trials tie" if tied == len(self.trials) else f"{tied} trials tie for the best"
            fact = f"{trials}, so these items do not choose between them, and the first is stored"
        unstored = storing_problem(self.armlet)
        return [*missed, *([unstored] if unstored else []), f"{fact}; on the other items: {self._confirmation()}"]

    @property
    def has_items_as_objects(self) -> bool:
        """Whether items were passed as objects, which a confirmation needs again."""
        return len([*(self.arguments.task or ()), *self.arguments.data]) < len(self.tasks)

    def _confirmation(self) -> str:
        """How this search is confirmed: by the command, or in Python if it used objects."""
        models = ["model", "tokenizer"] if str(self.engine.get("sha256")).startswith(LOADED) else []
        objects = [*models, *(["task=..."] if self.has_items_as_objects else [])]
        if objects or storing_problem(self.armlet):
            return f"confirm({', '.join(['search', *objects])}) in Python"
        in_file = f" --policy {quote(str(self.armlet['policy']))}" if "sha256" in self.armlet else ""
        return f"armlet confirm {self.folder}{in_file}"

    def figure(self) -> "Figure":
        """The differences on the map's grid; along the values if one setting was searched."""
        from armlet.evaluation.search.figures import draw_curve, draw_map

        searched = self.map()
        title = f"{self.space['treatment']['policy']} on the tuning items"
        return draw_map(searched) if searched else draw_curve(self.trials, self.searched[0], title=title)

    def save(self, directory: str | Path) -> list[Path]:
        """Writes search.json, trials.csv, the best setting as armlet.json, and sensitivity.png and sensitivity.svg.

        Raises ArgumentError, and writes nothing, if the directory has another search's search.json, or an armlet.json
        that is not a setting of this search's trials; an interrupted search may have saved another one than the best.
        There is no armlet.json for a policy whose class is in this Python session alone.
        """
        from armlet.presentation.style import save

        folder = output_folder("directory", directory)
        if not self._is_stored_or_absent(folder / SEARCH_FILE):
            raise ArgumentError(f"{folder}: contains another search; use another directory")
        setting = [] if storing_problem(self.armlet) else [setting_file(folder, *self._settings())]
        return [
            write_json(folder / SEARCH_FILE, self.to_dict()),
            write_text(folder / "trials.csv", csv_text([trial.to_dict() for trial in self.trials])),
            *(write_json(path, {**self.armlet, **self._origin()}) for path in setting),
            *save(self.figure(), folder, "sensitivity"),
        ]

    def _is_stored_or_absent(self, path: Path) -> bool:
        """Whether a search.json is of this search, perhaps before it was interrupted, or does not exist."""
        if not path.exists():
            return True
        content = json.loads(json_text(self.to_dict()))
        with suppress(OSError, ValueError, LookupError, TypeError):
            stored = json.loads(path.read_text(encoding="utf-8"))
            return all(stored[name] == content[name] for name in ("arguments", "engine", "search", "tasks"))
        return False

    def is_same_as(self, other: "Search") -> bool:
        """Whether both have the same content."""
        return json_text(self.to_dict()) == json_text(other.to_dict())

    def _settings(self) -> list[Facts]:
        """The setting of each trial as the content of an armlet.json, also without its origin, as earlier."""
        layers = {str(candidate): candidate for candidate in self.space["layers"]}
        settings = [{**self.armlet, **trial.values, "layers": layers[trial.layers]} for trial in self.trials]
        return [*settings, *({**setting, **self._origin()} for setting in settings)]

    def _origin(self) -> Facts:
        return {ORIGIN_KEY: self.origin} if self.origin else {}
