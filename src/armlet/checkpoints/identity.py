"""Which model answers: its folder, the embedded one's included, and the hash of what decides its answers."""

import hashlib
from pathlib import Path

from armlet.checkpoints.folder import named_folder
from armlet.checkpoints.pretrained import download

ABACUS = "abacus"

HASHED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""What decides what a model answers."""


def abacus() -> Path:
    """The folder of the embedded model."""
    return Path(__file__).parent / ABACUS


def model_folder(model: str) -> Path:
    """The folder of `ABACUS`, of a model by its folder, or of one by its hub id, brought into the hub's cache.

    Raises:
        CheckpointError: there is no such model.
    """
    return abacus() if model == ABACUS else named_folder(model) or download(model)


def fingerprint(folder: Path) -> str:
    """sha256 over the names and contents of a model's files."""
    total = hashlib.sha256()
    for file in sorted({file for pattern in HASHED for file in folder.glob(pattern)}):
        with file.open("rb") as content:
            total.update(f"{file.name}\n{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
