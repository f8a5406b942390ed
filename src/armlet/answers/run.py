"""Generates a model's answers to a prompt, without ARM and with it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor

from armlet.answers.measure import answer_twice
from armlet.answers.result import Answers
from armlet.attachment.attach import attach
from armlet.attachment.attached import refuse_attached
from armlet.attachment.config import parse_layers
from armlet.attachment.sites import GATE
from armlet.checkpoints.given import Model, load_or_use
from armlet.presentation.progress import progress
from armlet.prompts.generation import Decoding
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise, Source
from armlet.redistribution.policies import parse_policies
from armlet.redistribution.rows import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEEDS = 2**63  # number of seeds that torch's generators accept


def generate(
    model: Model,
    prompt: str,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    policy: Policy | str = "outward",
    layers: int | Iterable[int] | str = 0,
    scope: str = "token",
    site: str = GATE,
    noise: Source | Tensor | None = None,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int | None = None,
    dtype: str = "auto",
    device: str | None = None,
) -> Answers:
    """Answers a prompt without ARM, and then with ARM attached; a loaded model is left as it was.

    The arguments of an armlet.json fit: `generate(model, prompt, **load_config(directory))`.

    Args:
        model: a folder, a hub id or a loaded causal language model.
        prompt: the user's turn in the chat template, or plain text if the tokenizer has no template.
        tokenizer: the tokenizer of a loaded model.
        policy: how values move, as an object or as text such as "outward:band=0.2".
        layers: an index from 0, several, a range, or text such as "0,3", "0-5" or "all".
        scope: values over which statistics are taken: "token", "sequence" or "call".
        site: "gate", after the gate's activation, or "product", after its product with up.
        noise: source of the uniform draws; `Noise(seed)` by default.
        max_new_tokens: maximum number of tokens of each answer, at least 1.
        temperature: sampling temperature, at least 0; 0 for greedy.
        seed: seed of sampling, from 0 to 2**63 - 1, and of keyed noise if `noise` is left out; by default the seed of
            `noise`, or 0.
        dtype: dtype of the weights: "auto" (the model's), "float32", "bfloat16", "float16" or "float64".
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
    decoding = _decoding(max_new_tokens, temperature, getattr(noise, "seed", 0) % SEEDS if seed is None else seed)
    policies = parse_policies(policy, scope)
    if len(policies) != 1:
        raise ArgumentError(f"policy: expected one, to compare with the baseline, found {len(policies)}")
    # Refused before the model is loaded, as far as the text shows what is wrong.
    place = {"layers": parse_layers(layers) if isinstance(layers, str) else layers, "scope": scope, "site": site}
    opened = load_or_use(model, tokenizer, dtype=dtype, device=device)
    refuse_attached(opened.model, "generate")
    used_noise = Noise(decoding.seed) if noise is None else noise
    with (
        attach(opened.model, policies[0], noise=used_noise, **place) as arm,
        progress("generating", 2 * max_new_tokens) as tick,
    ):
        return answer_twice(opened, arm, prompt, decoding, tick)


def _check_prompt(prompt: object) -> None:
    if not isinstance(prompt, str):
        order = "the order is model, prompt, tokenizer" if callable(prompt) else "ask several one after the other"
        raise ArgumentError(f"prompt: expected text, found {type(prompt).__name__}; {order}")


def _decoding(max_new_tokens: int, temperature: float, seed: int) -> Decoding:
    for name, number, low in (("max_new_tokens", max_new_tokens, 1), ("seed", seed, 0)):
        if isinstance(number, bool) or not isinstance(number, int) or not low <= number < SEEDS:
            raise ArgumentError(f"{name}: expected an integer of at least {low} and below 2**63, found {number!r}")
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not temperature >= 0:
        raise ArgumentError(f"temperature: expected a number of at least 0, found {temperature!r}")
    return Decoding(max_new_tokens, temperature, seed=seed)
