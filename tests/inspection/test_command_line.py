"""The command line on a page reads the same values, and does not say where a folder is."""

import shlex

import pytest
import torch

from armlet.inspection.command_line import inspect_command, sample_arguments


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"model": None}, []),
        ({"model": "owner/name"}, ["owner/name"]),
        ({"model": None, "layer": 3, "site": "up"}, ["--layer", "3", "--site", "up"]),
        ({"model": "owner/name", "prompts": ["a b", "c's"]}, ["owner/name", "--prompt", "a b", "--prompt", "c's"]),
        ({"model": None, "dtype": torch.float32}, ["--dtype", "float32"]),
        ({"model": None, "synthetic": "modes"}, ["--synthetic", "modes"]),
    ],
)
def test_arguments_are_those_that_differ_from_the_defaults(asked, words):
    usual = {"layer": 0, "site": "gate", "prompts": (), "synthetic": None, "dtype": "auto"}
    assert list(sample_arguments(**(usual | asked))) == words


def test_a_folder_is_not_named(tmp_path):
    arguments = sample_arguments(tmp_path, 0, "gate", (), None, "auto")
    assert arguments == sample_arguments(str(tmp_path), 0, "gate", (), None, "auto") == ("MODEL",)


def test_a_shell_reads_the_line_as_it_was_meant():
    line = inspect_command(["--prompt", "what's $x?"], "call", 7, "outward:share=0.02/0.25")
    expected = ["--prompt", "what's $x?", "--scope", "call", "--seed", "7", "--policy", "outward:share=0.02/0.25"]
    assert shlex.split(line) == ["armlet", "inspect", *expected]
