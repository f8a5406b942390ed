"""From a prompt's tokens to an answer's: the one call of a model's `generate` in armlet.

The logits alone decide an answer. Of the checkpoint's generation_config.json only the special tokens count: penalties
and forced tokens would change both answers that are compared, and beams and extra sequences would give several.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

COLDEST_SAMPLED = 1e-6
"""Lowest temperature that is sampled at. Below it logits / temperature overflows, and the best token wins anyway."""

FILTERS = ("top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""Settings of sampling that keep only the more probable tokens."""

LogitsProcessor = Callable[[Tensor, Tensor], Tensor]
"""Maps tokens so far `[batch, so far]` and logits `[batch, vocabulary]` to logits."""


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen."""

    max_new_tokens: int  # of an answer
    temperature: float = 0.0  # of sampling; below `COLDEST_SAMPLED` the best token is taken
    filters: Mapping[str, float | int] = field(default_factory=dict)  # some of `FILTERS`, for sampling alone
    seed: int = 0  # of sampling


class TokenStream:
    """Collects the new tokens of one answer as they are generated, so that an interrupted answer keeps them."""

    def __init__(self, tick: Callable[[], None] = lambda: None) -> None:
        self.tick, self._prompt_seen = tick, False
        self.tokens: list[int] = []

    def put(self, value: Tensor) -> None:
        """Called by `generate` with the prompt first, then with each new token."""
        if self._prompt_seen:
            self.tokens += value.flatten().tolist()
            self.tick()
        self._prompt_seen = True

    def end(self) -> None:
        """Called by `generate` after the last token."""


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
    """The prompts and one answer to each, `[batch, seq + new]`.

    The global generators and the model's own settings stay as they were.

    Args:
        model: a causal language model, with or without ARM.
        ids: `[batch, seq]`, padded on the left.
        mask: `[batch, seq]`, 1 for valid tokens.
        decoding: how tokens are chosen.
        padding: the token that fills rows up after their end.
        processors: applied to the logits of each step.
        stream: receives each token of a batch of one.
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
    """Those of `FILTERS` that the checkpoint's generation_config.json sets."""
    settings = ((name, getattr(model.generation_config, name, None)) for name in FILTERS)
    return {name: value for name, value in settings if value is not None}


def padding_token(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The padding token. It is masked, so that any token will do where the tokenizer has none."""
    known: Any = tokenizer
    return next((token for token in (known.pad_token_id, known.eos_token_id) if token is not None), 0)


@contextmanager
def _only_special_tokens(model: "PreTrainedModel", padding: int) -> Iterator[None]:
    from transformers import GenerationConfig

    # `generate` takes what a call leaves open from the model's own settings, so these are replaced for the call.
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

    `torch.manual_seed` would reseed every accelerator, those that the model is not on too.
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
