"""The page of commands, from the command line itself."""

from itertools import groupby
from typing import Any

import typer

from armlet.cli import QUESTIONS, application
from armlet.commands.lm_eval import HELP, lm_eval
from armlet.commands.policy_help import USAGE
from armlet.redistribution.policies import Knob, knobs
from generators.markdown import table

HEADER = """# Commands

What `armlet --help`, `armlet COMMAND --help` and `--policy help` print. A MODEL is a folder or a hub id.

- Bad input exits with 2 and one line on stderr. Ctrl-C exits with 130 and shows what there is.
- With `--json`, stdout has the result and nothing else.
- `--out` is a folder for tables, figures and JSON ([file formats](formats.md)).
"""
POLICIES = "## Policies and their settings"


def page() -> str:
    """The page."""
    group = typer.main.get_group(application())
    root = group.make_context("armlet", ["inspect"], resilient_parsing=True)
    lines = [HEADER, *_contents()]
    for question, words in QUESTIONS.items():
        lines += [f"## {question}", ""]
        for name, word in words.items():
            lines += _command(group.commands[name], name, word, root)
    return "\n".join([*lines, *_policies()])


def _contents() -> list[str]:
    rows = [
        (question, " · ".join(f"[{name}](#armlet-{name})" for name in words)) for question, words in QUESTIONS.items()
    ]
    return [
        *table(("question", "commands"), rows),
        "",
        "The settings of `--policy`: [below](#policies-and-their-settings).",
        "",
    ]


def _command(command: Any, name: str, word: Any, root: Any) -> list[str]:
    """A command's section; typer keeps its own copy of click private."""
    context = type(root)(command, info_name=name, parent=root)
    usage = command.get_usage(context).removeprefix("Usage: ").replace("{", "").replace("}", "")
    lines = [f"### armlet {name}", "", " ".join((word.command.__doc__ or "").split()), ""]
    if word.command is lm_eval:
        lines += ["```text", HELP.strip(), "```", ""]
    else:
        lines += ["```text", usage, "```", ""]
    lines += ["<!-- test: parse only: the model, the folders and the server of an example are the reader's -->"]
    lines += ["```sh", f"armlet {name} {word.example}", "```", ""]
    records = [parameter.get_help_record(context) for parameter in command.params]
    rows = [(f"`{declared}`", meaning) for declared, meaning in filter(None, records)]
    return [*lines, *table(("argument or option", "meaning"), rows), ""] if rows else lines


def _policies() -> list[str]:
    lines = [POLICIES, "", "```text", USAGE, "```", ""]
    for policy, settings in groupby(knobs(), lambda knob: knob.policy):
        lines += [
            f"### {policy}",
            "",
            *table(("setting", "default", "allowed", "paper", "meaning"), map(_knob, settings)),
            "",
        ]
    return lines


def _knob(knob: Knob) -> tuple[str, ...]:
    default = "/".join(map(str, knob.default)) if isinstance(knob.default, tuple) else str(knob.default)
    return f"`{knob.name}`", f"`{default}`", knob.allowed, knob.paper or "", knob.meaning
