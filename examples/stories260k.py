"""Makes a Hugging Face folder of stories260K, a Llama of 260,032 parameters that writes children's stories.

Run: python examples/stories260k.py FOLDER_WITH_stories260K.bin_AND_tok512.bin OUT
It reads the legacy export of llama2.c: a header of seven int32, then float32 tensors; see `SHAPES`.
"""

import struct
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

FIELDS = ("dim", "hidden", "layers", "heads", "kv_heads", "vocab", "length")
SHAPES = {
    "embed_tokens": ("vocab", "dim"),
    "input_layernorm": ("layers", "dim"),
    "self_attn.q_proj": ("layers", "dim", "dim"),
    "self_attn.k_proj": ("layers", "kv_dim", "dim"),
    "self_attn.v_proj": ("layers", "kv_dim", "dim"),
    "self_attn.o_proj": ("layers", "dim", "dim"),
    "post_attention_layernorm": ("layers", "dim"),
    "mlp.gate_proj": ("layers", "hidden", "dim"),
    "mlp.down_proj": ("layers", "dim", "hidden"),
    "mlp.up_proj": ("layers", "hidden", "dim"),
    "norm": ("dim",),
}
"""The file's tensors in order, with the names of transformers; two unused tables of rotations follow."""


def read_model(path: Path) -> LlamaForCausalLM:
    """Reads the model, in eval mode."""
    content = path.read_bytes()
    sizes: dict[str, int] = dict(zip(FIELDS, struct.unpack_from("<7i", content), strict=True))
    sizes["kv_dim"] = sizes["dim"] // sizes["heads"] * sizes["kv_heads"]
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=sizes["vocab"],
            hidden_size=sizes["dim"],
            intermediate_size=sizes["hidden"],
            num_hidden_layers=sizes["layers"],
            num_attention_heads=sizes["heads"],
            num_key_value_heads=sizes["kv_heads"],
            max_position_embeddings=sizes["length"],
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
        )
    )
    weights = {f"model.{name}.weight": tensor for name, tensor in _tensors(content, sizes)}
    model.load_state_dict(weights | {"lm_head.weight": weights["model.embed_tokens.weight"]})
    return model.eval()


def _tensors(content: bytes, sizes: dict[str, int]) -> Iterator[tuple[str, Tensor]]:
    offset = 4 * len(FIELDS)
    for name, dimensions in SHAPES.items():
        shape = [sizes[dimension] for dimension in dimensions]
        tensor = torch.from_numpy(np.frombuffer(content, "<f4", prod(shape), offset).reshape(shape).copy())
        offset += 4 * prod(shape)
        if dimensions[0] != "layers":
            yield name, tensor
            continue
        for layer, weight in enumerate(tensor):
            rotated = name.endswith(("q_proj", "k_proj"))
            yield f"layers.{layer}.{name}", _halves(weight, sizes["dim"] // sizes["heads"]) if rotated else weight


def _halves(weight: Tensor, head: int) -> Tensor:
    """Reorders a weight: RoPE rotates adjacent pairs in llama2.c, and the halves of a head in transformers."""
    return weight.view(-1, head // 2, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def read_tokenizer(path: Path, vocabulary: int) -> PreTrainedTokenizerFast:
    """Reads a byte-pair encoding that first merges the neighbours whose joint piece has the best score."""
    content, offset = path.read_bytes(), 4
    pieces: list[tuple[float, str]] = []
    for _ in range(vocabulary):
        score, length = struct.unpack_from("<fi", content, offset)
        pieces.append((score, content[offset + 8 : offset + 8 + length].decode()))
        offset += 8 + length
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    ids = {piece: index for index, piece in enumerate(special + [piece for _, piece in pieces[len(special) :]])}
    scored = sorted(pieces[len(special) :], key=lambda piece: -piece[0])
    merges = [(p[:cut], p[cut:]) for _, p in scored for cut in range(1, len(p)) if p[:cut] in ids and p[cut:] in ids]
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Prepend(" ")  # pyright: ignore[reportAttributeAccessIssue]: a property of Rust
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def main(source: Path, out: Path) -> None:
    """Writes the folder."""
    model = read_model(source / "stories260K.bin")
    model.save_pretrained(out)
    read_tokenizer(source / "tok512.bin", model.config.vocab_size).save_pretrained(out)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except OSError as error:
        sys.exit(f"stories260k.py: {error}")
