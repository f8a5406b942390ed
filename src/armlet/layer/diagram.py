"""Draws a diagram of the decoder layer with ARM."""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import copysign
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from armlet.attachment.sites import GATE, PRODUCT, SITES, UP

DIAGRAM_INK = "#222222"
DIAGRAM_WIDTH, DIAGRAM_HEIGHT = 7.0, 1.44  # labels fit their boxes if a unit is about an inch
BASE_LINE, LOW_LINE, MAIN_LINE, HIGH_LINE = 0.11, 0.42, 0.67, 0.92
"""Heights of the residual paths, of V and `up`, of the main line, and of Q and `gate`."""

BOX, DIAMETER = 0.19, 0.15

FRAMES = ((0.14, 0.01, 6.87, DIAGRAM_HEIGHT - 0.01), (4.08, LOW_LINE - 0.19, 6.37, HIGH_LINE + 0.33))
"""Left, bottom, right and top of the frames around the layer and around its MLP."""

Wire = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class DiagramPart:
    """A labelled part of the diagram: a box, a sum ⊕, a product ⊗, or the input or output. x, y: the centre."""

    label: str
    x: float
    y: float
    width: float
    height: float = BOX

    @property
    def left(self) -> float:
        """The x at which wires into the part end."""
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        """The x at which wires out of the part start."""
        return self.x + self.width / 2


PARTS: tuple[DiagramPart, ...] = (
    DiagramPart("x", 0.04, MAIN_LINE, 0.12),
    DiagramPart("RMSNorm", 0.65, MAIN_LINE, 0.52),
    DiagramPart("Q", 1.18, HIGH_LINE, 0.19),
    DiagramPart("K", 1.18, MAIN_LINE, 0.19),
    DiagramPart("V", 1.18, LOW_LINE, 0.19),
    DiagramPart("RoPE", 1.61, (HIGH_LINE + MAIN_LINE) / 2, 0.36, HIGH_LINE - MAIN_LINE + BOX),
    DiagramPart("Attention", 2.19, MAIN_LINE, 0.53, HIGH_LINE - LOW_LINE + BOX),
    DiagramPart("Output", 2.80, MAIN_LINE, 0.42),
    DiagramPart("⊕", 3.20, MAIN_LINE, DIAMETER),
    DiagramPart("RMSNorm", 3.73, MAIN_LINE, 0.52),
    DiagramPart("gate", 4.40, HIGH_LINE, 0.34),
    DiagramPart("SiLU", 4.87, HIGH_LINE, 0.34),
    DiagramPart("ARM", 5.34, HIGH_LINE, 0.34),
    DiagramPart("up", 4.40, LOW_LINE, 0.34),
    DiagramPart("⊗", 5.70, MAIN_LINE, DIAMETER),
    DiagramPart("down", 6.10, MAIN_LINE, 0.38),
    DiagramPart("⊕", 6.58, MAIN_LINE, DIAMETER),
    DiagramPart("y", 6.97, MAIN_LINE, 0.12),
)
"""Every labelled part, in the order in which a token passes through."""

MOVED = {"⊗": 5.25, "ARM": 5.63}  # x, on the main line, if ARM is at the product
PARTS_OF_SITES = {
    GATE: PARTS,
    UP: tuple(replace(part, y=LOW_LINE) if part.label == "ARM" else part for part in PARTS),
    PRODUCT: tuple(replace(part, x=MOVED[part.label], y=MAIN_LINE) if part.label in MOVED else part for part in PARTS),
}
"""The sites of `attach` → the parts with ARM there, in the same order."""


def draw_layer(
    axes: Axes,
    *,
    layer: int | None,
    activation: str = "SiLU",
    site: str = GATE,
    experts: int = 0,
    simplified: bool = False,
) -> None:
    """Draws a decoder layer with ARM after the activation, "SiLU" or "GELU", or at another site.

    layer: counted from 0; the title also counts from 1, as the paper does. With None, it names no layer.
    experts: number of routed experts, of which the MLP is one; 0 in a dense layer.
    simplified: whether the layer may have parts that are not drawn.
    """
    axes.set(xlim=(0, DIAGRAM_WIDTH), ylim=(0, DIAGRAM_HEIGHT), aspect="equal")
    axes.set_axis_off()
    for corners, title, fill in zip(FRAMES, frame_titles(layer, experts, simplified), ("none", "#f3f3f3"), strict=True):
        _draw_frame(axes, corners, title, fill)
    look = {"arrowstyle": "-|>", "mutation_scale": 5, "lw": 0.7, "color": DIAGRAM_INK, "joinstyle": "miter"}
    for points in wires(site):
        axes.add_patch(FancyArrowPatch(path=Path(points), zorder=1, **look))
    for part in PARTS_OF_SITES[site]:
        _draw_part(axes, part, activation if part.label == "SiLU" else part.label)


def frame_titles(layer: int | None, experts: int = 0, simplified: bool = False) -> tuple[str, str]:
    """The titles of `FRAMES`; arguments as in `draw_layer`."""
    title = "A decoder layer" if layer is None else f"Layer {layer + 1} (layer {layer} in code)"
    return title + (", simplified" if simplified else ""), f"one of {experts} experts" if experts else "MLP"


def _draw_frame(axes: Axes, corners: tuple[float, float, float, float], title: str, fill: str) -> None:
    left, bottom, right, top = corners
    _draw_box(axes, (left, bottom), right - left, top - bottom, fc=fill, ec="#8a8a8a", lw=0.6, zorder=0)
    axes.text(left + 0.07, top - 0.06, title, fontsize=7, color=DIAGRAM_INK, va="top", zorder=1)


def _draw_box(axes: Axes, corner: tuple[float, float], width: float, height: float, **look: Any) -> None:
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle="round,pad=0,rounding_size=0.04", **look))


def _draw_part(axes: Axes, part: DiagramPart, label: str) -> None:
    arm, sign = part.label == "ARM", part.label in "⊕⊗"
    if part.label not in "xy⊕⊗":
        look = {"fc": "#ffd166" if arm else "white", "ec": DIAGRAM_INK, "lw": 1.2 if arm else 0.6, "zorder": 2}
        _draw_box(axes, (part.left, part.y - part.height / 2), part.width, part.height, **look)
    font = {"size": 13 if sign else 7, "weight": "bold" if arm else "normal", "color": DIAGRAM_INK}
    slant = "italic" if part.label in "xy" else "normal"
    axes.text(part.x, part.y, label, style=slant, ha="center", va="center", zorder=3, **font)


def wires(site: str = GATE) -> list[Wire]:
    """The corner points of every path between parts; an arrowhead is drawn at the last point."""
    parts = PARTS_OF_SITES[site]
    x, norm, q, k, v, rope, attention, output, add, mlp_norm, gate, act, arm, up, times, down, mlp_add, y = parts
    here = {name: (arm,) if name == site else () for name in SITES}
    gate_chain, up_chain, product_chain = (gate, act, *here[GATE]), (up, *here[UP]), (times, *here[PRODUCT])
    rows = {
        MAIN_LINE: ((x, norm, k, rope, attention, output, add, mlp_norm), (*product_chain, down, mlp_add, y)),
        HIGH_LINE: ((q, rope, attention), gate_chain),
        LOW_LINE: ((v, attention), up_chain),
    }
    straight = [(height, *pair) for height, chains in rows.items() for chain in chains for pair in pairwise(chain)]
    paths: list[Wire] = [((source.right, height), (target.left, height)) for height, source, target in straight]
    for source, target in ((norm, q), (norm, v), (mlp_norm, gate), (mlp_norm, up)):
        bend = target.left - 0.08
        paths.append(((source.right, MAIN_LINE), (bend, MAIN_LINE), (bend, target.y), (target.left, target.y)))
    for source in (gate_chain[-1], up_chain[-1]):
        edge = MAIN_LINE + copysign(DIAMETER / 2, source.y - MAIN_LINE)
        paths.append(((source.right, source.y), (times.x, source.y), (times.x, edge)))
    for source, block, total in ((x, norm, add), (add, mlp_norm, mlp_add)):
        start, bottom = (source.right + block.left) / 2, MAIN_LINE - DIAMETER / 2
        paths.append(((start, MAIN_LINE), (start, BASE_LINE), (total.x, BASE_LINE), (total.x, bottom)))
    return paths
