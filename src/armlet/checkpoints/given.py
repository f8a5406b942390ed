"""A model as a caller gives it: a folder or hub id to load, or a loaded model with its tokenizer."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias, Union

import torch
from torch import nn

from armlet.checkpoints.folder import ABACUS, abacus
from armlet.checkpoints.identity import fingerprint, loaded_fingerprint, model_folder
from armlet.checkpoints.pretrained import Device, Dtype, check_device, load
from armlet.presentation.terminal import note, working
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Model: TypeAlias = Union[str, Path, "PreTrainedModel"]
"""A folder, a hub id, "abacus", or a loaded causal language model."""


@dataclass(frozen=True)
class NamedModel:
    """A loaded model with its tokenizer, and its name in results."""

    name: str
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    folder: Path | None = None  # the files of both; None if a caller loaded one of them

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of what determines the answers, computed once: the files, or the model and tokenizer as loaded.

        Raises ArgumentError as `loaded_fingerprint`.
        """
        with working("hashing the weights"):
            return fingerprint(self.folder) if self.folder else loaded_fingerprint(self.model, self.tokenizer)


def load_or_use(
    model: Model, tokenizer: "PreTrainedTokenizerBase | None", *, dtype: Dtype = "auto", device: Device | None = None
) -> NamedModel:
    """Loads a folder or hub id (see `armlet.checkpoints.pretrained.load`), or takes a loaded model as it is.

    Raises:
        CheckpointError: the model cannot be loaded.
        ArgumentError: a loaded model comes without its tokenizer, with a dtype or device, or with a module in training
            mode, or the tokenizer has more tokens than the model.
    """
    if isinstance(model, nn.Module):
        check_loaded(model, None if dtype == "auto" else dtype, device)
        given_tokenizer = required_tokenizer(tokenizer)
        check_vocabulary(model, given_tokenizer)
        return NamedModel(model_name(model), model, given_tokenizer)
    device = check_running_device(device)
    if tokenizer is not None:
        required_tokenizer(tokenizer)
    name, start = model_name(model), monotonic()
    with working(f"loading {name}"):
        folder = model_folder(name)
        loaded, loaded_tokenizer = load(str(folder), dtype=dtype, device=device)
    check_vocabulary(loaded, tokenizer or loaded_tokenizer)
    size, kept = sum(weights.numel() for weights in loaded.parameters()), str(loaded.dtype).removeprefix("torch.")
    note(f"loaded {name}: {size / 1e6:,.1f} M weights, {kept}, on {loaded.device}, in {monotonic() - start:.1f} s")
    return NamedModel(name, loaded, tokenizer or loaded_tokenizer, None if tokenizer else folder)


def check_vocabulary(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Raises ArgumentError if the model has no embedding for some of the tokens.

    Added tokens are not counted: some published tokenizers have one for images that the text model lacks. Whether a
    prompt has such a token is for `check_tokens`.
    """
    known, needed = known_tokens(model), tokenizer.vocab_size
    if needed > known:
        problem = f"has {needed:,} tokens, but the model's vocabulary only {known:,}, so it is another model's"
        raise ArgumentError(f"tokenizer: it {problem}; pass the model's own")


def known_tokens(model: "PreTrainedModel") -> int:
    """The number of tokens that the model has embeddings for."""
    weight = getattr(model.get_input_embeddings(), "weight", None)
    return model.config.get_text_config().vocab_size if weight is None else weight.shape[0]


def check_tokens(tokenizer: "PreTrainedTokenizerBase", ids: Iterable[int], known: int, where: str) -> None:
    """Raises ArgumentError if a token of a prompt is not among the `known` first ones, which have embeddings."""
    if unknown := next((token for token in ids if token >= known), None):
        token = f"the token {str(tokenizer.decode([unknown]))!r} (id {unknown:,})"
        advice = "leave it out of the text, or pass the model's own tokenizer"
        raise ArgumentError(f"{where}: the model has embeddings for {known:,} tokens, and none for {token}; {advice}")


def check_loaded(model: nn.Module, dtype: Dtype | None = None, device: Device | None = None) -> None:
    """Raises ArgumentError if a loaded model comes with a dtype or device, or a module is in training mode."""
    if dtype is not None or device is not None:
        raise ArgumentError("model: it is loaded, so it has its dtype and device; leave both out, or pass its path")
    if training := [name or "it" for name, module in model.named_modules() if module.training]:
        answers = "is in training mode, so its answers are random; call model.eval() first"
        raise ArgumentError(f"model: {training[0]} {answers}")


def check_running_device(device: Device | None) -> str | None:
    """The name of a device; raises ArgumentError if a model cannot run there; on "meta" a model has no values."""
    check_device(device)
    name = None if device is None else str(device)
    if name is not None and torch.device(name).type == "meta":
        raise ArgumentError(f"device: {name!r} has no values; use cpu or cuda")
    return name


def model_name(model: Model) -> str:
    """The folder or hub id, without the slash that shells add; for a loaded model, what it was loaded from.

    The folder of the embedded model has the name `ABACUS`, because its answers depend on settings of its own.
    """
    if isinstance(model, nn.Module):
        name = getattr(model.config, "_name_or_path", "") or type(model).__name__
    elif isinstance(model, str | Path) and model != "":
        name = str(model).rstrip("/") or str(model)
    else:
        kind = "an empty text" if model == "" else type(model).__name__
        raise ArgumentError(f"model: expected a folder, a hub id or a loaded model, found {kind}")
    return ABACUS if os.path.realpath(os.path.expanduser(name)) == os.path.realpath(abacus()) else name


def required_tokenizer(tokenizer: "PreTrainedTokenizerBase | None") -> "PreTrainedTokenizerBase":
    """A tokenizer; raises ArgumentError if it is missing or no tokenizer."""
    if not callable(tokenizer) or not hasattr(tokenizer, "decode"):
        problem = "missing" if tokenizer is None else f"a {type(tokenizer).__name__}"
        raise ArgumentError(f"tokenizer: expected the model's tokenizer after the model, it is {problem}")
    return tokenizer
