"""Readers of tiny models for the tests of the page."""

from armlet.checkpoints.given import NamedModel
from armlet.playground.reading import Reader
from armlet.playground.setting import Setting
from families import tiny
from tiny_checkpoints import words

TEXT = "w3 w5 w9 w3 w7 w11 w2 w8 w6"


def reader(family="llama", **changes):
    """A reader of a tiny model, with a tokenizer of 64 words."""
    model = tiny(family, **changes)
    return Reader(NamedModel(f"tiny-{family}", model, words()))


def setting(**changes):
    """A setting whose text the tiny models can read."""
    return Setting(**{"text": TEXT, **changes})
