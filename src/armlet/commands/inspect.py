"""`armlet inspect`: what each policy does to the activated gate of a layer."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from armlet.commands import arguments
from armlet.commands.reading import Opened, open_model
from armlet.presentation.files import write_json
from armlet.presentation.terminal import INTERRUPTED, notes, progress, say_interrupted
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.spelling import parse_policy

if TYPE_CHECKING:
    from torch import Tensor

    from armlet.inspection.figures import Window
    from armlet.inspection.result import Inspection

FIGURE_POLICIES = 3
"""Most policies that the figure shows."""


Synthetic = StrEnum("Synthetic", {"modes": "modes", "heavy_tail": "heavy-tail"})
"""Samples in place of a model's gate."""


@dataclass
class GateSample:
    """Activated gates, `[seq, width]` for each prompt, and where they come from; axis: the figure's least range."""

    source: str
    activation: str = "SiLU"
    gates: "list[Tensor]" = field(default_factory=list)
    axis: "Window | None" = None
    interrupted: bool = False


def inspect(
    model: arguments.ModelArgument = None,
    layer: Annotated[int, typer.Option(help="Which layer, from 0; the figure's Layer 1 is 0.")] = 0,
    policy: Annotated[
        list[str] | None, typer.Option(help=arguments.POLICY + ". May be repeated; all three by default.")
    ] = None,
    scope: arguments.ScopeOption = arguments.ScopeName.token,
    prompt: arguments.PromptOption = None,
    prompts: arguments.PromptsOption = None,
    synthetic: Annotated[Synthetic | None, typer.Option(help="A sample in place of a model.")] = None,
    out: Annotated[Path, typer.Option(help="Where the figure and inspect.json go.")] = Path("armlet-inspect"),
    seed: arguments.SeedOption = 0,
    dtype: arguments.DtypeOption = "auto",
    device: arguments.DeviceOption = None,
    as_json: arguments.JsonOption = False,
) -> None:
    """Show what each policy does to the activated gate of a layer: a table, and a figure as PNG and SVG."""
    from armlet.inspection.measure import inspect_gates

    policies = [parse_policy(text) for text in policy or ("outward", "inward", "transport")]
    if len(policies) > FIGURE_POLICIES:
        raise ArgumentError(f"--policy: the figure shows up to {FIGURE_POLICIES}, found {len(policies)}")
    if synthetic and (model or prompt or prompts or layer):
        raise ArgumentError("--synthetic draws a sample: name no model, layer or prompt with it")
    arguments.check_folder(out)
    if synthetic:
        sample = _synthetic(synthetic, seed)
    else:
        questions = arguments.requested_prompts(prompt, prompts)
        sample = _run_model(open_model(model, dtype, device, last=layer), questions, layer)
    with notes.status("measuring ..."):
        inspection = inspect_gates(sample.gates, policies, scope=scope, seed=seed, layer=layer)
    with notes.status("drawing ..."):
        figure = _save_figure(inspection, sample, layer, out)
    result = {"source": sample.source, "layer": layer, "scope": scope, "seed": seed, "figure": figure}
    result |= {"prompts": len(sample.gates), "interrupted": sample.interrupted} | inspection.to_dict()
    write_json(out / "inspect.json", result)
    title = f"activated gate of {sample.source}, layer {layer}, {inspection.tokens} tokens, scope {scope}"
    arguments.finish(result, as_json, lambda: _print_table(inspection, title, figure), interrupted=sample.interrupted)


def _synthetic(kind: Synthetic, seed: int) -> GateSample:
    from armlet.inspection.synthetic import SYNTHETIC_AXES, synthetic

    gates = [synthetic(kind, seed=seed)]
    return GateSample(f"the synthetic sample '{kind}'", gates=gates, axis=SYNTHETIC_AXES.get(kind))


def _run_model(opened: Opened, questions: list[str], layer: int) -> GateSample:
    """The activated gates of a model; where Ctrl-C interrupts, those of the prompts that are finished."""
    from armlet.inspection.measure import activated_gates
    from armlet.prompts.questions import encode_prompt

    ids = [encode_prompt(opened.tokenizer, question) for question in questions]
    sample = GateSample(opened.name, opened.options.activation)
    with progress("running prompts", len(ids) * (layer + 1)) as tick:
        try:
            for gate in activated_gates(opened.layers(), ids, layer, tick):
                sample.gates.append(gate)
        except KeyboardInterrupt:
            sample.interrupted = True
            say_interrupted(sample.gates)
    if not sample.gates:
        raise typer.Exit(INTERRUPTED)
    return sample


def _save_figure(inspection: "Inspection", sample: GateSample, layer: int, out: Path) -> list[str]:
    from armlet.inspection.figures import draw_inspection
    from armlet.presentation.style import save

    panels = [effect.panel for effect in inspection.effects]
    title = f"Activated gate of {Path(sample.source).resolve().name}, {inspection.tokens} tokens"
    figure = draw_inspection(panels, title=title, layer=layer, activation=sample.activation, axis=sample.axis)
    return [str(path) for path in save(figure, out, "inspect")]


def _print_table(inspection: "Inspection", title: str, figure: list[str]) -> None:
    from armlet.inspection.tables import inspection_table

    title += f"; {inspection.passed} tokens with NaN or Inf in their scope left out" if inspection.passed else ""
    Console().print(inspection_table(inspection, title))
    print(*(f"figure: {path}" for path in figure), sep="\n")
