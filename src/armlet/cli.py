"""The command line: one table from command to function, and how a command ends.

Bad input exits 2 with one line on stderr; Ctrl-C exits 130 with what there is; `--json` puts the result on stdout and
nothing else.
"""

import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from armlet.commands.bench import bench
from armlet.commands.confirm import confirm
from armlet.commands.evaluate import evaluate
from armlet.commands.explain import explain
from armlet.commands.generate import generate
from armlet.commands.inspect import inspect
from armlet.commands.lm_eval import PASSED_ON, lm_eval, lm_eval_compare
from armlet.commands.options import flattened
from armlet.commands.quantize import quantize
from armlet.commands.tune import tune
from armlet.commands.vllm_check import vllm_check
from armlet.presentation.terminal import BAD_INPUT
from armlet.redistribution.errors import ArgumentError, ArmletError

COMMANDS: dict[str, Callable[..., None]] = {
    "inspect": inspect,
    "explain": explain,
    "generate": generate,
    "evaluate": evaluate,
    "tune": tune,
    "confirm": confirm,
    "quantize": quantize,
    "lm-eval": lm_eval,
    "lm-eval-compare": lm_eval_compare,
    "vllm-check": vllm_check,
    "bench": bench,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0, 2 for bad input, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    app = typer.Typer(
        help="The Activation Redistribution Module inside any open-weight model: see it, use it, measure it.",
        add_completion=False,
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_version)
    for name, command in COMMANDS.items():
        app.command(name, **(PASSED_ON if command is lm_eval else {}))(flattened(command))
    try:
        _check_text(arguments)
        sys.exit(app(arguments or ["--help"], prog_name="armlet", standalone_mode=False))
    except TyperException as error:
        _fail(error.format_message())
    except (ArmletError, OSError) as error:
        _fail(str(error))


def _version(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        print(importlib.metadata.version("armlet"))
        raise typer.Exit


def _fail(message: str) -> None:
    print(f"armlet: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _check_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:  # from a terminal of another encoding; neither tokenizers nor JSON take it
            raise ArgumentError(f"{argument!r} is no UTF-8 text") from None
