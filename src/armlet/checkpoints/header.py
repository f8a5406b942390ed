"""The header of a safetensors file: which tensors it holds, of which dtype and shape, and where each begins."""

from __future__ import annotations

import json
from math import prod
from typing import Any, NamedTuple

import torch

# What `Layer1` computes in; anything else is quantised, and its values mean nothing without their scales.
FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_NAMES = {
    4: "F4",
    6: "F6_E2M3 F6_E3M2",
    8: "BOOL U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E5M2FNUZ F8_E4M3FNUZ",
    16: "U16 I16 F16 BF16",
    32: "U32 I32 F32",
    64: "U64 I64 F64 C64",
}
BITS = {name: bits for bits, names in _NAMES.items() for name in names.split()}
"""Dtype, as the format names it → bits of one value."""

LENGTH = 8  # bytes before the header, which say how long it is
LONGEST = 100_000_000  # bytes of a header; the format allows no more


class Entry(NamedTuple):
    """One tensor of a file: its dtype by the format's name, its shape, and the byte of the file where it begins."""

    dtype: str
    shape: tuple[int, ...]
    start: int = 0

    @property
    def size(self) -> int:
        """In bytes."""
        return prod(self.shape) * BITS[self.dtype] // 8


def header_length(first: bytes, file: int) -> int:
    """How long the header is, from the first 8 bytes of a file of `file` bytes.

    Raises:
        ValueError: longer than the file or than the format allows.
    """
    length = int.from_bytes(first, "little")
    if not 2 <= length <= min(LONGEST, file - LENGTH):
        raise ValueError(f"its header should have {length} bytes, in a file of {file}")
    return length


def parse_header(header: bytes, file: int) -> dict[str, Entry]:
    """Tensors by name, of a file of `file` bytes.

    Raises:
        ValueError: the header is malformed, or its tensors do not fill the file exactly, each where the last one ends.
    """
    content = json.loads(header)
    if not isinstance(content, dict):
        raise ValueError("its header is not a JSON object")
    content.pop("__metadata__", None)
    origin = LENGTH + len(header)
    found = {name: _entry(name, stated, origin) for name, stated in content.items()}
    end = origin
    for name, entry in sorted(found.items(), key=lambda item: (item[1].start, item[1].size)):
        if entry.start != end:
            raise ValueError(f"{name} begins at byte {entry.start} instead of {end}")
        end += entry.size
    if end != file:
        raise ValueError(f"its tensors end at byte {end}, in a file of {file}")
    return found


def _entry(name: str, stated: Any, origin: int) -> Entry:
    try:
        dtype, shape, (begin, end) = stated["dtype"], tuple(stated["shape"]), stated["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
        fits = whole and (end - begin) * 8 == prod(shape) * BITS[dtype]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"its header describes {name} as {str(stated)[:100]}") from error
    if not fits:
        raise ValueError(f"{name} has offsets {[begin, end]}, which do not fit {dtype} of shape {list(shape)}")
    return Entry(dtype, shape, origin + begin)
