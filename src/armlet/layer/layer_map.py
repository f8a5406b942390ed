"""The diagram of a decoder layer as inline SVG, whose parts a page can make clickable."""

from collections.abc import Collection, Mapping

from markupsafe import Markup

from armlet.attachment.sites import GATE
from armlet.layer.diagram import DIAGRAM_HEIGHT, DIAGRAM_WIDTH, FRAMES, PARTS_OF_SITES, Wire, frame_titles, wires
from armlet.presentation.page import page_environment

PART_NAMES = (
    *("x", "RMSNorm_1", "Q", "K", "V", "RoPE", "Attention", "Output", "add_1", "RMSNorm_2"),
    *("gate", "activation", "ARM", "up", "multiply", "down", "add_2", "y"),
)
"""The names of the parts' tensors in the trace of `Layer1`, in the order of the diagram's parts."""

UNITS = 100  # of the SVG, per unit of the diagram


def layer_map(
    *,
    layer: int | None,
    activation: str = "SiLU",
    site: str = GATE,
    experts: int = 0,
    simplified: bool = False,
    buttons: Collection[str] = (),
    descriptions: Mapping[str, str] | None = None,
) -> Markup:
    """An `<svg>` element with the diagram, in the colours --ink, --line, --card and --page of the page around it.

    Each part is a `<g class="part" data-part="NAME">` with one of `PART_NAMES`.

    layer, activation, site, experts, simplified: as in `draw_layer`; buttons: the names of the parts that can be
    focused and have the role of a button; what they do is for the page's script; descriptions: what a part says when a
    pointer is over it, and to a screen reader, by its name.
    """
    parts = [*zip(PART_NAMES, PARTS_OF_SITES[site], strict=True)]
    titles = frame_titles(layer, experts, simplified)
    content = {
        "title": titles[0],
        "size": (DIAGRAM_WIDTH * UNITS, DIAGRAM_HEIGHT * UNITS),
        "frames": [*zip(FRAMES, titles, strict=True)],
        "paths": [*map(_path, wires(site))],
        "parts": parts,
        "labels": {name: activation if part.label == "SiLU" else part.label for name, part in parts},
        "descriptions": descriptions or {},
    }
    template = page_environment("armlet.layer").get_template("layer.svg.jinja")
    return Markup(template.render(**content, buttons=buttons, x=_x, y=_y))


def _x(position: float) -> float:
    return round(position * UNITS, 1)


def _y(position: float) -> float:
    """SVG counts downwards."""
    return round((DIAGRAM_HEIGHT - position) * UNITS, 1)


def _path(wire: Wire) -> str:
    return "M" + " L".join(f"{_x(x)} {_y(y)}" for x, y in wire)
