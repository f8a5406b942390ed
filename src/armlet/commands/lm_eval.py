"""`armlet lm-eval`: lm-eval's own command line with ARM attached, and a comparison of two of its runs."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Context, Option

from armlet.commands.options import JsonOption, show
from armlet.evaluation.options import MarginOption
from armlet.presentation.arguments import output_folder

PASS_THROUGH: dict[str, Any] = {
    "context_settings": {
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    }
}
"""typer's settings for a command that passes on all of its arguments, including --help."""

HELP = """\
armlet lm-eval ...: lm-eval with the model type "armlet", which is "hf" with ARM attached. All arguments are lm-eval's.

  armlet lm-eval --model_args 'pretrained=MODEL,policy=none' --tasks arc_easy --output_path base --log_samples
  armlet lm-eval --model_args 'pretrained=MODEL,policy=outward:band=0.2;ceiling=0.99,layers=0;3' --tasks arc_easy \\
    --output_path treated --log_samples
  armlet lm-eval-compare base treated

--model_args in addition to those of "hf": policy (";" stands for ","), layers, scope, site, experts, noise_seed,
or config=armlet.json.
"""


def lm_eval(context: Context) -> None:
    """Run any task of lm-eval with ARM attached: lm-eval's own options, with policy=... in --model_args."""
    from armlet.integrations.lm_eval import register

    register()
    from lm_eval.__main__ import cli_evaluate

    arguments = list(context.args)
    if not arguments or {"-h", "--help"} & set(arguments):
        print(HELP)
    original, sys.argv = sys.argv, ["lm-eval", *with_model(arguments)]  # lm-eval reads sys.argv
    try:
        cli_evaluate()
    finally:
        sys.argv = original


def with_model(arguments: Sequence[str]) -> list[str]:
    """Adds `--model armlet` to the arguments of a run that names neither --model nor --config."""
    words = list(arguments)
    is_run = bool(words) and (words[0] == "run" or words[0].startswith("-")) and not {"-h", "--help"} & set(words)
    has_model = any(word.partition("=")[0] in ("--model", "--config") or word[:2] in ("-M", "-C") for word in words)
    return [*words, "--model", "armlet"] if is_run and not has_model else words


def lm_eval_compare(
    baseline: Annotated[Path, Argument(help="lm-eval's --output_path of a run with --log_samples, without ARM.")],
    treated: Annotated[Path, Argument(help="The same for a run with ARM on the same tasks.")],
    metric: Annotated[str | None, Option(help="Metric of lm-eval; acc or exact_match by default.")] = None,
    filter: Annotated[str | None, Option(help="Filter of lm-eval; each task's first by default.")] = None,
    margin: MarginOption = None,
    out: Annotated[Path | None, Option(help="Folder for the report; TREATED by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two runs of lm-eval on the same items: paired differences with intervals and a verdict."""
    from armlet.integrations.lm_eval import compare_runs

    output_folder("--out", out or treated)
    show(compare_runs(baseline, treated, metric=metric, filter=filter, margin=margin), out or treated, as_json)
