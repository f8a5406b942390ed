"""Tiny checkpoints with a tokenizer, saved to a folder: what the command line gets in place of a real model."""

import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from armlet.checkpoints.folder import INDEX_FILE, CheckpointError
from families import tiny

# The user's turn stands between w1 and w2, and w3 asks for the answer.
TEMPLATE = (
    "{% for turn in messages %}{% if turn['role'] == 'user' %}w1 {{ turn['content'] }} w2{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} w3{% endif %}"
)


def words(**special):
    """A tokenizer whose token i is the word "wi"; the last one, 63, is what it does not know."""
    known = Tokenizer(models.WordLevel({f"w{i}": i for i in range(63)} | {"[UNK]": 63}, unk_token="[UNK]"))
    known.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=known, unk_token="[UNK]", **special)


def save(folder, family="llama", *, template=None, generation=None, **changes):
    """Save `families.tiny` with a tokenizer, and `generation` in its generation_config.json; return the folder."""
    model = tiny(family, **changes)
    for name, value in (generation or {}).items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    tokenizer = words()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def saved(folder, family="llama", *, size="20KB", dtype=torch.float32, **changes):
    """Save `families.tiny` in shards of a size; return the model."""
    model = tiny(family, **changes).to(dtype)
    model.save_pretrained(folder, max_shard_size=size)
    return model


def shards_of(folder, part):
    """The files that hold the tensors whose names have a part."""
    homes = json.loads((folder / INDEX_FILE).read_text())["weight_map"]
    return {folder / file for name, file in homes.items() if part in name}


def only_in(folder, part, other):
    """A file that holds tensors of one part and none of the other."""
    return min(shards_of(folder, part) - shards_of(folder, other))


def refusal(act):
    """The message of the CheckpointError that an act ends in."""
    with pytest.raises(CheckpointError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)
