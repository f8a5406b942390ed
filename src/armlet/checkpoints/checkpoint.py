"""Out of a checkpoint, in a local folder or on a hub, only what is asked for: one layer, and the rows of some tokens.

Nothing is unpickled, and no foreign code is run.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from armlet.checkpoints.folder import CONFIG, CheckpointError, Files, Folder, Shard, explained, named_folder, weight_map
from armlet.checkpoints.header import FLOATS
from armlet.checkpoints.hub import Hub
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

PREFIXES = ("model.", "language_model.model.", "model.language_model.", "")
"""What stands before "layers.0." in a checkpoint, in the order in which it is tried."""

TABLE = "embed_tokens.weight"
BUFFER = "self_attn.rotary_emb.inv_freq"  # in old checkpoints; follows from the configuration


def open_checkpoint(directory_or_id: str | Path | Checkpoint) -> Checkpoint:
    """A checkpoint of which no tensor has been read.

    Args:
        directory_or_id: a folder with config.json and safetensors weights, or a hub id. What starts with ".", "/" or
            "~", exists here, or has more than one slash is a folder; the hub is not asked for it. Several layers out
            of one hub share what was read already where they are made from one `Checkpoint`.

    Raises:
        CheckpointError: no such checkpoint, or one that is incomplete, damaged, pickled or in need of code of its own.
    """
    if isinstance(directory_or_id, Checkpoint):
        return directory_or_id
    folder = named_folder(directory_or_id)
    return Checkpoint(Folder(folder) if folder else Hub(str(directory_or_id)))


class Checkpoint:
    """Made by `open_checkpoint`.

    Attributes:
        source: the folder or the hub id.
        config: Hugging Face's configuration.
        layers: how many there are.
        rows: from token ids `[b, s]` to rows of the embedding `[b, s, d]`, in the checkpoint's dtype.
    """

    def __init__(self, files: Files) -> None:
        self.source = files.name
        self.config = _config(files)
        self.layers: int = self.config.get_text_config().num_hidden_layers
        self._files = files
        self._homes = weight_map(files)
        self.rows = Rows(self)

    @cached_property
    def _prefix(self) -> str:
        for prefix in PREFIXES:
            if any(name.startswith(f"{prefix}layers.") for name in self._homes):
                return prefix
        raise CheckpointError(
            f"{self.source} has no decoder layers under the names {', '.join(f'{p}layers' for p in PREFIXES)}; "
            "name the checkpoint of a causal language model"
        )

    def read(self, layer: int) -> dict[str, Tensor]:
        """One layer's tensors, by their names behind "model.layers.N.".

        Those of a folder are views of its files, which must not change while the tensors live.

        Raises:
            ArgumentError: no such layer.
            CheckpointError: a tensor cannot be read, or is quantised.
        """
        stem, shards = self._layer(layer)
        size = sum(shard.entries[name].size for name, shard in shards.items())
        with self._files.progress(size, f"{self.source}, layer {layer}") as advance:
            tensors = {name.removeprefix(stem): shard.tensor(name, advance) for name, shard in shards.items()}
        return _alike(tensors, getattr(self.config.get_text_config(), "dtype", None))

    def shapes(self, layer: int) -> dict[str, Tensor]:
        """The same without values, on the "meta" device: only headers are read.

        Raises:
            ArgumentError, CheckpointError: as in `read`.
        """
        stem, shards = self._layer(layer)
        entries = {name.removeprefix(stem): shard.entries[name] for name, shard in shards.items()}
        return {name: torch.empty(e.shape, dtype=FLOATS[e.dtype], device="meta") for name, e in entries.items()}

    def _layer(self, layer: int) -> tuple[str, dict[str, Shard]]:
        """What stands before the names of one layer's tensors, and the file that holds each."""
        if not 0 <= layer < self.layers:
            raise ArgumentError(f"layer: {self.source} has layers 0 to {self.layers - 1}, found {layer}")
        stem = f"{self._prefix}layers.{layer:d}."
        names = [name for name in self._homes if name.startswith(stem) and name != stem + BUFFER]
        return stem, {name: self.shard_of(name) for name in names}

    def shard_of(self, name: str) -> Shard:
        """The file that holds a tensor, after a look at its header.

        Raises:
            CheckpointError: the file is not there, does not hold the tensor, or holds it quantised.
        """
        shard = self._files.shard(self._homes[name])
        if name not in shard.entries:
            raise CheckpointError(f"{self._files.place(self._homes[name])} lacks {name}; download the checkpoint again")
        dtype = shard.entries[name].dtype
        if dtype not in FLOATS:
            raise CheckpointError(
                f"{self.source} has {name} as {dtype}: Layer1 reads float64, float32, bfloat16 and float16; "
                "name a checkpoint that is not quantised"
            )
        return shard

    def table(self) -> tuple[str, Shard]:
        """The name of the embedding, and the file that holds it.

        Raises:
            CheckpointError: there is none, or none that can be read.
        """
        name, d_model = self._prefix + TABLE, self.config.get_text_config().hidden_size
        if name not in self._homes:
            raise CheckpointError(f"{self.source} has no {name}; name a complete checkpoint")
        shard = self.shard_of(name)
        shape = list(shard.entries[name].shape)
        if len(shape) != 2 or not shape[0] or shape[1] != d_model:
            raise CheckpointError(f"{self.source} has {name} of shape {shape}, expected [vocabulary, {d_model}]")
        return name, shard


class Rows(nn.Module):
    """An embedding without its table: a row is read when a token first needs it, and then kept."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._known: dict[int, Tensor] = {}

    def forward(self, input_ids: Tensor) -> Tensor:
        """Token ids `[b, s]` → `[b, s, d]` on the CPU, in the checkpoint's dtype.

        Raises:
            ArgumentError: an id that is not in the vocabulary.
            CheckpointError: rows cannot be read.
        """
        name, shard = self._checkpoint.table()
        entry = shard.entries[name]
        distinct, where = input_ids.unique(return_inverse=True)
        wanted = distinct.tolist()
        _check_ids(wanted, entry.shape[0])
        lacking = [index for index in wanted if index not in self._known]
        if lacking:
            self._known.update(zip(lacking, shard.rows(name, lacking), strict=True))
        if not wanted:
            return torch.empty(*input_ids.shape, *entry.shape[1:], dtype=FLOATS[entry.dtype])
        return torch.stack([self._known[index] for index in wanted])[where.cpu()]


def _alike(tensors: dict[str, Tensor], stated: Any) -> dict[str, Tensor]:
    """Tensors of several dtypes in the one that the configuration states, as transformers loads them."""
    dtypes = {tensor.dtype for tensor in tensors.values()}
    if len(dtypes) < 2:
        return tensors
    common = stated if isinstance(stated, torch.dtype) else max(dtypes, key=lambda dtype: dtype.itemsize)
    return {name: tensor.to(common) for name, tensor in tensors.items()}


def _check_ids(ids: list[Any], vocabulary: int) -> None:
    unknown = [index for index in ids if type(index) is not int or not 0 <= index < vocabulary]
    if unknown:
        raise ArgumentError(f"input_ids: the vocabulary has ids 0 to {vocabulary - 1}, found {unknown[0]}")


def _config(files: Files) -> PreTrainedConfig:
    from transformers import CONFIG_MAPPING

    settings = files.json(CONFIG)
    kind = known_kind(files, settings)
    with explained(f"{files.place(CONFIG)} is not a valid configuration of {kind}"):
        return CONFIG_MAPPING[kind].from_dict(settings)


def known_kind(files: Files, settings: dict[str, Any]) -> str:
    """The `model_type` of a configuration.

    Raises:
        CheckpointError: this version of transformers does not know it.
    """
    from transformers import CONFIG_MAPPING

    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise refused(files, settings, f"model_type {kind!r}, which this version of transformers does not know")
    return kind


def refused(files: Files, settings: dict[str, Any], found: str) -> CheckpointError:
    """Why a configuration is refused: for what was `found`, or for code that it brings."""
    if "auto_map" in settings:
        return CheckpointError(
            f"{files.name} needs Python code of its own (auto_map in {CONFIG}), which armlet does not run; "
            "load the model in Python, after reading that code, and call armlet.attach(model, policy)"
        )
    return CheckpointError(f"{files.place(CONFIG)} has {found}; name a causal language model")
