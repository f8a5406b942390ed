"""Generates a model's answers to a prompt, without ARM and with it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from armlet.answers.measure import answer_twice
from armlet.answers.result import Answers
from armlet.attachment.attach import attach
from armlet.attachment.attached import refuse_attached
from armlet.attachment.config import AttachArguments, layer_indices
from armlet.attachment.sites import ALL_EXPERTS, GATE
from armlet.checkpoints.given import Model, load_or_use
from armlet.checkpoints.pretrained import Dtype
from armlet.presentation.arguments import LARGEST_SEED, number_in, whole_number
from armlet.presentation.progress import progress
from armlet.prompts.generation import Decoding
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise, Source
from armlet.redistribution.policies import parse_one_policy
from armlet.redistribution.rows import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def generate(
    model: Model,
    prompt: str,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    policy: Policy | str | Sequence[AttachArguments] = "outward",
    layers: int | Iterable[int] | str = 0,
    scope: str = "token",
    site: str = GATE,
    experts: str = ALL_EXPERTS,
    noise: Source | Tensor | None = None,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int | None = None,
    dtype: Dtype = "auto",
    device: str | None = None,
) -> Answers:
    """Answers a prompt without ARM, and then with ARM attached; a loaded model is left as it was.

    The arguments of an armlet.json fit: `generate(model, prompt, **load_config(directory))`.

    Args:
        model: a folder, a hub id or a loaded causal language model.
        prompt: the user's turn in the chat template, or plain text if the tokenizer has no template.
        tokenizer: the tokenizer of a loaded model.
        policy: how values move, as an object or as text such as "outward:band=0.2"; or a list of placements, as in
            `attach`.
        layers: an index from 0, several, a range, or text such as "0,3", "0-5" or "all".
        scope: values over which statistics are taken: "token", "sequence" or "call".
        site: "gate", after the gate's activation, "up", or "product", after their product.
        experts: in mixtures of experts, "routed", "shared" or "all" of a layer's experts, see `attach`.
        noise: source of the uniform draws; `Noise(seed)` by default.
        max_new_tokens: maximum number of tokens of each answer, at least 1.
        temperature: sampling temperature, at least 0; 0 for greedy.
        seed: seed of sampling, from 0 to 2**63 - 1, and of keyed noise if `noise` is left out; by default the seed of
            `noise`, or 0.
        dtype: dtype of the weights: "auto" (the model's), "float32", "bfloat16", "float16", "float64", or as torch's.
        device: device of the model, such as "cuda"; where a loaded model is, or the CPU.

    Returns:
        Both answers. After Ctrl-C, the tokens generated so far.

    Raises:
        ArgumentError: an argument is unknown or out of range, or a loaded model has no tokenizer or is in training.
        AlreadyAttachedError: ARM is attached to the model, so that the baseline would be treated.
        CheckpointError, UnsupportedModelError: the model cannot be loaded, or ARM cannot be attached to it.
        ConfigError: the noise is a tensor or has a generator, which an armlet.json cannot store.
        KeyboardInterrupt: Ctrl-C, before the first token.
    """
    _check_prompt(prompt)
    decoding = Decoding(
        whole_number("max_new_tokens", max_new_tokens, 1),
        number_in("temperature", temperature, 0),
        seed=whole_number("seed", getattr(noise, "seed", 0) & LARGEST_SEED if seed is None else seed, 0, LARGEST_SEED),
    )
    layers = layer_indices(layers)  # refused before the model is loaded, as is the policy
    if not isinstance(policy, list) or not all(isinstance(placement, Mapping) for placement in policy):
        parsed = parse_one_policy(cast("Policy | str", policy), scope)
        policy = policy if isinstance(policy, str) else parsed  # the text says where it comes from
    place: dict[str, Any] = {"layers": layers, "scope": scope, "site": site, "experts": experts}
    opened = load_or_use(model, tokenizer, dtype=dtype, device=device)
    refuse_attached(opened.model, "generate")
    used_noise = Noise(decoding.seed) if noise is None else noise
    with (
        attach(opened.model, policy, noise=used_noise, **place) as arm,
        progress("generating", 2 * decoding.max_new_tokens) as tick,
    ):
        return answer_twice(opened, arm, prompt, decoding, tick)


def _check_prompt(prompt: object) -> None:
    if not isinstance(prompt, str):
        order = "the order is model, prompt, tokenizer" if callable(prompt) else "ask several one after the other"
        raise ArgumentError(f"prompt: expected text, found {type(prompt).__name__}; {order}")
