"""Identifies a model: its folder, and a hash of what determines its answers, in files or loaded."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from armlet.checkpoints.folder import named_folder
from armlet.checkpoints.pretrained import download
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

HASHED_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""The files that determine a model's answers."""

ORIGIN_KEYS = {"_name_or_path", "transformers_version"}  # keys of a configuration that do not affect answers


def model_folder(model: str) -> Path:
    """The folder of a model (see `named_folder`); a hub id's is downloaded into the hub's cache."""
    return named_folder(model) or download(model)


def fingerprint(folder: Path) -> str:
    """The sha256 over the names and contents of a model's files, in hexadecimal."""
    total = hashlib.sha256()
    for file in sorted({file for pattern in HASHED_FILES for file in folder.glob(pattern)}):
        with file.open("rb") as content:
            total.update(f"{file.name}\n{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def loaded_fingerprint(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> str:
    """The sha256 over a loaded model's configuration and weights and its tokenizer, in hexadecimal.

    Covers the name, shape, dtype and bytes of each parameter and buffer of the state dict, and the tokenizer's
    vocabulary, special tokens and chat template. Tensors on a device are copied to the CPU one at a time.

    Raises ArgumentError if a weight has no values in memory, as an offloaded one.
    """
    config = {key: value for key, value in model.config.to_dict().items() if key not in ORIGIN_KEYS}
    text = (tokenizer.get_vocab(), tokenizer.special_tokens_map, tokenizer.chat_template)
    total = hashlib.sha256(json.dumps([type(model).__name__, config, text], sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_meta:
            raise ArgumentError(f"model: {name} has no values in memory; load the whole model, without offloading")
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        flat = tensor.cpu().contiguous().flatten()  # bfloat16 has no numpy dtype, and a scalar no view of its bytes
        total.update(flat.view(torch.uint8).numpy())
    return total.hexdigest()
