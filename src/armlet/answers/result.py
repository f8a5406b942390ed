"""The result of `generate`: the answers to one prompt without ARM and with it, and the first difference."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from armlet.answers.records import Answer, Parts, first_difference
from armlet.answers.tables import answers_table
from armlet.attachment.config import limited_layers, setting_file, storing_problem
from armlet.presentation.arguments import output_folder
from armlet.presentation.files import write_json
from armlet.presentation.result import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class Answers(Result):
    """The answers to one prompt without ARM and with it."""

    model: str  # folder or hub id; of a loaded model, what it was loaded from
    prompt: str
    armlet: Mapping[str, object]  # what was attached, the content of an armlet.json
    treatment: str  # the same in a few words
    report: Mapping[int, Mapping[str, float]]  # counters of each layer (`Attachment.report`)
    baseline: Answer
    treated: Answer | None  # None if Ctrl-C interrupted the baseline
    baseline_parts: Parts  # `baseline.text`, split at the first difference
    treated_parts: Parts  # the same of `treated`; empty if there is none
    interrupted: bool  # whether Ctrl-C interrupted one of the answers

    @property
    def first_difference(self) -> int | None:
        """The index of the first token that differs; None if none does, or if there is only one answer."""
        return first_difference(self.baseline, self.treated)

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        setting = {"model": self.model, "prompt": self.prompt, "armlet": self.armlet, "report": self.report}
        answers: dict[str, object] = {
            "baseline": asdict(self.baseline),
            "treated": self.treated and asdict(self.treated),
        }
        return deepcopy(setting | answers | {"first_difference": self.first_difference})

    def columns(self) -> dict[str, Parts]:
        """The parts of each answer, by what it is an answer of."""
        return {"baseline": self.baseline_parts, f"treated: {self.treatment}": self.treated_parts}

    def outcome(self) -> str:
        """Where the answers differ, in a few words."""
        index, count = self.first_difference, len((self.treated or self.baseline).tokens)
        text = f"the same {count} tokens" if index is None else f"first difference at token {index + 1}"
        if not self.interrupted:
            return text
        return "incomplete" + (f"; {text}" if self.treated else "")  # Ctrl-C itself was noted when it came

    def tables(self) -> list[Table]:
        """The answers side by side; the first token that differs is marked."""
        marked = "" if self.first_difference is None else ", »marked«"
        return [answers_table(self.columns(), self.outcome() + marked)]

    def sentences(self) -> list[str]:
        """Settings of the policy that had no effect, and in which layers; why there is no armlet.json."""
        unstored = storing_problem(self.armlet)
        return [*limited_layers(self.armlet, self.report), *([unstored] if unstored else [])]

    def figure(self) -> "Figure":
        """The answers side by side; the common beginning is grey."""
        from armlet.answers.figures import draw_answers

        return draw_answers(self.columns(), title=self.prompt, caption=self.outcome())

    def save(self, directory: str | Path) -> list[Path]:
        """Writes armlet.json, which `load_config` reads, generate.json, generate.png and generate.svg.

        There is no armlet.json for a policy whose class is in this Python session alone.

        Raises ArgumentError, and writes nothing, if the directory has an armlet.json with another content.
        """
        from armlet.presentation.style import save

        folder = output_folder("directory", directory)
        setting = {} if storing_problem(self.armlet) else {setting_file(folder, self.armlet): self.armlet}
        contents = {**setting, folder / "generate.json": self.to_dict()}
        files = [write_json(path, content) for path, content in contents.items()]
        return [*save(self.figure(), folder, "generate"), *files]
