"""Options of `evaluate` and `tune`, in groups that the functions and the commands share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Option

from armlet.evaluation.conditions.conditions import AnyTreatment, Condition, Filling, conditions
from armlet.evaluation.tasks.problems import Task
from armlet.presentation.arguments import several, text_list
from armlet.presentation.options import OptionGroup
from armlet.prompts.fillers import POSITION_HELP, Filler, Position
from armlet.prompts.generation import COLDEST_SAMPLED

SMALLEST_MARGIN = 0.01
"""The smallest margin, in percentage points, and the distance of the largest one from 100."""


@dataclass(frozen=True)
class FillerOptions(OptionGroup):
    """Fillers to insert into the prompts of filler conditions."""

    filler: Annotated[list[str] | None, Option(help="Adds a filler condition with this text. May be repeated.")] = None
    count: Annotated[int, Option(min=1, help="Number of tokens of each filler.")] = 55
    position: Annotated[Position, Option(help=POSITION_HELP)] = "between"

    def fillings(self) -> list[Filling]:
        """One filling for each distinct filler; raises ArgumentError for options that would have no effect."""
        if not self.filler:
            self.refuse_changed("applies to a filler, and there is none", "count", "position")
        return [Filling(Filler(text, self.count), self.position) for text in dict.fromkeys(self.filler or ())]


def make_fillings(
    filler: str | Filling | Sequence[str | Filling] | None, count: int, position: Position
) -> list[Filling]:
    """The fillings among the arguments, and one for each text, with this count and position."""
    values = [] if filler is None else several(filler)
    ready = [value for value in values if isinstance(value, Filling)]
    texts = text_list("filler", [value for value in values if not isinstance(value, Filling)])
    return [*ready, *FillerOptions(texts, count, position).fillings()]


MarginOption = Annotated[
    float | None,
    Option(
        min=SMALLEST_MARGIN,
        max=100 - SMALLEST_MARGIN,
        help="Tests also whether differences are smaller than this, in percentage points, such as 2.",
    ),
]


@dataclass(frozen=True)
class ConditionOptions(OptionGroup):
    """The other compared conditions, and how answers are sampled."""

    samples: Annotated[int, Option(min=1, help="Number of answers to each item under every condition.")] = 1
    temperature: Annotated[float, Option(min=0, help="Sampling temperature; 0 for greedy.")] = 0.0
    top_p: Annotated[float, Option(min=COLDEST_SAMPLED, max=1, help="Probability mass that sampling keeps.")] = 1.0
    best_of: Annotated[int, Option(min=0, help="Adds a vote over this number of sampled answers, at least 2.")] = 0
    combine: Annotated[
        bool, Option("--combine", help="Adds each policy with each filler, and all of them with --best-of.")
    ] = False
    placebos: Annotated[
        bool, Option(help="Adds identity, draw-only, matched, zeroed, the baseline again (A/A), and a warmer baseline.")
    ] = True
    margin: MarginOption = None  # it judges the answers, and has no effect on them

    def conditions(self, treatments: list[AnyTreatment], fillings: list[Filling]) -> list[Condition]:
        """All compared conditions."""
        temperature = 0.0 if self.temperature < COLDEST_SAMPLED else self.temperature
        chosen = {"best_of": self.best_of, "combine": self.combine, "placebos": self.placebos}
        return conditions(treatments, fillings, samples=self.samples, temperature=temperature, **chosen)


def _with_new_lines(template: str | None) -> str | None:
    r"""A template as it is typed in a shell, in which \n is a new line."""
    return template and template.replace("\\n", "\n")


@dataclass(frozen=True)
class AnswerOptions(OptionGroup):
    """How a model answers."""

    max_new_tokens: Annotated[
        int | None, Option(min=1, help="Maximum length of an answer in tokens; by default it depends on the task.")
    ] = None
    system: Annotated[str | None, Option(help="The system prompt; by default it depends on the task.")] = None
    allow_code: Annotated[
        bool, Option("--allow-code-execution", help="Run model-written programs, in a sandbox (humaneval).")
    ] = False
    batch: Annotated[int | None, Option(min=1, help="Batch size in items; it may slightly change results.")] = None
    shots: Annotated[int, Option(min=0, help="Number of few-shot examples from --examples before each item.")] = 0
    examples: Annotated[
        Path | None, Option(help="Local JSON Lines with the examples, with rows as of a task; with --shots.")
    ] = None
    template: Annotated[
        str | None,
        Option(
            callback=_with_new_lines,
            help="The text of a question, with {question} once, as '{question}\\nAnswer with a number.'; in multiple "
            "choice 'Question: {question}\\nAnswer:' by default.",
        ),
    ] = None


@dataclass(frozen=True)
class GradedAnswerOptions(AnswerOptions):
    """How a model answers, and how answers are graded."""

    grader: Annotated[str, Option(help="math-verify, or released: the paper's grader, for comparison.")] = "math-verify"
    letters: Annotated[
        bool, Option("--letters", help="Multiple choice: list the choices in the question, and score their letters.")
    ] = False


def refuse_sampling(tasks: Sequence[Task], answers: AnswerOptions, comparison: ConditionOptions | None = None) -> None:
    """Refuses options of generation if every task is multiple choice, for which nothing is generated."""
    if all(task.kind == "choice" for task in tasks):
        because = "has no effect on multiple choice"
        answers.refuse_changed(because, "max_new_tokens", "system", "grader")
        if comparison:
            comparison.refuse_changed(because, "samples", "temperature", "top_p", "best_of")
