"""What armlet needs of vLLM: this one has it, and one that lacks something serves without ARM alone."""

import inspect
from pkgutil import resolve_name

import pytest

from armlet.integrations.vllm import seams
from armlet.integrations.vllm.wrapping import Seam, missing_in_vllm
from armlet.redistribution.errors import ArmletError
from engines import engine, greedy

ALL = [seam for group in seams.SEAMS.values() for seam in group]


@pytest.fixture
def lacking(monkeypatch):
    """`lacking(time)`: as if this vLLM had one thing less of what is needed then."""

    def lack(time):
        first, *others = seams.SEAMS[time]
        changed = Seam(first.place, first.around, (*first.reads, "vllm.v1.request:Request.gone"))
        monkeypatch.setitem(seams.SEAMS, time, (changed, *others))

    return lack


def test_this_vllm_has_all_that_armlet_needs():
    assert not [place for group in seams.SEAMS.values() for place in missing_in_vllm(group)]


@pytest.mark.parametrize("seam", [seam for seam in ALL if "(" in seam.place], ids=lambda seam: seam.name)
def test_the_source_says_what_python_says_of_a_functions_parameters(seam):
    path, _, parameters = seam.place.partition("(")
    function = resolve_name(path)
    names = [name for name in inspect.signature(inspect.unwrap(function)).parameters if name not in ("self", "cls")]
    assert names[: parameters.count(",") + 1] == parameters.rstrip(")").split(", ")


@pytest.mark.parametrize("time", ["engine with ARM", "runner V1"])
def test_a_vllm_that_lacks_something_serves_without_arm_and_refuses_it_by_name(tiny_model, lacking, time):
    lacking(time)
    with engine(tiny_model("llama")[0]) as llm:
        assert greedy(llm, [[1, 2, 3]], 2)
    refused = pytest.raises(ArmletError, match=r"does not have vllm\.v1\.request:Request\.gone.*run with 0\.32\.0")
    with refused, engine(tiny_model("llama")[0], {"policy": "outward"}):
        pass


def test_a_vllm_in_which_armlet_cannot_see_a_setting_is_refused_at_once(lacking):
    lacking("engine")
    with pytest.raises(RuntimeError, match=r"Request\.gone.*VLLM_PLUGINS="):
        seams.wrap_vllm()
