"""The header of a safetensors file: which tensors the file contains, their dtypes and shapes, and where they start."""

import json
from math import prod
from typing import NamedTuple

import torch

# The dtypes that `Layer1` computes in. Any other dtype is quantised, and its values mean nothing without their scales.
FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}

LENGTH_BYTES = 8  # at the start of a file: the length of the header that follows, little-endian
MAX_HEADER_BYTES = 100_000_000  # the format's own limit


class HeaderError(ValueError):
    """A header that no safetensors file has."""


class TensorEntry(NamedTuple):
    """One tensor of a file."""

    dtype: str  # the safetensors format's name for it, such as "BF16"
    shape: tuple[int, ...]
    start: int = 0  # offset of the tensor's first byte in the file

    @property
    def size(self) -> int:
        """In bytes; known for the dtypes in `FLOATS` only."""
        return prod(self.shape) * FLOATS[self.dtype].itemsize


def header_length(first: bytes, file_size: int) -> int:
    """In bytes, from the first 8 bytes of the file; HeaderError for more than the file or the format allows."""
    length = int.from_bytes(first, "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, file_size - LENGTH_BYTES):
        raise HeaderError(f"its header should have {length} bytes, in a file of {file_size}")
    return length


def parse_header(header: bytes, file_size: int) -> dict[str, TensorEntry]:
    """The tensors of a file by name.

    HeaderError where the header is malformed, or its tensors do not fill the file exactly, one directly after another.
    """
    try:
        content = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"its header is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise HeaderError("its header is not a JSON object")
    content.pop("__metadata__", None)
    first = end = LENGTH_BYTES + len(header)
    entries = {}
    for begin, stop, name, entry in sorted(_parse_entry(name, stated, first) for name, stated in content.items()):
        if begin != end:
            raise HeaderError(f"{name} begins at byte {begin} instead of {end}")
        entries[name], end = entry, stop
    if end != file_size:
        raise HeaderError(f"its tensors end at byte {end}, in a file of {file_size}")
    return entries


def _parse_entry(name: str, stated: object, first: int) -> tuple[int, int, str, TensorEntry]:
    """Where a tensor begins and ends in the file, its name, and its entry; `first` is where all tensors begin."""
    match stated:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]}:
            whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end)) and begin <= end
        case _:
            raise HeaderError(f"its header describes {name} as {str(stated)[:100]}")
    entry = TensorEntry(dtype, tuple(shape), first + begin if whole else 0)
    if not whole or (dtype in FLOATS and end - begin != entry.size):
        raise HeaderError(f"{name} has offsets {[begin, end]}, which do not fit {dtype} of shape {shape}")
    return entry.start, first + end, name, entry
