"""`armlet explain`: what filler tokens do to attention and gate."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from armlet.attachment.config import parse_layers
from armlet.commands import arguments
from armlet.commands.reading import Opened, open_model
from armlet.presentation.files import csv_text, write_json, write_text
from armlet.presentation.terminal import INTERRUPTED, notes, progress, say_interrupted
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.spelling import parse_policy

if TYPE_CHECKING:
    from armlet.mechanism.layers import LayerFindings, Setup
    from armlet.mechanism.result import Explanation

COUNT_DIGITS = len("99999")

EXPLAIN_FIGURES = ("attention", "affine", "counts", "layers", "classes")


def explain(
    model: arguments.ModelArgument = None,
    layers: arguments.LayersOption = "all",
    filler: Annotated[
        list[str] | None, typer.Option(help="Repeated to the count; / by default. May be given again.")
    ] = None,
    count: Annotated[str, typer.Option(help="How many filler tokens, one number or several.")] = "0,10,25,40,55,70",
    position: Annotated[
        arguments.PlaceName, typer.Option(help="Around the system prompt, after the question, or in it at random.")
    ] = arguments.PlaceName.between,
    policy: Annotated[
        list[str] | None,
        typer.Option(help=f"What ARM does to each class of tokens: {arguments.POLICY}. May be repeated."),
    ] = None,
    prompt: arguments.PromptOption = None,
    prompts: arguments.PromptsOption = None,
    system: Annotated[str | None, typer.Option(help="The system prompt; a built-in one by default.")] = None,
    out: Annotated[Path, typer.Option(help="Where the figures, explain.json and its tables as .csv go.")] = Path(
        "armlet-explain"
    ),
    seed: arguments.SeedOption = 0,
    dtype: arguments.DtypeOption = "auto",
    device: arguments.DeviceOption = None,
    as_json: arguments.JsonOption = False,
) -> None:
    """Show what filler tokens do inside the layers: attention, gate and near-zero share, against a random sentence."""
    from armlet.mechanism.layers import make_setup
    from armlet.mechanism.result import summarise
    from armlet.prompts.fillers import SYSTEM, filler_conditions

    system = SYSTEM if system is None else system
    fillers = filler_conditions(filler or ["/"], parse_counts(count))
    policies = list(dict.fromkeys(parse_policy(text) for text in policy or ("outward",)))
    wanted = parse_layers(layers)
    questions = arguments.requested_prompts(prompt, prompts, formulas=True)
    arguments.check_folder(out)
    opened = open_model(model, dtype, device, last=None if isinstance(wanted, str) else max(wanted))
    place = {"system": system, "position": position}
    setup = make_setup(opened.tokenizer, questions, fillers, policies, system, position.value, seed)
    indices = range(opened.options.layer + 1) if isinstance(wanted, str) else wanted
    findings, interrupted = _run_layers(opened, indices, setup)
    with notes.status("summing up ..."):
        explanation = summarise(findings, setup)
    # Without a token of a question after the filler there are no classes to draw.
    drawn = EXPLAIN_FIGURES if explanation.classes else EXPLAIN_FIGURES[:-1]
    figures = [str(out / f"explain-{name}.{kind}") for name in drawn for kind in ("png", "svg")]
    run = {"source": opened.name, "dtype": dtype, **place, "questions": questions, **setup.to_dict(opened.tokenizer)}
    run |= {"layers": [layer.layer for layer in findings], "interrupted": interrupted, "figures": figures}
    result = run | explanation.to_dict()
    _save_tables(explanation, result, out)
    with notes.status("drawing ..."):
        _save_figures(explanation, opened.options.heads, out)
    title = f"{opened.name}, layer {findings[0].layer}"
    arguments.finish(result, as_json, lambda: _print_tables(explanation, title, figures), interrupted=interrupted)


def parse_counts(text: str) -> list[int]:
    """Counts of tokens such as "0,10,25"; at least one is not 0.

    Raises:
        ArgumentError: anything else.
    """
    parts = text.split(",")
    if not all(part.isdecimal() and len(part) <= COUNT_DIGITS for part in parts) or not any(map(int, parts)):
        raise ArgumentError(f"--count: expected numbers up to 99999 such as 0,10,25, one of them not 0, found {text!r}")
    return [int(part) for part in parts]


def _run_layers(opened: Opened, layers: Iterable[int], setup: "Setup") -> "tuple[list[LayerFindings], bool]":
    """The findings of each layer, and whether Ctrl-C left layers out."""
    from armlet.mechanism.layers import measure_layers

    findings: list[LayerFindings] = []
    interrupted = False
    with progress("running layers", len(setup.prompts) * (opened.options.layer + 1)) as tick:
        try:
            findings.extend(measure_layers(opened.layers(), layers, setup, tick))
        except KeyboardInterrupt:
            interrupted = True
            say_interrupted(findings)
    if not findings:
        raise typer.Exit(INTERRUPTED)
    return findings, interrupted


def _save_tables(explanation: "Explanation", result: dict[str, object], out: Path) -> None:
    write_json(out / "explain.json", result)
    for name, records in {"explain": explanation.quantities, "explain-classes": explanation.classes}.items():
        if records:
            write_text(out / f"{name}.csv", csv_text([record.to_dict() for record in records]))


def _save_figures(explanation: "Explanation", heads: int, out: Path) -> None:
    from armlet.mechanism.figures import draw_explanation
    from armlet.presentation.style import save

    for name, figure in draw_explanation(explanation, heads).items():
        save(figure, out, f"explain-{name}")


def _print_tables(explanation: "Explanation", title: str, figures: list[str]) -> None:
    from armlet.mechanism.tables import classes_table, explanation_table
    from armlet.prompts.fillers import RANDOM_SENTENCE

    kinds = dict.fromkeys(filler.kind for filler in explanation.setup.fillers if filler.kind != RANDOM_SENTENCE)
    for kind in kinds or [RANDOM_SENTENCE]:
        Console().print(explanation_table(explanation, kind, title))
    if explanation.classes:
        Console().print(classes_table(explanation, title))
    else:
        print("no word of a question comes after the filler: nothing to say of classes, with or without ARM")
    print(*(f"figure: {path}" for path in figures), sep="\n")
