"""`armlet inspect`: the effect of each policy on a layer's activated gate, or on its product with up."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from armlet import inspection
from armlet.commands import options
from armlet.commands.options import POLICY, folder_option, show
from armlet.commands.policy_help import policy_option
from armlet.inspection.knob_grids import check_grids
from armlet.inspection.run import DEFAULT_POLICIES
from armlet.redistribution.policies import parse_policies


def inspect(
    model: options.ModelArgument = None,
    *,
    layer: Annotated[int, Option(help='The layer, counted from 0: the figure\'s "Layer 1" is layer 0.')] = 0,
    policy: Annotated[list[str] | None, policy_option(POLICY + ". Up to three; all but cut by default.")] = None,
    scope: options.ScopeOption = "token",
    site: options.SiteOption = "gate",
    prompts: options.PromptOptions,
    synthetic: Annotated[
        Literal["modes", "heavy-tail"] | None, Option(help="Use a synthetic sample instead of a model.")
    ] = None,
    out: Annotated[Path, folder_option("Folder for the figure and inspect.json.")] = Path("armlet-inspect"),
    compute: options.ComputeOptions,
    html: options.HtmlOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Show each policy's effect on a layer's gate, up or product, as a table and as a figure (PNG and SVG)."""
    place = {"layer": layer, "scope": scope, "site": site}
    policies = policy or DEFAULT_POLICIES
    if html:
        check_grids(parse_policies(policies, scope))
    chosen = {"policy": policies, "synthetic": synthetic, **place}
    inspected = inspection.inspect(model, prompt=prompts.texts(), **chosen, **vars(compute))
    show(inspected, out, as_json, save=partial(inspected.save, html=html), figures_key="figure")
