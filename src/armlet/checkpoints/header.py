"""The header of a safetensors file: the dtype, shape and offset of each tensor in the file."""

import json
from math import prod
from typing import NamedTuple

import torch

# The dtypes that `Layer1` computes in. Any other dtype is quantised, and its values mean nothing without their scales.
FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}

LENGTH_BYTES = 8  # the file starts with the length of its header, little-endian
MAX_HEADER_BYTES = 100_000_000  # the format's own limit


class HeaderError(ValueError):
    """The header is not that of a valid safetensors file."""


class TensorEntry(NamedTuple):
    """One tensor of a file."""

    dtype: str  # the safetensors format's name of the dtype, such as "BF16"
    shape: tuple[int, ...]
    start: int = 0  # offset of the tensor's first byte in the file

    @property
    def size(self) -> int:
        """Size in bytes; defined only for the dtypes in `FLOATS`."""
        return prod(self.shape) * FLOATS[self.dtype].itemsize


def header_length(first: bytes, file_size: int) -> int:
    """The header's length in bytes, from the file's first 8 bytes; raises HeaderError if file or format forbid it."""
    length = int.from_bytes(first, "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, file_size - LENGTH_BYTES):
        raise HeaderError(f"its header should have {length} bytes, in a file of {file_size}")
    return length


def parse_header(header: bytes, file_size: int) -> dict[str, TensorEntry]:
    """The tensors of a file by name.

    Raises HeaderError if the header is malformed, or if its tensors do not fill the file exactly, without gaps.
    """
    try:
        content = json.loads(header.decode())  # a text without a byte order mark
        "".join(content).encode()  # names without half a surrogate pair
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"its header is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise HeaderError("its header is not a JSON object")
    metadata = content.pop("__metadata__", None)
    texts = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    if metadata is not None and not texts:
        raise HeaderError(f"its header has the metadata {str(metadata)[:100]}, which are not texts by name")
    first = end = LENGTH_BYTES + len(header)
    entries = {}
    for begin, stop, name, entry in sorted(_parse_entry(name, fields, first) for name, fields in content.items()):
        if begin != end:
            raise HeaderError(f"{name} begins at byte {begin} instead of {end}")
        entries[name], end = entry, stop
    if end != file_size:
        raise HeaderError(f"its tensors end at byte {end}, in a file of {file_size}")
    return entries


def _parse_entry(name: str, fields: object, first: int) -> tuple[int, int, str, TensorEntry]:
    """Returns a tensor's begin and end in the file, name and entry; `first` is the offset of the first tensor."""
    match fields:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]}:
            whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end)) and begin <= end
        case _:
            raise HeaderError(f"its header describes {name} as {str(fields)[:100]}")
    entry = TensorEntry(dtype, tuple(shape), first + begin if whole else 0)
    if not whole or (dtype in FLOATS and end - begin != entry.size):
        raise HeaderError(f"{name} has offsets {[begin, end]}, which do not fit {dtype} of shape {shape}")
    return entry.start, first + end, name, entry
