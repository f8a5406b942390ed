"""The command line: one table from command to function, and how a command ends.

Bad input exits with 2 and one line on stderr. Ctrl-C exits with 130 and shows partial results. `--json` writes only
the result to stdout.
"""

import atexit
import gc
import importlib.metadata
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from shutil import get_terminal_size
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from armlet.commands.bench import bench
from armlet.commands.confirm import confirm
from armlet.commands.conform import conform
from armlet.commands.evaluate import evaluate
from armlet.commands.explain import explain
from armlet.commands.flattening import flattened
from armlet.commands.generate import generate
from armlet.commands.inspect import inspect
from armlet.commands.inspect_compare import inspect_compare
from armlet.commands.limits import limits
from armlet.commands.lm_eval import PASS_THROUGH, lm_eval, lm_eval_compare
from armlet.commands.play import play
from armlet.commands.quantize import quantize
from armlet.commands.report import report
from armlet.commands.study import study
from armlet.commands.tune import tune
from armlet.commands.vllm_check import vllm_check
from armlet.presentation.interruption import INTERRUPTED
from armlet.presentation.terminal import BAD_INPUT, accept_every_character, note
from armlet.redistribution.errors import ArgumentError, ArmletError


class Word(NamedTuple):
    """A word of the command line."""

    command: Callable[..., None]
    example: str  # arguments after the word; `abacus` is part of this package


QUESTIONS: Mapping[str, Mapping[str, Word]] = {
    "What does ARM do to a layer?": {
        "inspect": Word(inspect, "--policy outward:band=0.2 --policy inward"),
        "explain": Word(explain, "--layers 0-3 --count 0,10,40"),
        "play": Word(play, "abacus"),
    },
    "What does the model say?": {
        "generate": Word(generate, 'abacus "8*(36+27)-90+14" --policy outward'),
    },
    "Does it help?": {
        "evaluate": Word(evaluate, "abacus --items 400 --policy outward"),
        "report": Word(report, "armlet-runs/one armlet-runs/other --out report"),
        "tune": Word(tune, "abacus --items 400 --policy inward --run search"),
        "confirm": Word(confirm, "search"),
        "study": Word(study, "studies/small.toml --plan"),
        "lm-eval": Word(lm_eval, "-t piqa -a pretrained=Qwen/Qwen3-0.6B,policy=inward"),
        "lm-eval-compare": Word(lm_eval_compare, "baseline treated --out report"),
        "inspect-compare": Word(inspect_compare, "baseline.eval treated.eval --out report"),
    },
    "What does it buy, and cost?": {
        "quantize": Word(quantize, "abacus --windows 24"),
        "limits": Word(limits, "abacus --headroom 20"),
        "conform": Word(conform, "openai/gpt-oss-20b"),
        "bench": Word(bench, "--only function --widths 1536 --tokens 1,32"),
    },
    "Serving": {
        "vllm-check": Word(vllm_check, "Qwen/Qwen3-0.6B --policy inward --layers 0"),
    },
}
"""Every word of the command line, by the question that it answers."""

NAME_WIDTH = 10  # of the words' column in --help; a longer word has a line of its own


class QuestionGroup(TyperGroup):
    """Lists the words by question in --help, each with its example. Click's types are private in typer."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes each word's whole summary, and below it the example on a line of its own."""
        for question, words in QUESTIONS.items():
            formatter.write(f"\n{question}\n")
            for name, (command, example) in words.items():
                with formatter.indentation():
                    formatter.write_dl(
                        [(name.ljust(NAME_WIDTH), " ".join((command.__doc__ or "").split()))], NAME_WIDTH
                    )
                formatter.write(f"    $ armlet {name} {example}\n")


class OneValueCommand(TyperCommand):
    """Refuses an option that is given twice, unless it may be repeated: the parser would silently use the last."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the arguments; raises UsageError for a repeated option."""
        *_, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter, count in Counter(order).items():
            if count > 1 and not getattr(parameter, "multiple", False):
                ctx.fail(
                    f"Option '{parameter.opts[0]}' was given {count} times, and takes one value; leave out the others"
                )
        return super().parse_args(ctx, args)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits with 0, 1 if a part of its work failed, 2 after bad input, or 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    atexit.register(gc.freeze)  # or Python searches all objects of torch for garbage at exit, which takes seconds
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # stderr is for the command's own messages
    os.environ.pop("MPLBACKEND", None)  # a notebook's, for one; figures need none, and Matplotlib refuses unknown ones
    if os.environ.get("TERM") == "dumb" and sys.stdout and sys.stdout.isatty():  # for which rich assumes 80 columns
        for name, size in zip(("COLUMNS", "LINES"), get_terminal_size(), strict=True):
            os.environ.setdefault(name, str(size))
    accept_every_character()
    group = typer.main.get_group(application())
    try:
        _check_text(arguments)
        code = group(arguments or ["--help"], prog_name="armlet", standalone_mode=False)
        # Typer returns this code after a Ctrl-C that no command caught; a command with partial results exits itself.
        if code == INTERRUPTED:
            note("interrupted: there is no result")
        sys.exit(code)
    except TyperException as error:
        _fail(error.format_message())
    except (ArmletError, OSError) as error:
        _fail(_with_option(str(error), group.commands.get(arguments[0])))


def application() -> typer.Typer:
    """The command line with all of its words."""
    app = typer.Typer(
        cls=QuestionGroup,
        help="The Activation Redistribution Module inside open-weight models: see it, use it, measure it.",
        add_completion=False,
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_version)
    for name, (command, _) in (word for words in QUESTIONS.values() for word in words.items()):
        app.command(name, cls=OneValueCommand, **(PASS_THROUGH if command is lm_eval else {}))(flattened(command))
    return app


def _version(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        print(importlib.metadata.version("armlet"))
        raise typer.Exit


def _with_option(message: str, command: Any) -> str:
    """An error that begins with the name of an argument, with the command's option for it in its place."""
    name, *rest = message.partition(":")
    parameters = command.params if command else ()
    options = {parameter.name: parameter.opts[0] for parameter in parameters if parameter.param_type_name == "option"}
    return "".join([options.get(name, name), *rest])


def _fail(message: str) -> None:
    print(f"armlet: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _check_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:  # the terminal has another encoding; tokenizers and JSON reject such text
            raise ArgumentError(f"{argument!r} is not UTF-8 text") from None
