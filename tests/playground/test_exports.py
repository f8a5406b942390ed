"""What can be copied works as it is pasted, and says what it leaves out."""

import json
import shlex

import pytest

from armlet.checkpoints.given import NamedModel
from armlet.playground.exports import make_exports
from armlet.playground.reading import Reader
from families import tiny
from playgrounds import reader, setting
from tiny_checkpoints import words


def named(name, folder="a folder", family="llama"):
    return Reader(NamedModel(name, tiny(family), words(), folder))


@pytest.mark.parametrize("name", ["models/one", "my model; rm -rf x", "a'b", 'a"b'])
def test_the_command_for_vllm_is_one_argument_per_part(name):
    command = make_exports(named(name), setting()).codes["vLLM"]
    program, serve, model, option, config = shlex.split(command)
    assert (program, serve, model, option) == ("vllm", "serve", name, "--additional-config")
    assert json.loads(config) == {"armlet": "armlet.json"}


@pytest.mark.parametrize("opened", [named("abacus"), reader()], ids=["abacus", "a loaded model"])
def test_a_model_that_vllm_cannot_find_has_no_command(opened):
    assert "is neither" in make_exports(opened, setting()).codes["vLLM"]


def test_the_command_for_experts_names_a_kernel_in_which_arm_can_be():
    mixture = named("mixture", family="deepseek_v3")  # dense in layer 0
    assert "--moe-backend" not in make_exports(mixture, setting(layer=0)).codes["vLLM"]
    for changes in ({"layer": 1}, {"layer": 0, "everywhere": True}):
        assert "--moe-backend triton" in make_exports(mixture, setting(**changes)).codes["vLLM"]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"placebo": "matched"}, "The placebo is in the link alone"),
        ({"expert": 1}, "The chosen expert is in the link alone"),
        ({"sample": "modes"}, "The sample is in the link alone"),
    ],
)
def test_what_is_left_out_is_said(changes, note):
    assert make_exports(reader(), setting()).notes == []
    (sentence,) = make_exports(reader(), setting(**changes)).notes
    assert sentence.startswith(note)


def test_a_text_too_long_for_a_link_leaves_the_others():
    made = make_exports(reader(), setting(text="w3 " * 2000, sample="modes"))
    assert made.link == ""
    assert "There is no link. text: a link stores 4,000 characters" in made.notes[-1]
    assert set(made.codes) == {"Python", "vLLM", "armlet.json"}
