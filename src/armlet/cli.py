"""The command line: one table from command to function, and how a command ends.

Bad input exits with 2 and one line on stderr. Ctrl-C exits with 130 and shows partial results. `--json` writes only
the result to stdout.
"""

import importlib.metadata
import os
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
from armlet.commands.lm_eval import PASS_THROUGH, lm_eval, lm_eval_compare
from armlet.commands.quantize import quantize
from armlet.commands.tune import tune
from armlet.commands.vllm_check import vllm_check
from armlet.presentation.options import flattened
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
    """Runs one command and exits with 0, with 2 after bad input, or with 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # stderr is for the command's own messages
    app = typer.Typer(
        help="The Activation Redistribution Module inside any open-weight model: see it, use it, measure it.",
        add_completion=False,
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_version)
    for name, command in COMMANDS.items():
        app.command(name, **(PASS_THROUGH if command is lm_eval else {}))(flattened(command))
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
        except UnicodeEncodeError:  # the terminal has another encoding; tokenizers and JSON reject such text
            raise ArgumentError(f"{argument!r} is not UTF-8 text") from None
