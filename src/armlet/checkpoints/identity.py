"""Identifies a model: its folder, and a hash of the files that determine its answers."""

import hashlib
from pathlib import Path

from armlet.checkpoints.folder import named_folder
from armlet.checkpoints.pretrained import download

HASHED_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""The files that determine a model's answers."""


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
