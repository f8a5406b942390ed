"""`armlet inspect-compare`: two logs of Inspect as one paired report."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from armlet.commands.options import JsonOption, show
from armlet.presentation.arguments import output_folder


def inspect_compare(
    baseline: Annotated[Path, Argument(help="An .eval log of Inspect, of a run without ARM.")],
    treated: Annotated[Path, Argument(help="The log of the same task by the model provider armlet, with a policy.")],
    scorer: Annotated[str | None, Option(help="Scorer of the task; the first one by default.")] = None,
    out: Annotated[Path | None, Option(help="Folder for the report; TREATED without .eval by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two .eval logs of Inspect on the same items: paired differences with intervals and a verdict."""
    from armlet.integrations.inspect_ai import compare_logs

    folder = output_folder("--out", out or treated.with_suffix(""))
    show(compare_logs(baseline, treated, scorer=scorer), folder, as_json)
