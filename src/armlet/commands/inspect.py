"""`armlet inspect`: what each policy does to the activated gate of a layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from typer import Option

from armlet.commands import options
from armlet.commands.options import POLICY, collect_until_interrupted, finish, folder_option
from armlet.commands.reading import Opened, open_model
from armlet.presentation.files import write_json
from armlet.presentation.terminal import notes, progress
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.spelling import parse_policy

if TYPE_CHECKING:
    from torch import Tensor

    from armlet.inspection.figures import Window
    from armlet.inspection.result import Inspection

FIGURE_POLICIES = 3
"""Most policies that the figure shows."""

Synthetic = Literal["modes", "heavy-tail"]


class GateSample(NamedTuple):
    """Activated gates, `[seq, width]` for each prompt, and where they come from; axis: the figure's least range."""

    source: str
    activation: str
    gates: "Sequence[Tensor]"
    interrupted: bool = False
    axis: "Window | None" = None


def inspect(
    model: options.ModelArgument = None,
    *,
    layer: Annotated[int, Option(help="Which layer, from 0; the figure's Layer 1 is 0.")] = 0,
    policy: Annotated[list[str] | None, Option(help=POLICY + ". May be repeated; all three by default.")] = None,
    scope: options.ScopeOption = "token",
    prompts: options.PromptOptions,
    synthetic: Annotated[Synthetic | None, Option(help="A sample in place of a model.")] = None,
    out: Annotated[Path, folder_option("Where the figure and inspect.json go.")] = Path("armlet-inspect"),
    compute: options.ComputeOptions,
    as_json: options.JsonOption = False,
) -> None:
    """Show what each policy does to the activated gate of a layer: a table, and a figure as PNG and SVG."""
    from armlet.inspection.measure import inspect_gates
    from armlet.inspection.tables import inspection_table

    policies = [parse_policy(text) for text in policy or ("outward", "inward", "transport")]
    if len(policies) > FIGURE_POLICIES:
        raise ArgumentError(f"--policy: the figure shows up to {FIGURE_POLICIES}, found {len(policies)}")
    if synthetic and (model or prompts.prompt or prompts.prompts or layer):
        raise ArgumentError("--synthetic draws a sample: name no model, layer or prompt with it")
    if synthetic:
        sample = _synthetic(synthetic, compute.seed)
    else:
        texts = prompts.texts()
        sample = _run_model(open_model(model, compute.dtype, compute.device, last=layer), texts, layer)
    with notes.status("measuring ..."):
        inspection = inspect_gates(sample.gates, policies, scope=scope, seed=compute.seed, layer=layer)
    with notes.status("drawing ..."):
        figure = _save_figure(inspection, sample, layer, out)
    result = {"source": sample.source, "layer": layer, "scope": scope, "seed": compute.seed, "figure": figure}
    result |= {"prompts": len(sample.gates), "interrupted": sample.interrupted} | inspection.to_dict()
    write_json(out / "inspect.json", result)
    title = f"activated gate of {sample.source}, layer {layer}, {inspection.tokens} tokens, scope {scope}"
    title += f"; {inspection.passed} tokens with NaN or Inf in their scope left out" if inspection.passed else ""
    shown = [inspection_table(inspection, title), *(f"figure: {path}" for path in figure)]
    finish(result, as_json, shown, interrupted=sample.interrupted)


def _synthetic(kind: Synthetic, seed: int) -> GateSample:
    from armlet.inspection.synthetic import SYNTHETIC_AXES, synthetic

    gates = [synthetic(kind, seed=seed)]
    return GateSample(f"the synthetic sample '{kind}'", "SiLU", gates, axis=SYNTHETIC_AXES.get(kind))


def _run_model(opened: Opened, texts: list[str], layer: int) -> GateSample:
    """The activated gates of a model; where Ctrl-C interrupts, those of the prompts that are finished."""
    from armlet.inspection.measure import activated_gates
    from armlet.prompts.questions import encode_prompt

    ids = [encode_prompt(opened.tokenizer, text) for text in texts]
    with progress("running prompts", len(ids) * (layer + 1)) as tick:
        gates, interrupted = collect_until_interrupted(activated_gates(opened.layers(), ids, layer, tick))
    return GateSample(opened.name, opened.options.activation, gates, interrupted)


def _save_figure(inspection: "Inspection", sample: GateSample, layer: int, out: Path) -> list[str]:
    from armlet.inspection.figures import draw_inspection
    from armlet.presentation.style import save

    panels = [effect.panel for effect in inspection.effects]
    title = f"Activated gate of {Path(sample.source).resolve().name}, {inspection.tokens} tokens"
    figure = draw_inspection(panels, title=title, layer=layer, activation=sample.activation, axis=sample.axis)
    return [str(path) for path in save(figure, out, "inspect")]
