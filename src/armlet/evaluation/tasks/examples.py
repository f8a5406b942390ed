"""The form of a run's prompts: few-shot examples and the template of questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from armlet.evaluation.tasks.problems import Problem, Task, with_letters
from armlet.evaluation.tasks.sources import GIVE_BOTH, read_task
from armlet.presentation.arguments import required_path
from armlet.presentation.numbers import with_count
from armlet.prompts.shots import QUESTION, check_template
from armlet.redistribution.errors import ArgumentError


@dataclass(frozen=True)
class PromptForm:
    """How every item of a run is asked; by default without examples, and by the template of its kind."""

    template: str | None = None  # contains "{question}" once
    examples: tuple[Problem, ...] = ()  # shown before each item, with their solutions
    source: Mapping[str, str | int | None] = field(default_factory=dict, compare=False)  # of the examples

    def facts(self) -> Mapping[str, object]:
        """What decides the prompts, for the manifest; empty for the default."""
        template = {} if self.template is None else {"template": self.template}
        return template | ({"shots": len(self.examples), "examples": dict(self.source)} if self.examples else {})


DEFAULT_FORM = PromptForm()


def make_form(
    tasks: Sequence[Task], shots: int, examples: str | Path | None, template: str | None, *, letters: bool = False
) -> PromptForm:
    """The form of prompts with the first `shots` rows of a file by the sha256 of their ids, as items are chosen.

    `letters`: the tasks are those of `with_letters`, and so are the examples.

    Raises ArgumentError if the template has not one "{question}", an option lacks the other, the file has too few rows
    or another kind of problem than a task, a program has no solution, or an example is among the items.
    """
    check_template(template)
    if template is not None:
        for task in tasks:
            if any(not problem.question for problem in task.problems):
                raise ArgumentError(f"template: items of {task.name} have no question to put in place of {QUESTION}")
    if not shots and examples is None:
        return PromptForm(template)
    if not shots or examples is None:
        present, missing = ("examples", "shots") if examples else ("shots", "examples")
        raise ArgumentError(f"{present}: needs {missing} (--{missing}), too; or leave it out")
    path = required_path("examples", examples)
    try:
        source = read_task(path, shots)
    except ArgumentError as error:
        problem = str(error).removeprefix("data: ").removesuffix(GIVE_BOTH)  # there is one file of examples
        raise ArgumentError(f"examples: {problem}") from error
    source = with_letters(source) if letters else source
    _check_examples(path, source, shots, tasks)
    return PromptForm(template, source.problems, source.source)


def _check_examples(path: Path, source: Task, shots: int, tasks: Sequence[Task]) -> None:
    rows = len(source.problems)
    if rows < shots:
        raise ArgumentError(f"examples: {path} has {with_count(rows, 'row')}, fewer than shots, {shots}")
    if unsolved := [problem.label for problem in source.problems if not problem.solution]:
        raise ArgumentError(f"examples: {path}: {unsolved[0]} has no canonical_solution to show")
    for task in tasks:
        if source.kind != task.kind and (source.kind, task.kind) != ("maths", "integer"):
            raise ArgumentError(f"examples: {path} has problems of the kind {source.kind}, {task.name} of {task.kind}")
        items = {_asked(problem): problem.label for problem in task.problems}
        if shared := [problem for problem in source.problems if _asked(problem) in items]:
            same = f"{path} {shared[0].label} asks the same as {task.name} {items[_asked(shared[0])]}"
            raise ArgumentError(f"examples: {same}, whose answer it would show; use other examples")


def _asked(problem: Problem) -> tuple[str, str]:
    return problem.context.strip(), problem.question.strip()
