"""What armlet says about an SGLang that differs from the one that it was built for, without SGLang."""

from types import SimpleNamespace

import pytest

from armlet.integrations.sglang.seams import HOOKS, Hook, _problem, _refuse
from armlet.redistribution.errors import ArmletError


def of(target, *parameters):
    return _problem(Hook(target, parameters, "AROUND", print))


def test_a_function_that_is_gone_moved_or_takes_other_arguments_is_named():
    assert of("json.JSONDecoder.decode", "self", "s") is None
    assert of("json.JSONDecoder.nothing", "self").startswith("json.JSONDecoder.nothing: ")
    assert of("nowhere.module.name") == "nowhere.module.name: No module named 'nowhere'"
    assert of("json.JSONDecoder.decode", "self", "text") == "json.JSONDecoder.decode takes self, s, _w"


def test_such_an_sglang_is_refused_with_arm_alone():
    options = SimpleNamespace(json_model_override_args="{}", model_path="")
    _refuse(["a: gone"], options)
    options.json_model_override_args = '{"armlet": {"policy": "cut"}}'
    with pytest.raises(ArmletError, match=r"built for SGLang 0\.5\.23; this one differs: a: gone"):
        _refuse(["a: gone"], options)


def test_the_hook_that_refuses_is_on_what_every_engine_calls_first():
    assert HOOKS[0].target.endswith("ServerArgs.resolve_once")
