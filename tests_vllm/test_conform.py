"""`armlet conform --engine vllm`: vLLM's own MLPs with and without a clamp."""

from functools import partial

import pytest

from armlet.bounds.conform_parts import Clamp
from armlet.integrations.vllm import conformity

LIMIT = 2.0


@pytest.fixture
def expecting_clamps(monkeypatch):
    """As if the configuration named a clamp in layers 0 and 2."""
    clamps = {(layer, ""): Clamp(LIMIT, LIMIT) for layer in (0, 2)}
    monkeypatch.setattr(conformity, "configured_clamps", lambda _: clamps)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.usefixtures("expecting_clamps")
def test_a_model_without_clamps_does_not_conform(tiny_model, dtype):
    folder, _ = tiny_model("llama")
    result = conformity.check_vllm(str(folder), dtype=dtype)
    assert [(part.layer, part.status) for part in result.parts] == [(0, "NO"), (1, None), (2, "NO")]
    assert [verdict.applied for part in result.parts for verdict in part.verdicts] == [None] * 4
    assert (result.conforms, result.engine, result.dtype) == (False, "vllm", dtype)


@pytest.mark.parametrize(("limit", "conforms"), [(LIMIT, True), (2 * LIMIT, False)])
@pytest.mark.usefixtures("expecting_clamps")
def test_a_clamped_activation_conforms_at_its_limit(tiny_model, monkeypatch, limit, conforms):
    from vllm.model_executor.layers.activation import SiluAndMulWithClamp
    from vllm.model_executor.models import llama

    monkeypatch.setattr(llama, "SiluAndMul", partial(SiluAndMulWithClamp, limit))
    folder, _ = tiny_model("llama")
    result = conformity.check_vllm(str(folder), dtype="float32")
    assert result.conforms is conforms
    if not conforms:
        assert {round(verdict.applied, 1) for part in result.parts for verdict in part.verdicts} == {limit}


@pytest.mark.usefixtures("expecting_clamps")
def test_experts_are_not_verified(tiny_model):
    folder, _ = tiny_model("qwen2_moe")
    result = conformity.check_vllm(str(folder), dtype="float32")
    routed = [part for part in result.parts if part.kind == "routed" and part.clamp]
    assert [part.reason for part in routed] == [conformity.FUSED_EXPERTS] * 2
    assert {part.status for part in result.parts if part.kind == "shared" and part.clamp} == {"NO"}


def test_a_configuration_without_clamps_has_nothing_to_check(tiny_model):
    folder, _ = tiny_model("llama")
    result = conformity.check_vllm(str(folder), dtype="float32")
    assert result.sentences() == ["the configuration names no clamp, and none is checked"]
