"""`armlet explain`: what filler tokens do to attention and gate."""

from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from armlet.attachment.config import parse_layers
from armlet.commands.arguments import (
    POLICY,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    PlaceName,
    PromptOption,
    PromptsOption,
    SeedOption,
    check_folder,
    requested_prompts,
)
from armlet.commands.reading import Opened, open_model
from armlet.layer.options import Options
from armlet.presentation.files import csv_text, json_text, write_json, write_text
from armlet.presentation.terminal import INTERRUPTED, notes, progress, say_interrupted
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.rows import settings
from armlet.redistribution.spelling import parse_policy

if TYPE_CHECKING:
    from armlet.mechanism.explanation import Explanation, Findings, Setup
    from armlet.prompts.fillers import Filler
    from armlet.redistribution.rows import Policy

FEWEST = 2  # tokens behind the filler: an affine map cannot be fitted to one

LONGEST = len("99999")
"""Digits of a count."""

FIGURES = ("attention", "affine", "counts", "layers", "classes")


def explain(
    model: ModelArgument = None,
    layers: Annotated[str, typer.Option(help="An index, several (0,3), a range (0-5), or all.")] = "all",
    filler: Annotated[
        list[str] | None, typer.Option(help="Repeated to the count; / by default. May be given again.")
    ] = None,
    count: Annotated[str, typer.Option(help="How many filler tokens, one number or several.")] = "0,10,25,40,55,70",
    position: Annotated[
        PlaceName, typer.Option(help="Around the system prompt, behind the question, or in it at random.")
    ] = PlaceName.between,
    policy: Annotated[
        list[str] | None, typer.Option(help=f"What ARM does to each class of tokens: {POLICY}. May be repeated.")
    ] = None,
    prompt: PromptOption = None,
    prompts: PromptsOption = None,
    system: Annotated[str | None, typer.Option(help="The system prompt; a built-in one by default.")] = None,
    out: Annotated[Path, typer.Option(help="Where the figures, explain.json and its tables as .csv go.")] = Path(
        "armlet-explain"
    ),
    seed: SeedOption = 0,
    dtype: DtypeOption = "auto",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what filler tokens do inside the layers: attention, gate and near-zero share, against a random sentence."""
    from armlet.mechanism.explanation import summarise
    from armlet.prompts.fillers import SYSTEM, conditions
    from armlet.prompts.questions import BUILT_IN, FORMULAS

    system = SYSTEM if system is None else system
    fillers = conditions(filler or ["/"], parse_counts(count))
    policies = list(dict.fromkeys(parse_policy(text) for text in policy or ("outward",)))
    wanted = parse_layers(layers)
    questions = requested_prompts(prompt, prompts, BUILT_IN + FORMULAS)
    check_folder(out)
    opened = open_model(model, dtype, device, last=None if isinstance(wanted, str) else max(wanted))
    indices = range(opened.options.layer + 1) if isinstance(wanted, str) else wanted
    setup = _setup(opened, questions, system, position, fillers, policies, seed)
    findings, interrupted = _run(opened, indices, setup)
    if not findings:
        raise typer.Exit(INTERRUPTED)
    with notes.status("summing up ..."):
        explanation = summarise(findings, setup)
    drawn = FIGURES if explanation.classes else FIGURES[:-1]  # no word of a question stands behind the filler
    figures = [str(out / f"explain-{name}.{kind}") for name in drawn for kind in ("png", "svg")]
    asked_for = {"source": opened.name, "dtype": dtype, "system": system, "position": position, "questions": questions}
    found = {"layers": [each.layer for each in findings], "interrupted": interrupted, "figures": figures}
    result = asked_for | _described(opened, setup) | found | _tables(explanation, setup)
    write_json(out / "explain.json", result)
    for name, rows in {"explain": explanation.rows, "explain-classes": explanation.classes}.items():
        if rows:
            write_text(out / f"{name}.csv", csv_text(rows))
    with notes.status("drawing ..."):
        _draw(explanation, setup, opened.options, out)
    if as_json:
        print(json_text(result), end="")
    else:
        _show(explanation, setup, f"{opened.name}, layer {findings[0].layer}")
        print(*(f"figure: {path}" for path in figures), sep="\n")
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def _run(opened: Opened, layers: Iterable[int], setup: "Setup") -> "tuple[list[Findings], bool]":
    """The findings of each layer, and whether Ctrl-C left layers out."""
    from armlet.mechanism.explanation import run

    findings: list[Findings] = []
    with progress("running layers", len(setup.prompts) * (opened.options.layer + 1)) as tick:
        try:
            findings.extend(run(opened.layers(), layers, setup, tick))
        except KeyboardInterrupt:
            say_interrupted(findings)
            return findings, True
    return findings, False


def _show(explanation: "Explanation", setup: "Setup", title: str) -> None:
    from armlet.mechanism.tables import classes_table, explanation_table
    from armlet.prompts.fillers import RANDOM_SENTENCE

    kinds = [kind for kind in dict.fromkeys(filler.kind for filler in setup.fillers) if kind != RANDOM_SENTENCE]
    for kind in kinds or [RANDOM_SENTENCE]:
        Console().print(explanation_table(explanation, setup, kind, title))
    if explanation.classes:
        Console().print(classes_table(explanation, title))
    else:
        print("no word of a question stands behind the filler: nothing to say of classes, with or without ARM")


def parse_counts(text: str) -> list[int]:
    """Counts of tokens such as "0,10,25"; at least one is not 0.

    Raises:
        ArgumentError: anything else.
    """
    parts = text.split(",")
    if not all(part.isdecimal() and len(part) <= LONGEST for part in parts) or not any(map(int, parts)):
        raise ArgumentError(f"--count: expected numbers up to 99999 such as 0,10,25, one of them not 0, found {text!r}")
    return [int(part) for part in parts]


def _setup(
    opened: Opened,
    questions: Sequence[str],
    system: str,
    position: PlaceName,
    fillers: "Sequence[Filler]",
    policies: "Sequence[Policy]",
    seed: int,
) -> "Setup":
    from armlet.mechanism.explanation import Setup
    from armlet.prompts.fillers import filler_tokens, make_prompt

    tokenizer = opened.tokenizer
    prompts = [make_prompt(tokenizer, question, system=system, position=position.value) for question in questions]
    for prompt, question in zip(prompts, questions, strict=True):
        if prompt.at + FEWEST > len(prompt.ids):
            raise ArgumentError(
                f"--position: fewer than {FEWEST} tokens stand behind {position.value!r} in {question!r}"
            )
    tokens = [
        [filler_tokens(tokenizer, filler, seed=seed, prompt=at) for filler in fillers] for at in range(len(prompts))
    ]
    return Setup(prompts, fillers, tokens, policies, seed)


def _described(opened: Opened, setup: "Setup") -> dict[str, Any]:
    from armlet.mechanism.measure import QUANTITIES
    from armlet.prompts.fillers import describe_filler

    return {
        "seed": setup.seed,
        "tokens": len(setup.owners()),
        "quantities": QUANTITIES,
        "fillers": [
            describe_filler(opened.tokenizer, *each) for each in zip(setup.fillers, setup.tokens[0], strict=True)
        ],
        "policies": [{"policy": policy.name, **settings(policy)} for policy in setup.policies],
    }


def _tables(explanation: "Explanation", setup: "Setup") -> dict[str, Any]:
    """All rows, and what the first figure shows: each token of the first prompt and the attention that it receives."""
    first, prompt, filler = explanation.findings[0], setup.prompts[0], setup.fillers[setup.example()]
    sides = [[number if isfinite(number) else None for number in side.tolist()] for side in first.received]
    named = {"layer": first.layer, "filler": filler.kind, "count": filler.count, "at": prompt.at}
    attention = named | {"words": prompt.words, "without": sides[0], "with": sides[1]}
    return {"attention": attention, "rows": explanation.rows, "classes": explanation.classes}


def _draw(explanation: "Explanation", setup: "Setup", options: Options, out: Path) -> None:
    from armlet.mechanism import figures as draw
    from armlet.mechanism.explanation import treatment_of
    from armlet.presentation.style import save

    first = explanation.findings[0]
    filler = setup.fillers[setup.example()]
    figures = {
        "attention": draw.draw_attention(setup.prompts[0], filler, first.received, layer=first.layer),
        "affine": draw.draw_affine(filler, first.attention, layer=first.layer, heads=options.heads),
        "counts": draw.draw_counts(explanation.rows, layer=first.layer),
        "layers": draw.draw_layers(explanation.rows),
    }
    if explanation.classes:
        most = [each for each in setup.fillers if each.count == filler.count]
        treatments = [treatment_of(cause) for cause in (*most, *setup.policies)]
        figures["classes"] = draw.draw_classes(explanation.classes, treatments, layer=first.layer)
    for name, figure in figures.items():
        save(figure, out, f"explain-{name}")
