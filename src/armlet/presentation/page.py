"""What pages share: templates, the colours of policies, and in pages with interactive figures plotly and the data."""

import base64
import gzip
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from types import ModuleType

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from armlet.redistribution.errors import ArgumentError

PAGE_EXTRA = "pip install 'armlet[page]'"


def plotly_objects() -> ModuleType:
    """The module `plotly.graph_objects`; raises ArgumentError if plotly is not installed."""
    try:
        from plotly import graph_objects
    except ImportError as error:
        raise ArgumentError(f"interactive figures need an extra package: {PAGE_EXTRA}") from error
    return graph_objects


def interactive_page(package: str, template: str, content: Mapping[str, object], **values: object) -> str:
    """A page that extends page.html.jinja, as one file.

    Args:
        package: the package whose templates folder has the template.
        template: its name.
        content: what page.js shows: "figures", "states", and so on; values of JSON, as plotly's `to_plotly_json`.
        values: what the template needs: "title", "sentences" and "map" in all pages.

    Raises ArgumentError if plotly is not installed.
    """
    plotly_objects()
    from plotly.offline import get_plotlyjs

    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    packed = {"plotly": packed_text(get_plotlyjs()), "content": packed_text(text)}
    style = {"inks": policy_inks, "figure_style": figure_style()}
    page = page_environment(package).get_template(template)
    return page.render(**packed, **style, version=version("armlet"), **values)


def packed_text(text: str) -> Markup:
    """A text as base64 of gzip, which a page unpacks; equal texts give equal bytes."""
    return Markup(base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode())


@cache
def page_environment(*packages: str) -> Environment:
    """The templates of packages such as "armlet.inspection", and those of all pages, with autoescape."""
    loaders = [PackageLoader(package) for package in (*packages, "armlet.presentation")]
    return Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def policy_inks(*, dark: bool) -> Markup:
    """The colours of the policies as variables of a page's style."""
    from armlet.presentation.style import COLOURS, DARK_COLOURS

    colours = DARK_COLOURS if dark else COLOURS
    return Markup(" ".join(f"--{name.lower()}: {colour};" for name, colour in colours.items()))


def figure_style() -> Markup:
    """The style of a page with interactive figures: the colours of their text, lines and labels.

    The page defines the variables --ink, --line and --card, and those of `policy_inks`, for light and dark.
    """
    from armlet.presentation.style import COLOURS

    inks = {_rgb(colour): f"--{name.lower()}" for name, colour in COLOURS.items()}
    return Markup(page_environment().get_template("figure.css.jinja").render(inks=inks))


def _rgb(colour: str) -> str:
    """A colour such as "#D55E00" as a browser states it in an element's style."""
    return "rgb({}, {}, {})".format(*(int(colour[at : at + 2], 16) for at in (1, 3, 5)))
