"""Opens a model, from its files or loaded, to read it layer by layer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from armlet.attachment.attached import attached
from armlet.attachment.sites import UnsupportedModelError, find_decoder
from armlet.checkpoints.checkpoint import open_checkpoint
from armlet.checkpoints.folder import named_folder
from armlet.checkpoints.given import (
    Model,
    check_loaded,
    check_running_device,
    check_vocabulary,
    model_name,
    required_tokenizer,
)
from armlet.checkpoints.pretrained import Dtype, download, load_tokenizer, parse_dtype
from armlet.layer.decoder import Layer1
from armlet.layer.options import Options, read_options
from armlet.presentation.terminal import working
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHECKED_TEXT = "Question: 2 + 3 = 5, so what is 5 - 3?"  # at which a loaded model is compared with `Layer1`, at least
CHECKED_TOKENS = 1024  # the most
HALF_ROUNDINGS, FLOAT_ROUNDINGS = 3, 64
"""The mean difference, in units of the dtype's precision, above which it is no rounding: below 1 in correct models.

float32 allows more, because its sums over the width are not computed in a wider dtype; so does float64, of which
transformers computes some parts in float32.
"""


class ChangedModelError(ArgumentError):
    """A layer of a loaded model computes something else than `Layer1` with its weights and configuration.

    Undo what changed the model (hooks, adapters, quantisation), or read the layer from the checkpoint's files.
    """


@dataclass(frozen=True)
class OpenedModel:
    """A model before any layer is read."""

    name: str
    tokenizer: "PreTrainedTokenizerBase"
    options: Options  # options of the last layer to read
    read: Callable[[int], Layer1]  # reads one layer
    dtype: torch.dtype | None  # dtype of the weights; None keeps the model's
    device: str | None  # device of the layers; None leaves them where they are

    def layers(self) -> Iterator[Layer1]:
        """Reads layer 0 to the last necessary layer, one at a time."""
        for layer in range(self.options.layer + 1):
            yield self.read(layer).to(device=self.device, dtype=self.dtype)


def open_model(
    model: Model,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    dtype: Dtype = "auto",
    device: str | None = None,
    last: int | None = None,
    option: str = "layer",
    texts: Sequence[str] = (),
) -> OpenedModel:
    """Opens a model to read the layers up to `last` (all if None), without ARM; errors about `last` name the `option`.

    A loaded model is compared with `Layer1` at these texts, one after another, up to `CHECKED_TOKENS`.

    Raises the errors of `Layer1.from_checkpoint`, and ArgumentError for a loaded model without its own tokenizer or in
    training mode; `read` and `layers` raise ChangedModelError for a layer of a loaded model that computes something
    else than `Layer1` does.
    """
    check_running_device(device)
    name, weights_dtype = model_name(model), parse_dtype(dtype)
    if isinstance(model, nn.Module):
        tokenizer = required_tokenizer(tokenizer)
        options, read = _open_loaded(model, tokenizer, last, option, texts)
        return OpenedModel(name, tokenizer, options, read, weights_dtype, device)
    if tokenizer is not None:
        required_tokenizer(tokenizer)
    with working(f"opening {name}"):
        # If all layers are read, the whole model is downloaded and kept; else only the tensors of the layers.
        whole = last is None and named_folder(name) is None
        checkpoint = open_checkpoint(download(name) if whole else name)
        tokenizer = tokenizer or load_tokenizer(name)
    # Refuses before anything slow.
    options = read_options(checkpoint.config, checkpoint.layers - 1 if last is None else last, option)
    read = partial(Layer1.from_checkpoint, checkpoint)
    return OpenedModel(name, tokenizer, options, read, weights_dtype, device)


def _open_loaded(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    last: int | None,
    option: str,
    texts: Sequence[str],
) -> tuple[Options, Callable[[int], Layer1]]:
    """The options of the last layer of a loaded model, and the function that reads one."""
    check_vocabulary(model, tokenizer)
    check_loaded(model)
    layers = model.config.get_text_config().num_hidden_layers
    options = read_options(model.config, layers - 1 if last is None else last, option)
    ids = torch.tensor([tokenizer(" ".join((CHECKED_TEXT, *texts)))["input_ids"]], device=model.device)
    ids = ids[:, : min(CHECKED_TOKENS, getattr(model.config.get_text_config(), "max_position_embeddings", inf))]
    return options, partial(_read_loaded, model, ids, _run(model, ids, options.layer))


class _Enough(Exception):
    """The last layer that is needed has run."""


@torch.no_grad()
def _run(model: "PreTrainedModel", ids: Tensor, last: int) -> dict[int, Tensor]:
    """The output `[1, s, d]` of each layer up to `last` in the model without ARM, for ids `[1, s]`."""
    outputs = dict[int, Tensor]()

    def store(index: int, _module: nn.Module, _arguments: object, output: Tensor | tuple[Tensor, ...]) -> None:
        outputs[index] = output if isinstance(output, Tensor) else output[0]
        if index == last:
            raise _Enough

    with working("checking the loaded model"), suppress(_Enough), ExitStack() as stack:
        for attachment in attached(model):
            stack.enter_context(attachment.paused())
        for index, layer in enumerate(find_decoder(model)[1]):
            stack.callback(layer.register_forward_hook(partial(store, index)).remove)
        model(input_ids=ids, use_cache=False)
    return outputs


def _read_loaded(model: "PreTrainedModel", ids: Tensor, outputs: dict[int, Tensor], layer: int) -> Layer1:
    """Copies one layer of a loaded model; raises ChangedModelError if it computes another output in the model.

    `Layer1` knows the weights and the configuration, but no hook and no module that was put in another's place.
    """
    try:
        copied = Layer1.from_model(model, layer)
    except UnsupportedModelError as error:  # other tensors, as of an adapter or of quantised weights
        raise ChangedModelError(f"model: layer {layer} is not as its configuration says ({error})") from error
    difference, weight = _difference(copied, ids, outputs), copied.Output.weight
    precision = torch.finfo(weight.dtype).eps
    limit = max(HALF_ROUNDINGS * precision, FLOAT_ROUNDINGS * torch.finfo(torch.float32).eps)
    if difference > limit:
        raise ChangedModelError(
            f"model: layer {layer} of the loaded model computes something else than its configuration says (a hook, a "
            f"replaced module?): a relative difference of {difference:.2g}, of which rounding in {weight.dtype} "
            f"explains {limit:.2g}; undo the change, or pass the model's folder or hub id"
        )
    return copied


@torch.no_grad()
def _difference(copied: Layer1, ids: Tensor, outputs: dict[int, Tensor]) -> float:
    """How far a layer's output in the model is from `Layer1`'s: at its worst token, the mean relative to the values.

    A value's rounding error is relative to the sizes of what the layer adds up, its input and its own contribution.
    """
    layer, weight = copied.options.layer, copied.Output.weight
    if not outputs.keys() >= {layer, layer - 1} - {-1}:  # the model skips it
        return inf
    # The output of the layer before, so that a changed input is detected, too.
    x = outputs[layer - 1].to(weight) if layer else copied.embed(ids.to(weight.device))
    x, y, expected = x.double(), copied(x).double(), outputs[layer].to(weight.device).double()
    if not torch.equal(y.isfinite(), expected.isfinite()):
        return inf
    size = x.abs() + expected.abs() + (expected - x).square().mean(-1, keepdim=True).sqrt()
    relative = ((y - expected).abs() / size).nan_to_num()  # 0 / 0; values that overflow are refused elsewhere
    return relative.mean(-1).max().item()
