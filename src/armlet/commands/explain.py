"""`armlet explain`: the effect of filler tokens on attention and gate."""

from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Option

from armlet import mechanism
from armlet.commands import options
from armlet.commands.options import folder_option, show
from armlet.commands.policy_help import policy_option
from armlet.mechanism.run import COUNTS, EXPLAINED_POLICY, FILLER
from armlet.prompts.fillers import POSITION_HELP, SYSTEM, Position


def explain(
    model: options.ModelArgument = None,
    *,
    layers: options.LayersOption = "all",
    filler: Annotated[list[str] | None, Option(help=f"Text of a filler; {FILLER} by default. May be repeated.")] = None,
    count: Annotated[str, Option(help="Number of filler tokens, or several numbers.")] = ",".join(map(str, COUNTS)),
    position: Annotated[Position, Option(help=POSITION_HELP)] = "between",
    policy: Annotated[
        list[str] | None,
        policy_option(f"Policy whose effect on each class of tokens is measured: {options.POLICY}. May be repeated."),
    ] = None,
    system: Annotated[str, Option(help="The system prompt; a built-in one by default.", show_default=False)] = SYSTEM,
    prompts: options.PromptOptions,
    out: Annotated[Path, folder_option("Folder for the figures, explain.json and its tables as .csv.")] = Path(
        "armlet-explain"
    ),
    compute: options.ComputeOptions,
    html: options.HtmlOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Measure filler tokens' effect on attention, gate and near-zero share, compared with a random sentence."""
    fillers = {"filler": filler or FILLER, "count": count, "position": position, "system": system}
    asked = {
        "layers": layers,
        "policy": policy or EXPLAINED_POLICY,
        "prompt": prompts.texts(),
        **fillers,
        **vars(compute),
    }
    explained = mechanism.explain(model, **asked)
    show(explained, out, as_json, save=partial(explained.save, html=html), figures_key="figures")
