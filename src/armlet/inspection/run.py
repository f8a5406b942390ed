"""Inspects a layer's activated gate: runs the prompts through the layers, and measures each policy's effect."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from armlet.checkpoints.given import Model
from armlet.checkpoints.pretrained import Dtype, default_model
from armlet.inspection.measure import activated_gates, inspect_gates
from armlet.inspection.records import GateSample
from armlet.inspection.result import Inspection
from armlet.inspection.synthetic import SYNTHETIC_AXES
from armlet.inspection.synthetic import synthetic as synthetic_gate
from armlet.layer.reading import open_model
from armlet.presentation.arguments import LARGEST_SEED, refuse_changed, whole_number
from armlet.presentation.interruption import collect_until_interrupted
from armlet.presentation.progress import progress
from armlet.presentation.terminal import working
from armlet.prompts.questions import BUILT_IN, encode_prompt, prompt_texts
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policies import POLICIES, parse_policies
from armlet.redistribution.rows import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIGURE_POLICIES = 3  # maximum number of policies in the figure


def inspect(
    model: Model | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    layer: int = 0,
    policy: Policy | str | Sequence[Policy | str] = tuple(POLICIES),
    scope: str = "token",
    prompt: str | Sequence[str] = (),
    synthetic: str | None = None,
    seed: int = 0,
    dtype: Dtype = "auto",
    device: str | None = None,
) -> Inspection:
    """Measures each policy's effect on the activated gate of one layer; layers above it are not read.

    The gates before are those of the model without ARM, also if ARM is attached to a loaded model.

    Args:
        model: a folder, a hub id or a loaded causal language model; SmolLM2-135M-Instruct by default.
        tokenizer: the tokenizer of a loaded model.
        layer: index of the layer, from 0; the figure's Layer 1 is 0.
        policy: up to three policies, as objects or as texts such as "outward:band=0.2".
        scope: values over which statistics are taken: "token", "sequence" (a prompt) or "call" (a prompt).
        prompt: one or several prompts; built-in ones by default.
        synthetic: "modes" or "heavy-tail", a synthetic sample in place of a model.
        seed: seed of keyed noise, and of a synthetic sample.
        dtype: dtype of the weights: "auto" (the model's), "float32", "bfloat16", "float16", "float64", or as torch's.
        device: device of the layers, such as "cuda"; where the model is by default, or the CPU.

    Returns:
        The measures before and after. After Ctrl-C, those of the prompts that were finished.

    Raises:
        ArgumentError: an argument is unknown or out of range, or every scope contains NaN or Inf.
        CheckpointError, UnsupportedModelError: the model cannot be read, or `Layer1` does not cover it.
        KeyboardInterrupt: Ctrl-C, before the first prompt was finished.
    """
    policies = parse_policies(policy, scope)
    if len(policies) > FIGURE_POLICIES:
        raise ArgumentError(f"policy: expected up to {FIGURE_POLICIES}, as in the figure, found {len(policies)}")
    layer, seed = whole_number("layer", layer, 0), whole_number("seed", seed, 0, LARGEST_SEED)
    if synthetic is not None:
        loading = {"tokenizer": (tokenizer, None), "dtype": (dtype, "auto"), "device": (device, None)}
        read = {"layer": (layer, 0), "prompt": (prompt or (), ())}
        refuse_changed("has no effect on a synthetic sample", model=(model, None), **loading, **read)
        gates = [synthetic_gate(synthetic, seed=seed)]
        name, axis = f"the synthetic sample '{synthetic}'", SYNTHETIC_AXES.get(synthetic)
        sample = GateSample(gates, name, layer=None, axis=axis)
    else:
        sample = _run_prompts(default_model() if model is None else model, tokenizer, layer, prompt, dtype, device)
    with working("measuring"):
        return inspect_gates(sample, policies, scope=scope, seed=seed)


def _run_prompts(
    model: Model,
    tokenizer: "PreTrainedTokenizerBase | None",
    layer: int,
    prompt: str | Sequence[str],
    dtype: Dtype,
    device: str | None,
) -> GateSample:
    """The activated gates of a model; after Ctrl-C, the gates of the finished prompts."""
    texts = prompt_texts(prompt, BUILT_IN)
    opened = open_model(model, tokenizer, dtype=dtype, device=device, last=layer)
    ids = [encode_prompt(opened.tokenizer, text) for text in texts]
    with progress("running prompts", len(ids) * (layer + 1)) as tick:
        gates, interrupted = collect_until_interrupted(activated_gates(opened.layers(), ids, layer, tick))
    return GateSample(gates, opened.name, layer, opened.options.activation, interrupted)
