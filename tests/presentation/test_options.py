"""Groups of options check their values as typer checks the command's, and spread over a function's arguments."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import pytest
from typer import Option

from armlet.presentation.options import OptionGroup
from armlet.redistribution.errors import ArgumentError

Place = Literal["before", "end"]


@dataclass(frozen=True)
class Sampling(OptionGroup):
    """Options with ranges."""

    samples: Annotated[int, Option(min=1)] = 1
    share: Annotated[float, Option(min=0.5, max=1)] = 1.0
    most: Annotated[int | None, Option(min=2, max=5)] = None
    free: Annotated[str, Option()] = ""
    plain: int = 0


@dataclass(frozen=True)
class Places(OptionGroup):
    """Options with choices."""

    place: Annotated[Place, Option()] = "before"
    other: Annotated[Place | None, Option()] = None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"samples": 0}, "samples: expected an integer of at least 1, found 0"),
        ({"samples": 1.0}, "samples: expected an integer of at least 1, found 1.0"),
        ({"samples": True}, "samples: expected an integer of at least 1, found True"),
        ({"samples": None}, "samples: expected an integer of at least 1, found None"),
        ({"samples": "2"}, "samples: expected an integer of at least 1, found '2'"),
        ({"share": 0.4}, "share: expected a number from 0.5 to 1, found 0.4"),
        ({"share": 1.1}, "share: expected a number from 0.5 to 1, found 1.1"),
        ({"share": float("nan")}, "share: expected a number from 0.5 to 1, found nan"),
        ({"share": False}, "share: expected a number from 0.5 to 1, found False"),
        ({"most": 6}, "most: expected an integer from 2 to 5, found 6"),
        ({"free": 3}, "free: expected text, found 3"),
        ({"most": 2.5}, "most: expected an integer from 2 to 5, found 2.5"),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(values, message):
    with pytest.raises(ArgumentError) as caught:
        Sampling(**values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"samples": 1},
        {"share": 0.5},
        {"share": 1},
        {"most": 2},
        {"most": 5},
        {"most": None},
        {"free": "x", "plain": None},
    ],
    ids=str,
)
def test_bounds_are_in_the_range_and_what_is_no_option_is_not_checked(values):
    assert vars(Sampling(**values)) == vars(Sampling()) | values


@pytest.mark.parametrize("name", ["place", "other"])
def test_a_value_that_is_no_choice_is_refused_also_if_none_is_allowed(name):
    with pytest.raises(ArgumentError, match=rf"^{name}: expected one of before, end, found 'inside'$"):
        Places(**{name: "inside"})
    assert getattr(Places(**{name: "end"}), name) == "end"


def test_numbers_of_numpy_become_those_of_python():
    group = Sampling(samples=np.int64(2), share=np.float64(0.5))
    assert [type(number) for number in (group.samples, group.share)] == [int, float]


def test_none_is_a_choice_only_where_it_is_allowed():
    assert Places(other=None).other is None
    with pytest.raises(ArgumentError, match=r"^place: expected one of before, end, found None$"):
        Places(place=None)


def test_changed_options_are_refused_by_name_and_those_at_their_defaults_are_not():
    changed = Sampling(samples=3, share=1)
    changed.refuse_changed("has no effect here", "share", "most")
    Sampling().refuse_changed("has no effect here")
    for names in ((), ("samples",), ("share", "samples")):
        with pytest.raises(ArgumentError, match=r"^samples: has no effect here; leave it out$"):
            changed.refuse_changed("has no effect here", *names)
