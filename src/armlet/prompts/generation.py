"""Generates answers: the only call of a model's `generate` in armlet.

Only the logits determine an answer. From the checkpoint's generation_config.json only special tokens are used:
penalties and forced tokens would change both compared answers, and beams and extra sequences would return several.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COLDEST_SAMPLED = 1e-6
"""Below this temperature the best token is taken: logits / temperature would overflow, and it would win anyway."""

FILTERS = ("top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""Sampling settings that keep only the more probable tokens."""

LogitsProcessor = Callable[[Tensor, Tensor], Tensor]
"""Maps the tokens so far `[batch, seq]` and logits `[batch, vocabulary]` to logits."""


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen."""

    max_new_tokens: int  # maximum length of an answer
    temperature: float = 0.0  # sampling temperature; below `COLDEST_SAMPLED` the best token is taken
    filters: Mapping[str, float | int] = field(default_factory=dict)  # some of `FILTERS`, only for sampling
    seed: int = 0  # seed of sampling


class TokenStream:
    """Collects the new tokens of one answer as they are generated, so that an interrupted answer keeps them."""

    def __init__(self, tick: Callable[[], None] = lambda: None) -> None:
        self.tick, self._prompt_seen = tick, False
        self.tokens: list[int] = []

    def put(self, value: Tensor) -> None:
        """Receives the prompt first, then each new token, from `generate`."""
        if self._prompt_seen:
            self.tokens += value.flatten().tolist()
            self.tick()
        self._prompt_seen = True

    def end(self) -> None:
        """Receives the end of the answer from `generate`."""


def generate_tokens(
    model: "PreTrainedModel",
    ids: Tensor,
    mask: Tensor,
    decoding: Decoding,
    *,
    padding: int,
    processors: Iterable[LogitsProcessor] = (),
    stream: TokenStream | None = None,
) -> Tensor:
    """Generates one answer to each prompt; returns prompts and answers, `[batch, seq + new]`.

    Restores the global generators and the model's own settings.

    Args:
        model: a causal language model, with or without ARM.
        ids: the prompts' tokens `[batch, seq]`, padded on the left.
        mask: the padding mask `[batch, seq]`, 1 for valid tokens.
        decoding: how tokens are chosen.
        padding: the token that fills a row after its answer ends.
        processors: functions applied to the logits of each step.
        stream: receives each token; only for a batch of one.
    """
    from transformers import LogitsProcessorList

    choice: dict[str, Any] = {"do_sample": False}
    if decoding.temperature >= COLDEST_SAMPLED:
        choice = {"do_sample": True, "temperature": decoding.temperature, **decoding.filters}
    devices = {model.device, *(parameter.device for parameter in model.parameters())}
    with torch.no_grad(), _only_special_tokens(model, padding), _seeded(decoding.seed, devices):
        return model.generate(  # type: ignore[operator]
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=decoding.max_new_tokens,
            logits_processor=LogitsProcessorList(processors),
            streamer=stream,
            **choice,
        )


def checkpoint_filters(model: "PreTrainedModel") -> dict[str, float | int]:
    """The `FILTERS` that the checkpoint's generation_config.json sets."""
    settings = ((name, getattr(model.generation_config, name, None)) for name in FILTERS)
    return {name: value for name, value in settings if value is not None}


def padding_token(tokenizer: "PreTrainedTokenizerBase", known: int = sys.maxsize) -> int:
    """The padding token. It is masked, so any will do if the tokenizer has none among the model's `known` tokens.

    Many tokenizers were given a padding token that their model has no embedding for.
    """
    untyped: Any = tokenizer
    candidates = (untyped.pad_token_id, untyped.eos_token_id)
    return next((token for token in candidates if token is not None and token < known), 0)


@contextmanager
def _only_special_tokens(model: "PreTrainedModel", padding: int) -> Iterator[None]:
    from transformers import GenerationConfig

    # `generate` reads unspecified settings from the model's own, so these are replaced for the call.
    settings: Any = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=settings.bos_token_id, eos_token_id=settings.eos_token_id, pad_token_id=padding
    )
    try:
        yield
    finally:
        model.generation_config = settings


@contextmanager
def _seeded(seed: int, devices: Iterable[torch.device]) -> Iterator[None]:
    """Seeds the global generators of the CPU and of these devices, and restores them afterwards.

    `torch.manual_seed` would reseed every accelerator, even those without a part of the model.
    """
    accelerators = [device for device in devices if device.type not in ("cpu", "meta")]
    kind = accelerators[0].type if accelerators else "cuda"
    with torch.random.fork_rng(accelerators, device_type=kind):
        torch.default_generator.manual_seed(seed)
        for device in accelerators:
            module: Any = torch.get_device_module(device)
            if hasattr(module, "default_generators"):  # one for each device of this kind
                index = module.current_device() if device.index is None else device.index
                module.default_generators[index].manual_seed(seed)
            else:
                module.manual_seed(seed)
        yield
