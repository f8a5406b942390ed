"""`armlet explain`: the effect of filler tokens on attention and gate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.table import Table
from typer import Option

from armlet.attachment.config import parse_layers
from armlet.commands import options
from armlet.commands.options import POLICY, collect_until_interrupted, finish, folder_option
from armlet.commands.policy_help import policy_option
from armlet.commands.reading import OpenedModel, open_model
from armlet.mechanism.layers import make_setup, measure_layers
from armlet.mechanism.result import Explanation, summarise
from armlet.mechanism.tables import classes_table, explanation_table
from armlet.presentation.files import csv_text, write_json, write_text
from armlet.presentation.terminal import notes, progress
from armlet.prompts.fillers import RANDOM_SENTENCE, SYSTEM, Filler, Position, filler_conditions
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policies import parse_policy
from armlet.redistribution.rows import Policy

COUNT_DIGITS = len("99999")

EXPLAIN_FIGURES = ("attention", "affine", "counts", "layers", "classes")


@dataclass(frozen=True)
class SetupOptions:
    """The prompts and policies that are compared in each layer."""

    filler: Annotated[list[str] | None, Option(help="Text of a filler; / by default. May be repeated.")] = None
    count: Annotated[str, Option(help="Number of filler tokens, or several numbers.")] = "0,10,25,40,55,70"
    position: Annotated[
        Position, Option(help="Fillers' position: around the system prompt, after the question, or in it at random.")
    ] = "between"
    policy: Annotated[
        list[str] | None,
        policy_option(f"Policy whose effect on each class of tokens is measured: {POLICY}. May be repeated."),
    ] = None
    system: Annotated[str, Option(help="The system prompt; a built-in one by default.", show_default=False)] = SYSTEM

    def fillers(self) -> list[Filler]:
        """Each filler at each count, and random sentences with the same numbers of tokens."""
        return filler_conditions(self.filler or ["/"], parse_counts(self.count))

    def policies(self) -> list[Policy]:
        """The distinct policies, in order."""
        return list(dict.fromkeys(parse_policy(text) for text in self.policy or ("outward",)))


def explain(
    model: options.ModelArgument = None,
    *,
    layers: options.LayersOption = "all",
    design: SetupOptions,
    prompts: options.PromptOptions,
    out: Annotated[Path, folder_option("Folder for the figures, explain.json and its tables as .csv.")] = Path(
        "armlet-explain"
    ),
    compute: options.ComputeOptions,
    as_json: options.JsonOption = False,
) -> None:
    """Measure filler tokens' effect on attention, gate and near-zero share, compared with a random sentence."""
    fillers, policies, questions = design.fillers(), design.policies(), prompts.texts(formulas=True)
    selection = parse_layers(layers)
    opened = open_model(model, compute, last=None if isinstance(selection, str) else max(selection))
    setup = make_setup(opened.tokenizer, questions, fillers, policies, design.system, design.position, compute.seed)
    indices = range(opened.options.layer + 1) if isinstance(selection, str) else selection
    with progress("running layers", len(questions) * (opened.options.layer + 1)) as tick:
        findings, interrupted = collect_until_interrupted(measure_layers(opened.layers(), indices, setup, tick))
    with notes.status("summarising ..."):
        explanation = summarise(findings, setup)
    setting = {"source": opened.name, "dtype": compute.dtype, "system": design.system, "position": design.position}
    setting |= {"questions": questions, **setup.to_dict(opened.tokenizer)}
    setting |= {"layers": [layer.layer for layer in findings], "interrupted": interrupted}
    _show_explanation(explanation, setting, opened, out, as_json)


def _show_explanation(
    explanation: Explanation, setting: dict[str, Any], opened: OpenedModel, out: Path, as_json: bool
) -> None:
    """Writes the files and prints the result."""
    # If no token of a question follows the filler, there are no classes to draw.
    names = EXPLAIN_FIGURES if explanation.classes else EXPLAIN_FIGURES[:-1]
    figures = [str(out / f"explain-{name}.{kind}") for name in names for kind in ("png", "svg")]
    result = setting | {"figures": figures, **explanation.to_dict()}
    _save_tables(explanation, result, out)
    with notes.status("drawing ..."):
        _save_figures(explanation, opened.options.heads, out)
    tables = _tables(explanation, f"{opened.name}, layer {setting['layers'][0]}")
    finish(result, as_json, [*tables, *(f"figure: {path}" for path in figures)], interrupted=setting["interrupted"])


def parse_counts(text: str) -> list[int]:
    """Parses numbers of tokens such as "0,10,25"; raises ArgumentError unless one of them is not 0."""
    parts = text.split(",")
    if not all(part.isdecimal() and len(part) <= COUNT_DIGITS for part in parts) or not any(map(int, parts)):
        raise ArgumentError(f"--count: expected numbers up to 99999 such as 0,10,25, one of them not 0, found {text!r}")
    return [int(part) for part in parts]


def _save_tables(explanation: Explanation, result: dict[str, object], out: Path) -> None:
    write_json(out / "explain.json", result)
    for name, records in {"explain": explanation.quantities, "explain-classes": explanation.classes}.items():
        if records:
            write_text(out / f"{name}.csv", csv_text([record.to_dict() for record in records]))


def _save_figures(explanation: Explanation, heads: int, out: Path) -> None:
    from armlet.mechanism.figures import draw_explanation
    from armlet.presentation.style import save

    for name, figure in draw_explanation(explanation, heads).items():
        save(figure, out, f"explain-{name}")


def _tables(explanation: Explanation, title: str) -> list[Table | str]:
    kinds = dict.fromkeys(filler.kind for filler in explanation.setup.fillers if filler.kind != RANDOM_SENTENCE)
    tables = [explanation_table(explanation, kind, title) for kind in kinds or [RANDOM_SENTENCE]]
    no_classes = "no word of a question follows the filler, so there are no classes to compare"
    return [*tables, classes_table(explanation, title) if explanation.classes else no_classes]
