"""`armlet explain`: what filler tokens do to attention and gate."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from armlet.commands.arguments import POLICY, Device, Dtype, Json, Model, Prompt, Prompts, Seed, asked, check_folder
from armlet.commands.reading import Opened, open_model
from armlet.commands.terminal import INTERRUPTED, notes, progress, say_interrupted
from armlet.layer.config import csv_text, json_text, parse_layers, parse_policy, write_json, write_text
from armlet.layer.options import Options
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.rows import settings

if TYPE_CHECKING:
    from armlet.analysis.explanation import Explanation, Findings, Setup
    from armlet.analysis.fillers import Filler
    from armlet.redistribution.rows import Policy

LONGEST = len("99999")
"""Digits of a count."""


class Place(StrEnum):
    """Where the filler stands."""

    before = "before"
    between = "between"
    end = "end"


def explain(
    model: Model = None,
    layers: Annotated[str, typer.Option(help="An index, several (0,3), a range (0-5), or all.")] = "all",
    filler: Annotated[
        list[str] | None, typer.Option(help="Repeated to the count. May be given again; by default /.")
    ] = None,
    count: Annotated[str, typer.Option(help="How many filler tokens, one number or several.")] = "0,10,25,40,55,70",
    position: Annotated[
        Place, typer.Option(help="Before the system prompt, between it and the question, or at the end.")
    ] = Place.between,
    policy: Annotated[list[str] | None, typer.Option(help=POLICY + ". May be repeated; outward by default.")] = None,
    prompt: Prompt = None,
    prompts: Prompts = None,
    system: Annotated[str | None, typer.Option(help="The system prompt; a built-in one by default.")] = None,
    out: Annotated[Path, typer.Option(help="Where figures, explain.json and two .csv go.")] = Path("armlet-explain"),
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Show what filler tokens do inside the layers: attention, gate and near-zero share, against a random sentence."""
    from armlet.analysis.explanation import run, summarise
    from armlet.analysis.fillers import SYSTEM, conditions
    from armlet.analysis.prompts import BUILT_IN, FORMULAS
    from armlet.analysis.tables import explanation_table

    fillers = conditions(filler or ["/"], parse_counts(count))
    policies = list(dict.fromkeys(parse_policy(text) for text in policy or ("outward",)))
    wanted = parse_layers(layers)
    questions = asked(prompt, prompts, BUILT_IN + FORMULAS)
    check_folder(out)
    opened = open_model(model, dtype, device, last=None if isinstance(wanted, str) else max(wanted))
    indices = range(opened.options.layer + 1) if isinstance(wanted, str) else wanted
    setup = _setup(opened, questions, system or SYSTEM, position, fillers, policies, seed)
    findings: list[Findings] = []
    interrupted = False
    with progress("running layers", len(questions) * (opened.options.layer + 1)) as tick:
        try:
            findings.extend(run(opened.layers(), indices, setup, tick))
        except KeyboardInterrupt:
            interrupted = True
            say_interrupted()
    if not findings:
        raise typer.Exit(INTERRUPTED)
    with notes.status("summing up and drawing ..."):
        explanation = summarise(findings, setup)
        figures = _figures(explanation, setup, opened.options, out)
    result = _described(opened, setup, system or SYSTEM, position) | {
        "layers": [found.layer for found in findings],
        "interrupted": interrupted,
        "figures": figures,
        "rows": explanation.rows,
        "classes": explanation.classes,
    }
    write_json(out / "explain.json", result)
    write_text(out / "explain.csv", csv_text(explanation.rows))
    if explanation.classes:  # none where no word of a question stands behind the filler
        write_text(out / "explain-classes.csv", csv_text(explanation.classes))
    if as_json:
        print(json_text(result), end="")
    else:
        Console().print(explanation_table(explanation, setup, f"{opened.name}, layer {findings[0].layer}"))
        print(*(f"figure: {path}" for path in figures), sep="\n")
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def parse_counts(text: str) -> list[int]:
    """Counts of tokens such as "0,10,25"; at least one is not 0.

    Raises:
        ArgumentError: anything else.
    """
    parts = text.split(",")
    if not all(part.isdecimal() and len(part) <= LONGEST for part in parts) or not any(map(int, parts)):
        raise ArgumentError(f"--count: expected numbers of tokens such as 0,10,25, one of them not 0, found {text!r}")
    return [int(part) for part in parts]


def _setup(
    opened: Opened,
    questions: Sequence[str],
    system: str,
    position: Place,
    fillers: "Sequence[Filler]",
    policies: "Sequence[Policy]",
    seed: int,
) -> "Setup":
    from armlet.analysis.explanation import Setup
    from armlet.analysis.fillers import filler_tokens, make_prompt

    tokenizer = opened.tokenizer
    prompts = [make_prompt(tokenizer, question, system=system, position=position.value) for question in questions]
    tokens = [
        [filler_tokens(tokenizer, filler, seed=seed, prompt=at) for filler in fillers] for at in range(len(prompts))
    ]
    return Setup(prompts, fillers, tokens, policies, seed)


def _described(opened: Opened, setup: "Setup", system: str, position: Place) -> dict[str, Any]:
    from armlet.analysis.fillers import describe_filler

    return {
        "source": opened.name,
        "system": system,
        "position": position,
        "seed": setup.seed,
        "prompts": len(setup.prompts),
        "tokens": len(setup.owners()),
        "fillers": [describe_filler(opened.tokenizer, filler) for filler in setup.fillers],
        "policies": [{"policy": policy.name, **settings(policy)} for policy in setup.policies],
    }


def _figures(explanation: "Explanation", setup: "Setup", options: Options, out: Path) -> list[str]:
    from armlet.analysis import mechanism_figures as draw
    from armlet.analysis.explanation import treatment_of
    from armlet.analysis.figures import save

    first = explanation.findings[0]
    filler = setup.fillers[setup.example()]
    figures = {
        "attention": draw.draw_attention(setup.prompts[0], filler, first.received, layer=first.layer),
        "affine": draw.draw_affine(filler, first.attention, layer=first.layer, heads=options.heads),
        "counts": draw.draw_counts(explanation.rows, layer=first.layer),
        "layers": draw.draw_layers(explanation.rows, filler.kind),
    }
    if explanation.classes:
        treatments = [treatment_of(cause) for cause in (filler, *setup.policies)]
        figures["classes"] = draw.draw_classes(explanation.classes, treatments, layer=first.layer)
    return [str(path) for name, figure in figures.items() for path in save(figure, out, f"explain-{name}")]
