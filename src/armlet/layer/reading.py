"""Opens a model, from its files or loaded, to read it layer by layer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from armlet.checkpoints.checkpoint import open_checkpoint
from armlet.checkpoints.folder import named_folder
from armlet.checkpoints.given import Model, check_running_device, model_name, required_tokenizer
from armlet.checkpoints.pretrained import Dtype, download, load_tokenizer, parse_dtype
from armlet.layer.decoder import Layer1
from armlet.layer.options import Options, read_options
from armlet.presentation.terminal import working

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
) -> OpenedModel:
    """Opens a model to read the layers up to `last` (all if None), without ARM; errors about `last` name the `option`.

    Raises the errors of `Layer1.from_checkpoint`, and ArgumentError for a loaded model without its tokenizer.
    """
    check_running_device(device)
    name, weights_dtype = model_name(model), parse_dtype(dtype)
    if isinstance(model, nn.Module):
        tokenizer = required_tokenizer(tokenizer)
        config, layers = model.config, model.config.get_text_config().num_hidden_layers
        read = partial(Layer1.from_model, model)
    else:
        if tokenizer is not None:
            required_tokenizer(tokenizer)
        with working(f"opening {name}"):
            # If all layers are read, the whole model is downloaded and kept; else only the tensors of the layers.
            whole = last is None and named_folder(name) is None
            checkpoint = open_checkpoint(download(name) if whole else name)
            tokenizer = tokenizer or load_tokenizer(name)
        config, layers = checkpoint.config, checkpoint.layers
        read = partial(Layer1.from_checkpoint, checkpoint)
    options = read_options(config, layers - 1 if last is None else last, option)  # refuses before anything slow
    return OpenedModel(name, tokenizer, options, read, weights_dtype, device)
