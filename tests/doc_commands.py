"""Commands on pages: each line of a block is checked against what it calls, and armlet's are run if that is possible.

A command is run with a tiny model in the place of a model, and with few items; its page's own numbers are parsed first.
"""

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

from armlet.cli import application
from armlet.evaluation.tasks.sources import HUB
from armlet.integrations.treatment import DEFAULTS, treatment
from armlet.integrations.vllm.settings import full_entry
from doc_blocks import ROOT

MODELS = re.compile(r"MODEL|(\./)?models/[\w.-]+|\w[\w-]*/[\w.-]*\d[\w.-]*[bBmMkK]\b[\w.-]*|openai/gpt-oss-20b")
"""What names a model on a page: the word, the folder of `make models`, and hub ids, which state a size."""

SMALL: Mapping[str, str] = {
    "--layer": "1",
    "--layers": "0-1",
    "--items": "4",
    "--windows": "4",
    "--calibration": "2",
    "--tokens": "8",
    "--max-new-tokens": "4",
    "--samples": "2",
    "--count": "4",
    "--turns": "2",
    "--trials": "2",
    "--shots": "1",
}
"""Smaller values than those of a page, where it states one."""

ADDED: Mapping[str, Sequence[tuple[str, str]]] = {
    "generate": [("--max-new-tokens", "4")],
    "explain": [("--count", "4"), ("--layers", "0")],
    "evaluate": [("--items", "4"), ("--max-new-tokens", "4")],
    "tune": [("--items", "8"), ("--trials", "2")],
    "quantize": [("--windows", "4"), ("--tokens", "8")],
    "limits": [("--windows", "4"), ("--tokens", "8")],
}
"""Options that keep a command small, where its page does not state them."""

ELSEWHERE: Mapping[str, str] = {
    r"^armlet (play|lm-eval|vllm-check)\b": "it serves, or runs another tool; its own tests run it",
    r"^armlet (report|confirm|lm-eval-compare|inspect-compare)\b": "it reads what the reader has; its own tests run it",
    r"^armlet bench(?!.*--only function)": "it times a real model; tests/cost runs it",
    r"^armlet study (?!.*--plan)": "it runs for minutes; tests/evaluation/studies runs small ones",
    r"--engine vllm|--endpoint": "it needs vLLM or a server; tests_vllm runs it",
    r"--allow-code-execution": "it needs bubblewrap; tests/evaluation/grading runs it",
    r"\.\.\.": "the dots stand for something of the reader's",
    rf"--task ({'|'.join(HUB)}|\S+/\S+)\b": "it needs a public hub",
    r"--ray": "it needs Ray; tests/evaluation/studies runs it",
}
"""Why a command is not run here, by a pattern of its line."""

HERE_DOCUMENT = re.compile(r"^cat > (\S+) <<'EOF'\n(.*?)^EOF$", re.MULTILINE | re.DOTALL)

UNCHECKED = {"cd", "source", "export", "git", "apt", "apt-get", "hf", "ls", "cat", "open"}
"""Programs that are not ours, of whose arguments nothing can be wrong by a change of ours."""


def here_documents(text: str) -> dict[str, str]:
    """The files that a block writes with `cat`, by name."""
    return dict(HERE_DOCUMENT.findall(text))


def commands(text: str) -> list[list[str]]:
    """The commands of a block as words; one may go on over lines, in quotes or after a backslash."""
    complete, line = list[list[str]](), ""
    for part in HERE_DOCUMENT.sub("", text).split("\n"):
        line += part
        if line.endswith("\\"):
            line = line[:-1]
            continue
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a quote is open
            line += "\n"
            continue
        complete += [words] if words else []
        line = ""
    if line:
        raise ValueError(f"a command does not end: {line!r}")
    return complete


def reason_elsewhere(words: Sequence[str]) -> str:
    """Why a command of armlet is not run here; empty if it is."""
    line = " ".join(words)
    return next((reason for pattern, reason in ELSEWHERE.items() if re.search(pattern, line)), "")


def check(words: Sequence[str]) -> None:
    """Checks a command against what it calls; raises AssertionError or an error of that if it is wrong."""
    program, *rest = words
    while "=" in program and rest:  # variables of its environment
        program, *rest = rest
    assert program in CHECKS or program in UNCHECKED, f"no check knows the program {program}"
    if program in CHECKS:
        CHECKS[program](rest)


def check_armlet(arguments: Sequence[str]) -> None:
    """Parses a command's options and their values; nothing is run."""
    group = typer.main.get_group(application())
    if arguments and not arguments[0].startswith("-"):
        assert arguments[0] in group.commands, f"armlet has no command {arguments[0]}"
        if arguments[0] == "lm-eval":
            (given,) = (value for name, value in pairwise(arguments) if name in ("-a", "--model_args"))
            return _check_pairs(given.split(","), "pretrained")
        if "help" not in arguments and "--help" not in arguments:
            group.commands[arguments[0]].make_context(arguments[0], list(arguments[1:]))
    else:
        assert {*arguments} <= {"--help", "--version"}, f"armlet has no {arguments}"
    return None


def _check_vllm(arguments: Sequence[str]) -> None:
    """`vllm serve`: armlet's settings."""
    for option, value in pairwise(arguments):
        if option == "--additional-config":
            settings = json.loads(value)["armlet"]
            assert settings is False or (isinstance(settings, str) and settings) or full_entry(settings)


def _check_sglang(arguments: Sequence[str]) -> None:
    """`sglang serve`: armlet's settings."""
    for option, value in pairwise(arguments):
        if option == "--json-model-override-args":
            assert full_entry(json.loads(value)["armlet"])


def _check_inspect(arguments: Sequence[str]) -> None:
    """`inspect eval`: the arguments of armlet's model provider."""
    given = [value for option, value in pairwise(arguments) if option == "-M"]
    _check_pairs(given, "do_sample", "arm_config")


def _check_pairs(pairs: Sequence[str], *others: str) -> None:
    """key=value arguments of another tool: the keys are armlet's or `others`, and say how ARM is attached."""
    stated: dict[str, Any] = dict(pair.split("=", 1) for pair in pairs)
    assert stated.keys() <= {*DEFAULTS, *others}, f"unknown keys in {pairs}"
    settings = {key: value for key, value in stated.items() if key in DEFAULTS}
    if "arm_config" not in stated:
        treatment({**DEFAULTS, **settings}, None)


def _check_curl(arguments: Sequence[str]) -> None:
    """`curl`: its body is JSON."""
    for option, value in pairwise(arguments):
        if option == "-d":
            json.loads(value)


def _check_make(arguments: Sequence[str]) -> None:
    """`make`: the Makefile has a rule for each target."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in arguments:
        assert "=" in target or re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"make {target}"


def _check_pip(arguments: Sequence[str]) -> None:
    """`pip install`: the extras are ours."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in re.findall(r"(?:armlet|\.)\[([\w,-]+)\]", " ".join(arguments)):
        assert {*extras.split(",")} <= project["optional-dependencies"].keys(), f"unknown extras: {extras}"


def _check_python(arguments: Sequence[str]) -> None:
    """`python`: a file of the repository, a module, or code, which is compiled."""
    if arguments[:2] == ["-m", "pip"]:
        return _check_pip(arguments[2:])
    if arguments[0] == "-c":
        compile(arguments[1], "-c", "exec")
        return None
    assert arguments[0] == "-m" or (ROOT / arguments[0]).is_file(), f"there is no {arguments[0]}"
    return None


CHECKS: Mapping[str, Callable[[Sequence[str]], None]] = {
    "armlet": check_armlet,
    "vllm": _check_vllm,
    "sglang": _check_sglang,
    "inspect": _check_inspect,
    "curl": _check_curl,
    "make": _check_make,
    "pip": _check_pip,
    "uv": _check_pip,
    "python": _check_python,
    "python3": _check_python,
}


def small(arguments: Sequence[str], model: Path) -> list[str]:
    """The command with a tiny model and few items."""
    name, *rest = arguments
    words = [str(model) if MODELS.fullmatch(word) else word for word in rest]
    for index, word in enumerate(words[:-1]):
        if word in SMALL:
            words[index + 1] = SMALL[word]
    return [name, *words, *_added(name, words)]


def _added(name: str, words: Sequence[str]) -> list[str]:
    """Options that keep a command small, but for one that only prints help."""
    if not {"help", "--help"}.isdisjoint(words):
        return []
    stated = {*words, "--items"} if "--budget" in words else {*words}
    return [word for option, value in ADDED.get(name, ()) if option not in stated for word in (option, value)]
