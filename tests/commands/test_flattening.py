"""A command's groups of options become its options."""

from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Annotated

import pytest
from typer import Option

from armlet.commands.flattening import flattened
from armlet.presentation.options import OptionGroup
from armlet.redistribution.errors import ArgumentError

ASKED = []


@dataclass(frozen=True)
class Sampling(OptionGroup):
    """Two options."""

    samples: Annotated[int, Option(min=1)] = 1
    share: Annotated[float, Option(min=0.5, max=1)] = 1.0


@flattened
def ask(model: str, *, sampling: Sampling, seed: int = 0) -> None:
    """Keeps its arguments."""
    ASKED.append((model, sampling, seed))


def test_a_command_takes_the_fields_of_its_groups():
    ask("m", share=0.6, seed=4)
    assert ASKED.pop() == ("m", Sampling(share=0.6), 4)
    for wrong in ({"sampling": Sampling()}, {"unknown": 1}):
        with pytest.raises(TypeError):
            ask("m", **wrong)
    with pytest.raises(ArgumentError, match=r"^samples: expected an integer of at least 1, found 0$"):
        ask("m", samples=0)


def test_its_signature_lists_them_with_their_defaults_as_keyword_arguments():
    parameters = signature(ask).parameters
    assert [*parameters] == ["model", "samples", "share", "seed"]
    assert {parameter.kind for parameter in [*parameters.values()][1:]} == {Parameter.KEYWORD_ONLY}
    assert parameters["share"].default == 1.0
    assert ask.__annotations__["samples"] == signature(Sampling).parameters["samples"].annotation
    assert ask.__doc__ == "Keeps its arguments."
