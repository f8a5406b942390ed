"""`--policy help`: every setting of every policy, built in or of an installed package, as tables."""

from itertools import groupby
from textwrap import fill
from typing import TypeVar

from rich.table import Table
from typer import Exit, Option
from typer.models import OptionInfo

from armlet.presentation.tables import titled_table
from armlet.presentation.terminal import print_tables
from armlet.redistribution.built_in import PUBLISHED
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policies import Knob, first_docstring_line, installed_knobs, knobs
from armlet.redistribution.presets import PUBLISHED_SETTINGS, PUBLISHED_TASKS
from armlet.redistribution.registry import installed_class, installed_names, package_of

POLICY_HELP = "help"
NARROW = 80  # characters of a line in any terminal
WIDEST = 30  # characters of a column before its text is wrapped

USAGE = f"""\
Write a policy as name:setting=value,setting=value, and a pair as low/high:
  outward:band=0.2,share=0.02/0.25
The paper's setting for a model and a task (arXiv 2510.01032):
  {PUBLISHED}:Qwen2.5-Math-7B/AIME24
A policy of your own, a class in a file that is run (docs/howto/own_policy.md):
  file.py:Class or file.py:Class:setting=value"""

PolicyText = TypeVar("PolicyText", str, list[str], None)


def policy_option(help: str, *names: str) -> OptionInfo:
    """An option for one policy or several, which explains them if the value is `help`."""
    return Option(*names, callback=_explain_policies, is_eager=True, help=help)


def _explain_policies(value: PolicyText) -> PolicyText:
    """Prints all settings and exits with 0 if the value is `help`; returns any other value."""
    if POLICY_HELP in ([value] if isinstance(value, str) else value or []):
        for policy, settings in groupby(knobs(), lambda knob: knob.policy):
            print_tables(_knobs_table(policy, list(settings)))
            print()
        for name in installed_names():
            _show_installed(name)
            print()
        print(USAGE)
        print_tables(_published_table())
        raise Exit
    return value


def _show_installed(name: str) -> None:
    """The settings of a policy that a package registers, or why it cannot be used, which hides no other policy."""
    try:
        table, policy = _knobs_table(name, installed_knobs(name)), installed_class(name)
    except ArgumentError as error:
        print(fill(f"{name}: cannot be used ({error})", NARROW))
        return
    assert policy is not None
    print_tables(table)
    print(fill(f"of {package_of(name)}: {first_docstring_line(policy)}", NARROW))


def _published_table() -> Table:
    """The models and the tasks for which a setting was published."""
    table = titled_table(PUBLISHED, ("MODEL", "TASK, on whose test set the setting was chosen"))
    table.columns[1].justify, table.columns[1].no_wrap = "left", False
    for model, settings in PUBLISHED_SETTINGS.items():
        tasks = (task for task, setting in zip(PUBLISHED_TASKS, settings, strict=True) if setting)
        table.add_row(model, ", ".join(tasks))
    return table


def _knobs_table(policy: str, settings: list[Knob]) -> Table:
    table = titled_table(policy, ("setting", "default", "allowed", "paper", "meaning"))
    table.padding = (0, 1, 0, 0)
    for column in table.columns:
        column.justify, column.no_wrap, column.max_width = "left", False, WIDEST
    for knob in settings:
        default = "/".join(map(str, knob.default)) if isinstance(knob.default, tuple) else str(knob.default)
        table.add_row(knob.name, default, knob.allowed, knob.paper, knob.meaning)
    return table
