"""`armlet inspect`: the effect of each policy on a layer's activated gate."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from rich.table import Table
from torch import Tensor
from typer import Option

from armlet.commands import options
from armlet.commands.options import POLICY, collect_until_interrupted, finish, folder_option
from armlet.commands.policy_help import policy_option
from armlet.commands.reading import open_model
from armlet.inspection.measure import activated_gates, inspect_gates
from armlet.inspection.result import Inspection
from armlet.inspection.synthetic import SYNTHETIC_AXES
from armlet.inspection.synthetic import synthetic as synthetic_gate
from armlet.inspection.tables import inspection_table
from armlet.presentation.files import write_json
from armlet.presentation.terminal import notes, progress
from armlet.prompts.questions import encode_prompt
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policies import parse_policy
from armlet.redistribution.rows import Policy

FIGURE_POLICIES = 3  # maximum number of policies in the figure

Synthetic = Literal["modes", "heavy-tail"]


class GateSample(NamedTuple):
    """Activated gates, `[seq, width]` for each prompt, and their origin; axis: the figure's minimum range."""

    source: str
    layer: int
    activation: str
    gates: Sequence[Tensor]
    interrupted: bool = False
    axis: tuple[float, float] | None = None


def inspect(
    model: options.ModelArgument = None,
    *,
    layer: Annotated[int, Option(help="Index of the layer, from 0; the figure's Layer 1 is 0.")] = 0,
    policy: Annotated[list[str] | None, policy_option(POLICY + ". May be repeated; all three by default.")] = None,
    scope: options.ScopeOption = "token",
    prompts: options.PromptOptions,
    synthetic: Annotated[Synthetic | None, Option(help="Use a synthetic sample instead of a model.")] = None,
    out: Annotated[Path, folder_option("Folder for the figure and inspect.json.")] = Path("armlet-inspect"),
    compute: options.ComputeOptions,
    as_json: options.JsonOption = False,
) -> None:
    """Show each policy's effect on the activated gate of a layer, as a table and as a figure (PNG and SVG)."""
    policies = _policies(policy or ("outward", "inward", "transport"))
    if synthetic and (model or prompts.prompt or prompts.prompts or layer):
        raise ArgumentError("--synthetic draws a sample: leave out model, layer and prompt")
    sample = _synthetic(synthetic, compute.seed) if synthetic else _run_model(model, prompts.texts(), layer, compute)
    with notes.status("measuring ..."):
        inspection = inspect_gates(sample.gates, policies, scope=scope, seed=compute.seed, layer=layer)
    with notes.status("drawing ..."):
        figure = _save_figure(inspection, sample, out)
    setting = {"source": sample.source, "layer": layer, "scope": scope, "seed": compute.seed, "figure": figure}
    result = setting | {"prompts": len(sample.gates), "interrupted": sample.interrupted} | inspection.to_dict()
    write_json(out / "inspect.json", result)
    shown = [_table(inspection, sample, scope), *(f"figure: {path}" for path in figure)]
    finish(result, as_json, shown, interrupted=sample.interrupted)


def _policies(texts: Sequence[str]) -> list[Policy]:
    if len(texts) > FIGURE_POLICIES:
        raise ArgumentError(f"--policy: expected up to {FIGURE_POLICIES}, as in the figure, found {len(texts)}")
    return [parse_policy(text) for text in texts]


def _synthetic(kind: Synthetic, seed: int) -> GateSample:
    gates = [synthetic_gate(kind, seed=seed)]
    return GateSample(f"the synthetic sample '{kind}'", 0, "SiLU", gates, axis=SYNTHETIC_AXES.get(kind))


def _run_model(model: str | None, texts: list[str], layer: int, compute: options.ComputeOptions) -> GateSample:
    """The activated gates of a model; after Ctrl-C, the gates of the finished prompts."""
    opened = open_model(model, compute, last=layer)
    ids = [encode_prompt(opened.tokenizer, text) for text in texts]
    with progress("running prompts", len(ids) * (layer + 1)) as tick:
        gates, interrupted = collect_until_interrupted(activated_gates(opened.layers(), ids, layer, tick))
    return GateSample(opened.name, layer, opened.options.activation, gates, interrupted)


def _save_figure(inspection: Inspection, sample: GateSample, out: Path) -> list[str]:
    from armlet.inspection.figures import draw_inspection
    from armlet.presentation.style import save

    panels = [effect.panel for effect in inspection.effects]
    title = f"Activated gate of {Path(sample.source).resolve().name}, {inspection.tokens} tokens"
    figure = draw_inspection(panels, title=title, layer=sample.layer, activation=sample.activation, axis=sample.axis)
    return [str(path) for path in save(figure, out, "inspect")]


def _table(inspection: Inspection, sample: GateSample, scope: str) -> Table:
    title = f"activated gate of {sample.source}, layer {sample.layer}, {inspection.tokens} tokens, scope {scope}"
    title += f"; {inspection.passed} tokens with NaN or Inf in their scope left out" if inspection.passed else ""
    return inspection_table(inspection, title)
