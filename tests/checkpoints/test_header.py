"""`checkpoints/header.py` reads what safetensors has written, and refuses false headers."""

import json

import pytest
import torch
from safetensors.torch import save, save_file

from armlet.checkpoints.header import FLOATS, LENGTH_BYTES, HeaderError, TensorEntry, header_length, parse_header

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).view(2, 3),
    "b": torch.tensor(1.5, dtype=torch.bfloat16),
    "c": torch.zeros(0, 4, dtype=torch.float64),
    "d": torch.ones(5, dtype=torch.int8),
    "e": torch.ones(3, dtype=torch.float16),
}


def entries(file):
    length = header_length(file[:LENGTH_BYTES], len(file))
    return parse_header(file[LENGTH_BYTES : LENGTH_BYTES + length], len(file))


def test_each_tensor_stands_where_the_header_says():
    file = save(TENSORS, metadata={"format": "pt"})
    found = entries(file)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        entry = found[name]
        assert entry.shape == tuple(tensor.shape)
        if entry.dtype in FLOATS:
            assert entry.size == tensor.nbytes
        if entry.dtype in FLOATS and tensor.numel():
            data = bytearray(file[entry.start : entry.start + entry.size])
            assert torch.equal(torch.frombuffer(data, dtype=FLOATS[entry.dtype]).view(tensor.shape), tensor)


LIES = {
    "not an object": [],
    "a tensor that is no object": {"a": 1},
    "metadata that is a list": {"__metadata__": []},
    "metadata with a number": {"__metadata__": {"rank": 8}},
    "half a surrogate pair in a name": {"a\ud83d": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    "no offsets": {"a": {"dtype": "F32", "shape": [1]}},
    "three offsets": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}},
    "a dtype that is no name": {"a": {"dtype": [], "shape": [1], "data_offsets": [0, 4]}},
    "a shape that is a number": {"a": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}},
    "a negative shape": {"a": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}},
    "a shape of fractions": {"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}},
    "a shape that is a truth": {"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
    "a shape that does not fit": {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
    "an end before the begin": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
    "bytes before the tensors": {"a": {"dtype": "F16", "shape": [1], "data_offsets": [2, 4]}},
    "bytes behind the tensors": {"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}},
    "tensors beyond the file": {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
    "tensors that overlap": {
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "F16", "shape": [1], "data_offsets": [2, 4]},
    },
}


def test_the_truth_is_believed():
    told = json.dumps({"__metadata__": {}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    assert parse_header(told, LENGTH_BYTES + len(told) + 4) == {"a": TensorEntry("F32", (1,), LENGTH_BYTES + len(told))}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_header_that_lies_is_not_believed(lie):
    told = json.dumps(lie).encode()
    with pytest.raises(HeaderError, match=r"^(its header|its tensors|a has|b has|b begins|a begins)"):
        parse_header(told, LENGTH_BYTES + len(told) + 4)


def test_a_dtype_that_the_format_gains_is_kept_by_its_name():
    told = json.dumps({"a": {"dtype": "F7", "shape": [1], "data_offsets": [0, 4]}}).encode()
    assert parse_header(told, LENGTH_BYTES + len(told) + 4)["a"].dtype == "F7"


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"[" * 100_000, b"\xef\xbb\xbf{}", "{}".encode("utf-16-le")])
def test_a_header_that_is_not_json_is_not_believed(text):
    with pytest.raises(HeaderError, match="not JSON"):
        parse_header(text, LENGTH_BYTES + len(text))


@pytest.mark.parametrize("length", [0, 1, 93, 2**63, 100_000_001])
def test_a_header_longer_than_the_file_or_the_format_allows_is_not_read(length):
    with pytest.raises(HeaderError, match=f"its header should have {length} bytes"):
        header_length(length.to_bytes(LENGTH_BYTES, "little"), 100 if length < 100_000_000 else 10**12)


def test_what_safetensors_refuses_is_refused_here(tmp_path):
    """safetensors refuses the same false headers, so that neither reader is stricter."""
    from safetensors import SafetensorError, safe_open

    save_file(TENSORS, tmp_path / "a")
    for name, lie in LIES.items():
        told = json.dumps(lie).encode()
        (tmp_path / "a").write_bytes(len(told).to_bytes(LENGTH_BYTES, "little") + told + bytes(4))
        with pytest.raises(SafetensorError), safe_open(tmp_path / "a", framework="pt"):
            pytest.fail(name)
