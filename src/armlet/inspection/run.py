"""Inspects a layer at one of its sites: runs prompts through the layers, and measures each policy's effect."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from armlet.attachment.sites import GATE, UnsupportedModelError, check_site
from armlet.checkpoints.given import Model, check_tokens, known_tokens, load_or_use
from armlet.checkpoints.pretrained import Dtype, default_model
from armlet.inspection.command_line import sample_arguments
from armlet.inspection.measure import activated_gates, captured_gates, inspect_gates
from armlet.inspection.records import GateSample
from armlet.inspection.result import Inspection
from armlet.inspection.synthetic import SYNTHETIC_AXES
from armlet.inspection.synthetic import synthetic as synthetic_gate
from armlet.layer.capture import capturing, experts_of, why_whole_model
from armlet.layer.options import activation_label
from armlet.layer.reading import ChangedModelError, open_model
from armlet.presentation.arguments import LARGEST_SEED, refuse_changed, whole_number
from armlet.presentation.interruption import collect_until_interrupted
from armlet.presentation.progress import progress
from armlet.presentation.terminal import working
from armlet.prompts.questions import BUILT_IN, encode_prompt, prompt_texts
from armlet.redistribution.built_in import POLICIES
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policies import parse_policies
from armlet.redistribution.rows import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIGURE_POLICIES = 3  # maximum number of policies in the figure
DEFAULT_POLICIES = tuple(POLICIES)[:FIGURE_POLICIES]


def inspect(
    model: Model | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    layer: int = 0,
    policy: Policy | str | Sequence[Policy | str] = DEFAULT_POLICIES,
    scope: str = "token",
    site: str = GATE,
    prompt: str | Sequence[str] = (),
    synthetic: str | None = None,
    seed: int = 0,
    dtype: Dtype = "auto",
    device: str | None = None,
) -> Inspection:
    """Measures each policy's effect on the activated gate of one layer, or on its product with up.

    Layers above it are not read, unless `Layer1` does not cover the model, or a loaded model computes something else
    than its configuration says: then the whole model runs, and the values are read where `attach` puts ARM. In a
    mixture of experts, a row is one token in one routed expert; shared experts are left out.

    The values before are those of the model without ARM, also if ARM is attached to a loaded model.

    Args:
        model: a folder, a hub id or a loaded language model; SmolLM2-135M-Instruct by default.
        tokenizer: the tokenizer of a loaded model.
        layer: index of the layer, from 0; the figure's Layer 1 is 0.
        policy: up to three policies, as objects or as texts such as "outward:band=0.2"; all but Cut by default.
        scope: values over which statistics are taken: "token", "sequence" (a prompt) or "call" (a prompt); "token" in a
            mixture of experts.
        site: "gate", the output of the activation, "up", or "product", the input of `down`, as in `attach`.
        prompt: one or several prompts; built-in ones by default.
        synthetic: "modes" or "heavy-tail", a synthetic sample in place of a model.
        seed: seed of keyed noise, and of a synthetic sample.
        dtype: dtype of the weights: "auto" (the model's), "float32", "bfloat16", "float16", "float64", or as torch's.
        device: device of the layers, such as "cuda"; where the model is by default, or the CPU.

    Returns:
        The measures before and after. After Ctrl-C, those of the prompts that were finished.

    Raises:
        ArgumentError: an argument is unknown or out of range, or every scope contains NaN or Inf.
        CheckpointError, UnsupportedModelError: the model cannot be read, or `attach` refuses it.
        KeyboardInterrupt: Ctrl-C, before the first prompt was finished.
    """
    policies = parse_policies(policy, scope)
    if len(policies) > FIGURE_POLICIES:
        raise ArgumentError(f"policy: expected up to {FIGURE_POLICIES}, as in the figure, found {len(policies)}")
    check_site(site)
    layer, seed = whole_number("layer", layer, 0), whole_number("seed", seed, 0, LARGEST_SEED)
    if synthetic is not None:
        loading = {"tokenizer": (tokenizer, None), "dtype": (dtype, "auto"), "device": (device, None)}
        read = {"layer": (layer, 0), "site": (site, GATE), "prompt": (prompt or (), ())}
        refuse_changed("has no effect on a synthetic sample", model=(model, None), **loading, **read)
        gates = [synthetic_gate(synthetic, seed=seed)]
        name, axis = f"the synthetic sample '{synthetic}'", SYNTHETIC_AXES.get(synthetic)
        sample = GateSample(gates, name, layer=None, axis=axis)
    else:
        place = layer, site, prompt_texts(prompt, BUILT_IN), scope
        asked = default_model() if model is None else model, tokenizer, *place
        try:
            sample = _gates_of_layers(*asked, dtype, device)
        except (ChangedModelError, UnsupportedModelError) as error:
            sample = _gates_of_model(*asked, dtype, device, why_whole_model(error))
    arguments = sample_arguments(model, layer, site, prompt_texts(prompt, ()), synthetic, dtype)
    sample = replace(sample, arguments=arguments)
    with working("measuring"):
        return inspect_gates(sample, policies, scope=scope, seed=seed)


def _gates_of_layers(
    model: Model,
    tokenizer: "PreTrainedTokenizerBase | None",
    layer: int,
    site: str,
    texts: Sequence[str],
    scope: str,
    dtype: Dtype,
    device: str | None,
) -> GateSample:
    """The values by `Layer1`, which reads only the layers needed; after Ctrl-C, of the finished prompts."""
    opened = open_model(model, tokenizer, dtype=dtype, device=device, last=layer, texts=texts)
    experts = opened.options.mixture.experts if opened.options.mixture else 0
    _check_scope(scope, experts)
    ids = [encode_prompt(opened.tokenizer, text) for text in texts]
    with progress("running prompts", len(ids) * (layer + 1)) as tick:
        gates, interrupted = collect_until_interrupted(activated_gates(opened.layers(), ids, layer, tick, site))
    label = opened.options.activation
    return GateSample(gates, opened.name, layer, label, interrupted, experts=experts, site=site)


def _gates_of_model(
    model: Model,
    tokenizer: "PreTrainedTokenizerBase | None",
    layer: int,
    site: str,
    texts: Sequence[str],
    scope: str,
    dtype: Dtype,
    device: str | None,
    because: str,
) -> GateSample:
    """The values in the whole model, at the sites of `attach`; because: why not by `Layer1`."""
    opened = load_or_use(model, tokenizer, dtype=dtype, device=device)
    experts = experts_of(opened.model, layer, site)
    _check_scope(scope, experts)
    ids = [encode_prompt(opened.tokenizer, text) for text in texts]
    for row in ids:
        check_tokens(opened.tokenizer, row[0].tolist(), known_tokens(opened.model), "prompt")
    with capturing(opened.model, [layer], site=site) as run, progress("running prompts", len(ids)) as tick:
        gates, interrupted = collect_until_interrupted(captured_gates(run, ids, layer, tick, site))
    label = activation_label(opened.model.config)
    origin = {"experts": experts, "read_because": because, "site": site}
    return GateSample(gates, opened.name, layer, label, interrupted, **origin)


def _check_scope(scope: str, experts: int) -> None:
    if experts and scope != "token":
        problem = "in a mixture of experts a row is one token in one expert, so statistics are of that row"
        raise ArgumentError(f"scope: {problem}; use scope 'token', not {scope!r}")
