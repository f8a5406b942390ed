"""The decoder layer as a picture: what comes where, and where ARM sits."""

from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from armlet.redistribution.errors import ArgumentError

INK = "#222222"
FRAME_LINE = "#8a8a8a"
MLP_FILL = "#f3f3f3"
ARM_FILL = "#ffd166"

ACTIVATIONS = ("SiLU", "GELU")

WIDTH, HEIGHT = 7.0, 1.44
"""Size of the drawing in its own units; a unit is an inch where the figure is `WIDTH` inches wide."""

BASE, LOW, MAIN, HIGH = 0.11, 0.42, 0.67, 0.92
"""Heights of the residual paths, of V and `up`, of the main line, and of Q and `gate`."""

BOX = 0.19
RADIUS = 0.075


Wire = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Part:
    """A labelled thing in the diagram: a box, a ⊕ or ⊗, or an end of the line (its centre and size)."""

    label: str
    x: float
    y: float
    width: float
    height: float = BOX

    @property
    def left(self) -> float:
        """Where a wire comes in."""
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        """Where a wire goes out."""
        return self.x + self.width / 2


PARTS: tuple[Part, ...] = (
    Part("x", 0.04, MAIN, 0.12),
    Part("RMSNorm", 0.65, MAIN, 0.52),
    Part("Q", 1.18, HIGH, 0.19),
    Part("K", 1.18, MAIN, 0.19),
    Part("V", 1.18, LOW, 0.19),
    Part("RoPE", 1.61, (HIGH + MAIN) / 2, 0.36, HIGH - MAIN + BOX),
    Part("Attention", 2.19, MAIN, 0.53, HIGH - LOW + BOX),
    Part("Output", 2.80, MAIN, 0.42),
    Part("⊕", 3.20, MAIN, 2 * RADIUS),
    Part("RMSNorm", 3.73, MAIN, 0.52),
    Part("gate", 4.40, HIGH, 0.34),
    Part("SiLU", 4.87, HIGH, 0.34),
    Part("ARM", 5.34, HIGH, 0.34),
    Part("up", 4.40, LOW, 0.34),
    Part("⊗", 5.70, MAIN, 2 * RADIUS),
    Part("down", 6.10, MAIN, 0.38),
    Part("⊕", 6.58, MAIN, 2 * RADIUS),
    Part("y", 6.97, MAIN, 0.12),
)
"""Everything that carries a label, in the order in which a token passes it."""

LABELS: tuple[str, ...] = tuple(part.label for part in PARTS)


def draw_layer(axes: Axes, *, layer: int, activation: str = "SiLU") -> None:
    """Draw a decoder layer with ARM in its place, after the gate's activation and before the product with `up`.

    Args:
        axes: filled with the drawing, `WIDTH` × `HEIGHT` of its units; the axes' own lines are hidden.
        layer: counted from 0; the title counts from 1, as the paper does, and says both.
        activation: "SiLU" or "GELU".

    Raises:
        ArgumentError: another activation, or a negative layer.
    """
    if activation not in ACTIVATIONS:
        raise ArgumentError(f"diagram: activation must be one of {', '.join(ACTIVATIONS)}, found {activation!r}")
    if layer < 0:
        raise ArgumentError(f"diagram: layers count from 0, found {layer}")
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT), aspect="equal")
    axes.set_axis_off()
    _frame(axes, (0.14, 0.01, 6.87, HEIGHT - 0.01), f"Layer {layer + 1} (layer {layer} in code)", "none")
    _frame(axes, (4.08, LOW - 0.19, 6.37, HIGH + 0.33), "MLP", MLP_FILL)
    for points in wires():
        _draw_wire(axes, points)
    for part in PARTS:
        _part(axes, part, activation if part.label == "SiLU" else part.label)


def _frame(axes: Axes, corners: tuple[float, float, float, float], title: str, fill: str) -> None:
    left, bottom, right, top = corners
    style = "round,pad=0,rounding_size=0.05"
    size = (right - left, top - bottom)
    axes.add_patch(FancyBboxPatch((left, bottom), *size, boxstyle=style, fc=fill, ec=FRAME_LINE, lw=0.6, zorder=0))
    axes.text(left + 0.07, top - 0.06, title, fontsize=7, color=INK, ha="left", va="top", zorder=1)


def _part(axes: Axes, part: Part, label: str) -> None:
    arm = part.label == "ARM"
    if part.label not in ("x", "y", "⊕", "⊗"):
        corner = (part.left, part.y - part.height / 2)
        look = {"fc": ARM_FILL if arm else "white", "ec": INK, "lw": 1.2 if arm else 0.6}
        style = "round,pad=0,rounding_size=0.03"
        axes.add_patch(FancyBboxPatch(corner, part.width, part.height, boxstyle=style, zorder=2, **look))
    axes.text(
        part.x,
        part.y,
        label,
        fontsize=13 if label in "⊕⊗" else 7,
        weight="bold" if arm else "normal",
        style="italic" if label in "xy" else "normal",
        color=INK,
        ha="center",
        va="center",
        zorder=3,
    )


def wires() -> list[Wire]:
    """Every path between parts, as the points that it passes; it ends in an arrowhead."""
    x, norm, q, k, v, rope, attention, output, add, mlp_norm, gate, act, arm, up, times, down, mlp_add, y = PARTS
    forks = ((norm, q), (norm, v), (mlp_norm, gate), (mlp_norm, up))
    residuals = ((x, norm, add), (add, mlp_norm, mlp_add))
    return [
        *_straight(MAIN, x, norm, k, rope, attention, output, add, mlp_norm),
        *_straight(HIGH, q, rope, attention),
        *_straight(LOW, v, attention),
        *_straight(HIGH, gate, act, arm),
        *_straight(MAIN, times, down, mlp_add, y),
        *(_fork(source, target) for source, target in forks),
        ((arm.right, HIGH), (times.x, HIGH), (times.x, MAIN + RADIUS)),
        ((up.right, LOW), (times.x, LOW), (times.x, MAIN - RADIUS)),
        *(_residual((source.right + first.left) / 2, total) for source, first, total in residuals),
    ]


def _straight(height: float, *parts: Part) -> list[Wire]:
    return [((one.right, height), (following.left, height)) for one, following in pairwise(parts)]


def _fork(source: Part, target: Part) -> Wire:
    bend = target.left - 0.08
    return (source.right, MAIN), (bend, MAIN), (bend, target.y), (target.left, target.y)


def _residual(start: float, total: Part) -> Wire:
    return (start, MAIN), (start, BASE), (total.x, BASE), (total.x, MAIN - RADIUS)


def _draw_wire(axes: Axes, points: Wire) -> None:
    look = {"arrowstyle": "-|>", "mutation_scale": 5, "lw": 0.7, "color": INK, "joinstyle": "miter"}
    axes.add_patch(FancyArrowPatch(path=Path(points), zorder=1, **look))
