"""Opens a model to read it layer by layer."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from rich.markup import escape

from armlet.checkpoints.checkpoint import Checkpoint, open_checkpoint
from armlet.checkpoints.folder import named_folder
from armlet.checkpoints.pretrained import check_device, default_model, download, load_tokenizer, parse_dtype
from armlet.commands.options import ComputeOptions
from armlet.layer.decoder import Layer1
from armlet.layer.options import Options, read_options
from armlet.presentation.terminal import notes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class OpenedModel:
    """A checkpoint, from a folder or hub id, before any layer is read."""

    name: str
    checkpoint: Checkpoint
    tokenizer: "PreTrainedTokenizerBase"
    options: Options  # options of the last layer to read
    dtype: torch.dtype | None  # dtype of the weights; None keeps the checkpoint's
    device: str | None  # device of the layers; None leaves them on the CPU

    def layers(self) -> Iterator[Layer1]:
        """Loads layer 0 to the last necessary layer, one at a time."""
        for layer in range(self.options.layer + 1):
            yield Layer1.from_checkpoint(self.checkpoint, layer).to(device=self.device, dtype=self.dtype)


def open_model(model: str | None, compute: ComputeOptions, *, last: int | None = None) -> OpenedModel:
    """Opens a checkpoint, or the default one, to read the layers up to `last` (all if None)."""
    check_device(compute.device)
    name, dtype = model or default_model(), parse_dtype(compute.dtype)
    with notes.status(escape(f"opening {name} ...")):
        # If all layers are read, the whole model is downloaded and kept; else only the tensors of the layers.
        whole = last is None and named_folder(name) is None
        checkpoint = open_checkpoint(download(name) if whole else name)
        last = checkpoint.layers - 1 if last is None else last
        options = read_options(checkpoint.config, last)  # refuses an unsupported model before anything slow
        return OpenedModel(name, checkpoint, load_tokenizer(name), options, dtype, compute.device)
