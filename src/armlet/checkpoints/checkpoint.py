"""Parts of a checkpoint in a local folder or on a hub: one layer, and the embedding rows of some tokens.

Only the requested parts are read. Nothing is unpickled, and no foreign code is run.
"""

from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from armlet.checkpoints.folder import CheckpointError, Files, Folder, Shard, named_folder
from armlet.checkpoints.header import FLOATS
from armlet.checkpoints.hub import Hub
from armlet.redistribution.errors import ArgumentError

PREFIXES = (
    "model.",
    "language_model.model.",
    "model.language_model.",
    "model.text_model.",
    "thinker.model.",
    "language_model.",
    "",
)
"""The possible prefixes of "layers.0." in a checkpoint, in the order in which they are tried."""

EMBEDDING = "embed_tokens.weight"
OUTPUT_TABLES = ("lm_head.weight", "language_model.lm_head.weight", "thinker.lm_head.weight")
"""The possible names of the table that a tied embedding shares, which a checkpoint may have alone."""

ROUTER_BIAS = "e_score_correction_bias"
ROTARY_BUFFER = "self_attn.rotary_emb.inv_freq"  # only in old checkpoints; the configuration determines it


def open_checkpoint(directory_or_id: "str | Path | Checkpoint") -> "Checkpoint":
    """Opens a checkpoint, in a folder or on a hub (see `named_folder`), without reading a tensor.

    Layers that are read from one `Checkpoint` share downloaded headers and rows. Raises
    CheckpointError if there is no such checkpoint, or if it is incomplete, damaged or pickled, or needs its own code.
    """
    if isinstance(directory_or_id, Checkpoint):
        return directory_or_id
    folder = named_folder(directory_or_id)
    return Checkpoint(Folder(folder) if folder else Hub(str(directory_or_id)))


class Checkpoint:
    """A checkpoint's layers and embedding; created by `open_checkpoint`."""

    def __init__(self, files: Files) -> None:
        self.source = files.name  # the folder or the hub id
        self.config = files.config()
        self.layers: int = self.config.get_text_config().num_hidden_layers
        self._files = files
        self._weight_map = files.weight_map()
        self.rows = EmbeddingRows(self)  # token ids `[b, s]` → `[b, s, d]`, in the checkpoint's dtype

    @cached_property
    def _prefix(self) -> str:
        for prefix in PREFIXES:
            if any(name.startswith(f"{prefix}layers.") for name in self._weight_map):
                return prefix
        raise CheckpointError(
            f"{self.source} has no decoder layers under the names {', '.join(f'{p}layers' for p in PREFIXES)}; "
            "name the checkpoint of a causal language model"
        )

    def read(self, layer: int) -> dict[str, Tensor]:
        """Reads one layer's tensors, by their names without the prefix "model.layers.N.".

        Tensors from a folder are views of its files, which must not change while the tensors are in use. Raises
        ArgumentError if there is no such layer, CheckpointError if a tensor cannot be read or is quantised.
        """
        prefix, shards = self._shards_of_layer(layer)
        size = sum(shard.entries[name].size for name, shard in shards.items())
        with self._files.progress(size, f"{self.source}, layer {layer}") as advance:
            tensors = {name.removeprefix(prefix): shard.tensor(name, advance) for name, shard in shards.items()}
        return _in_one_dtype(tensors, self.config.dtype or self.config.get_text_config().dtype)

    def shapes(self, layer: int) -> dict[str, Tensor]:
        """One layer's tensors without values, on the "meta" device. Reads only headers; raises what `read` raises."""
        prefix, shards = self._shards_of_layer(layer)
        entries = {name.removeprefix(prefix): shard.entries[name] for name, shard in shards.items()}
        return {name: torch.empty(e.shape, dtype=FLOATS[e.dtype], device="meta") for name, e in entries.items()}

    def _shards_of_layer(self, layer: int) -> tuple[str, dict[str, Shard]]:
        """Returns the prefix of a layer's tensor names, and the file that contains each tensor."""
        if not 0 <= layer < self.layers:
            raise ArgumentError(f"layer: {self.source} has layers 0 to {self.layers - 1}, found {layer}")
        prefix = f"{self._prefix}layers.{layer:d}."
        names = [name for name in self._weight_map if name.startswith(prefix) and name != prefix + ROTARY_BUFFER]
        return prefix, {name: self._shard_of(name) for name in names}

    def _shard_of(self, name: str) -> Shard:
        """Returns the file that contains a tensor; raises CheckpointError if the tensor is missing or quantised."""
        file = self._weight_map[name]
        shard = self._files.shard(file)
        if name not in shard.entries:
            raise CheckpointError(f"{self._files.place(file)} lacks {name}; download the checkpoint again")
        dtype = shard.entries[name].dtype
        if dtype not in FLOATS:
            raise CheckpointError(
                f"{self.source} has {name} as {dtype}: Layer1 reads float64, float32, bfloat16 and float16; "
                "name a checkpoint that is not quantised"
            )
        return shard

    def embedding(self) -> tuple[str, Shard]:
        """Returns the embedding's name and the file that contains it; raises CheckpointError if it cannot be read."""
        name, d_model = self._prefix + EMBEDDING, self.config.get_text_config().hidden_size
        if name not in self._weight_map and getattr(self.config, "tie_word_embeddings", False):
            name = next((table for table in OUTPUT_TABLES if table in self._weight_map), name)
        if name not in self._weight_map:
            raise CheckpointError(f"{self.source} has no {name}; use a complete checkpoint")
        shard = self._shard_of(name)
        shape = list(shard.entries[name].shape)
        if len(shape) != 2 or not shape[0] or shape[1] != d_model:
            raise CheckpointError(f"{self.source} has {name} of shape {shape}, expected [vocabulary, {d_model}]")
        return name, shard


class EmbeddingRows(nn.Module):
    """An embedding that reads a row when a token first needs it, and keeps it; the whole table is never loaded."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._rows: dict[int, Tensor] = {}

    def forward(self, input_ids: Tensor) -> Tensor:
        """Token ids `[b, s]` → `[b, s, d]` on the CPU, in the checkpoint's dtype.

        Raises ArgumentError for an id outside the vocabulary, CheckpointError if rows cannot be read.
        """
        name, shard = self._checkpoint.embedding()
        entry = shard.entries[name]
        distinct, positions = input_ids.unique(return_inverse=True)
        ids = distinct.tolist()
        unknown = [index for index in ids if not (type(index) is int and 0 <= index < entry.shape[0])]
        if unknown:
            raise ArgumentError(f"input_ids: the vocabulary has ids 0 to {entry.shape[0] - 1}, found {unknown[0]}")
        if missing := [index for index in ids if index not in self._rows]:
            self._rows.update(zip(missing, shard.rows(name, missing), strict=True))
        if not ids:
            return torch.empty(*input_ids.shape, *entry.shape[1:], dtype=FLOATS[entry.dtype])
        return torch.stack([self._rows[index] for index in ids])[positions.cpu()]


def _in_one_dtype(tensors: dict[str, Tensor], config_dtype: object) -> dict[str, Tensor]:
    """Casts tensors to the dtype that the configuration states, as transformers does, else to the widest of theirs.

    The router's bias keeps its dtype, in which experts are compared.
    """
    dtypes = {tensor.dtype for name, tensor in tensors.items() if not name.endswith(ROUTER_BIAS)}
    widest = max(dtypes, key=lambda dtype: dtype.itemsize, default=None)
    common = config_dtype if isinstance(config_dtype, torch.dtype) else widest
    return {name: tensor if name.endswith(ROUTER_BIAS) else tensor.to(common) for name, tensor in tensors.items()}
