"""`armlet inspect`: what each policy does to the activated gate of a layer."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from armlet.commands.arguments import (
    POLICY,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    PromptOption,
    PromptsOption,
    ScopeName,
    ScopeOption,
    SeedOption,
    check_folder,
    requested_prompts,
)
from armlet.commands.reading import open_model
from armlet.presentation.files import json_text, write_json
from armlet.presentation.terminal import INTERRUPTED, notes, progress, say_interrupted
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.spelling import parse_policy

if TYPE_CHECKING:
    from armlet.inspection.measure import Inspection, Sample

FIGURE_HOLDS = 3


class Synthetic(StrEnum):
    """Samples in place of a model's gate."""

    modes = "modes"
    heavy_tail = "heavy-tail"


def inspect(
    model: ModelArgument = None,
    layer: Annotated[int, typer.Option(help="Which layer, from 0; the figure's Layer 1 is 0.")] = 0,
    policy: Annotated[list[str] | None, typer.Option(help=POLICY + ". May be repeated; all three by default.")] = None,
    scope: ScopeOption = ScopeName.token,
    prompt: PromptOption = None,
    prompts: PromptsOption = None,
    synthetic: Annotated[Synthetic | None, typer.Option(help="A sample in place of a model.")] = None,
    out: Annotated[Path, typer.Option(help="Where the figure and inspect.json go.")] = Path("armlet-inspect"),
    seed: SeedOption = 0,
    dtype: DtypeOption = "auto",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what each policy does to the activated gate of a layer: a table, and a figure as PNG and SVG."""
    from armlet.inspection.measure import inspect_gates
    from armlet.inspection.tables import inspection_table
    from armlet.prompts.questions import BUILT_IN

    policies = [parse_policy(text) for text in policy or ("outward", "inward", "transport")]
    if len(policies) > FIGURE_HOLDS:
        raise ArgumentError(f"--policy: the figure holds up to {FIGURE_HOLDS}, found {len(policies)}")
    if synthetic and (model or prompt or prompts or layer):
        raise ArgumentError("--synthetic draws a sample: name no model, layer or prompt with it")
    check_folder(out)
    if synthetic:
        sample = _drawn(synthetic, seed)
    else:
        sample = _measured(model, requested_prompts(prompt, prompts, BUILT_IN), layer, dtype, device)
    if sample.interrupted and not sample.gates:
        raise typer.Exit(INTERRUPTED)
    with notes.status("measuring ..."):
        inspection = inspect_gates(sample.gates, policies, scope=scope, seed=seed, layer=layer)
    with notes.status("drawing ..."):
        figure = _figure(inspection, sample, layer, out)
    title = f"activated gate of {sample.source}, layer {layer}, {inspection.tokens} tokens, scope {scope}"
    title += f"; {inspection.passed} tokens with NaN or Inf in their scope left out" if inspection.passed else ""
    result = {"source": sample.source, "layer": layer, "scope": scope, "seed": seed, "figure": figure}
    result |= {"prompts": len(sample.gates), "interrupted": sample.interrupted} | inspection.plain()
    write_json(out / "inspect.json", result)
    if as_json:
        print(json_text(result), end="")
    else:
        Console().print(inspection_table(inspection, title))
        print(*(f"figure: {path}" for path in figure), sep="\n")
    if sample.interrupted:
        raise typer.Exit(INTERRUPTED)


def _drawn(synthetic: Synthetic, seed: int) -> "Sample":
    from armlet.inspection.measure import Sample
    from armlet.inspection.synthetic import synthetic as draw_sample

    axis = (-4.0, 4.0) if synthetic is Synthetic.modes else None
    return Sample(f"the synthetic sample '{synthetic}'", gates=[draw_sample(synthetic, seed=seed)], axis=axis)


def _measured(model: str | None, prompts: list[str], layer: int, dtype: str, device: str | None) -> "Sample":
    """The activated gates of a model; those of the prompts so far where Ctrl-C cuts it short."""
    from armlet.inspection.measure import Sample, activated_gates
    from armlet.prompts.questions import encode

    opened = open_model(model, dtype, device, last=layer)
    ids = [encode(opened.tokenizer, prompt) for prompt in prompts]
    sample = Sample(opened.name, opened.options.activation)
    with progress("running prompts", len(prompts) * (layer + 1)) as tick:
        try:
            for gate in activated_gates(opened.layers(), ids, layer, tick):
                sample.gates.append(gate)
        except KeyboardInterrupt:
            sample.interrupted = True
            say_interrupted(sample.gates)
    return sample


def _figure(inspection: "Inspection", sample: "Sample", layer: int, out: Path) -> list[str]:
    from armlet.inspection.figures import draw_inspection
    from armlet.presentation.style import save

    panels = [effect.panel for effect in inspection.effects]
    title = f"Activated gate of {Path(sample.source).resolve().name}, {inspection.tokens} tokens"
    figure = draw_inspection(panels, title=title, layer=layer, activation=sample.activation, axis=sample.axis)
    return [str(path) for path in save(figure, out, "inspect")]
