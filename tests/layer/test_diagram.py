"""The diagram carries every label of the decoder layer, once for each place, and nothing lies on anything else."""

from itertools import combinations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from armlet.layer.diagram import DIAGRAM_HEIGHT, DIAGRAM_WIDTH, PARTS, PARTS_OF_SITES, draw_layer, wires
from attached import each_site

DRAWN_LABELS = tuple(part.label for part in PARTS)


def drawn(**arguments):
    axes = Figure(figsize=(DIAGRAM_WIDTH, DIAGRAM_HEIGHT)).add_axes((0, 0, 1, 1))
    draw_layer(axes, **{"layer": 0, **arguments})
    return axes


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_labels_are_those_of_the_decoder_layer_in_the_order_of_a_token():
    expected = "x RMSNorm Q K V RoPE Attention Output ⊕ RMSNorm gate SiLU ARM up ⊗ down ⊕ y"
    assert tuple(expected.split()) == DRAWN_LABELS


def test_every_label_is_drawn_and_nothing_else_but_the_titles():
    assert sorted(texts(drawn())) == sorted([*DRAWN_LABELS, "MLP", "Layer 1 (layer 0 in code)"])


def test_the_titles_say_what_is_a_part_of_the_layer_alone():
    titles = {"one of 8 experts", "Layer 1 (layer 0 in code), simplified"}
    assert titles <= {*texts(drawn(experts=8, simplified=True))}


def test_activation_takes_the_place_of_silu():
    assert "GELU" in texts(drawn(activation="GELU"))
    assert "SiLU" not in texts(drawn(activation="GELU"))


def test_title_counts_from_one_and_code_from_zero():
    assert "Layer 29 (layer 28 in code)" in texts(drawn(layer=28))


def test_arm_stands_between_the_activation_and_the_product_with_up():
    by_label = {part.label: part for part in PARTS}
    assert by_label["SiLU"].right < by_label["ARM"].left < by_label["ARM"].right < by_label["⊗"].x
    assert by_label["ARM"].y == by_label["gate"].y != by_label["up"].y


def test_at_the_product_arm_stands_between_the_product_with_up_and_down():
    by_label = {part.label: part for part in PARTS_OF_SITES["product"]}
    assert by_label["SiLU"].right < by_label["⊗"].left
    assert by_label["⊗"].right < by_label["ARM"].left < by_label["ARM"].right < by_label["down"].left
    assert by_label["ARM"].y == by_label["down"].y


def test_only_arm_is_highlighted():
    bold = [text.get_text() for text in drawn().texts if text.get_fontproperties().get_weight() == "bold"]
    assert bold == ["ARM"]


def test_both_residual_paths_leave_before_their_block_pass_below_it_and_end_at_its_sum():
    norm, mlp_norm = (part for part in PARTS if part.label == "RMSNorm")
    add, mlp_add = (part for part in PARTS if part.label == "⊕")
    lowest = min(part.y - part.height / 2 for part in PARTS)
    (start, *_, end), (mlp_start, *_, mlp_end) = [wire for wire in wires() if min(y for _, y in wire) < lowest]
    assert start[0] < norm.left < end[0] == add.x
    assert add.right < mlp_start[0] < mlp_norm.left < mlp_end[0] == mlp_add.x


def touches(point, part):
    return abs(point[0] - part.x) <= part.width / 2 + 1e-9 and abs(point[1] - part.y) <= part.height / 2 + 1e-9


@each_site
@pytest.mark.parametrize("index", range(len(PARTS)))
def test_every_part_but_the_first_is_reached_and_every_part_but_the_last_is_left(index, site):
    part = PARTS_OF_SITES[site][index]
    reached = sum(touches(wire[-1], part) for wire in wires(site))
    left = sum(touches(wire[0], part) for wire in wires(site))
    assert reached == {"x": 0, "⊕": 2, "⊗": 2, "RoPE": 2, "Attention": 3}.get(part.label, 1)
    assert left == {"y": 0, "RMSNorm": left, "RoPE": 2}.get(part.label, 1)
    assert left > 0 or part.label == "y"


def test_a_wire_is_drawn_for_each():
    arrows = [patch for patch in drawn().patches if isinstance(patch, FancyArrowPatch)]
    assert len(arrows) == len(wires())


@each_site
def test_no_part_lies_on_another(site):
    for one, other in combinations(PARTS_OF_SITES[site], 2):
        apart_in_x = abs(one.x - other.x) >= (one.width + other.width) / 2
        apart_in_y = abs(one.y - other.y) >= (one.height + other.height) / 2
        assert apart_in_x or apart_in_y, (one.label, other.label)


@each_site
@pytest.mark.parametrize("activation", ["SiLU", "GELU"])
def test_every_label_fits_into_its_box(activation, site):
    figure = Figure(figsize=(DIAGRAM_WIDTH, DIAGRAM_HEIGHT))
    axes = figure.add_axes((0, 0, 1, 1))
    draw_layer(axes, layer=0, activation=activation, site=site)
    FigureCanvasAgg(figure).draw()
    widths = {text.get_position(): text.get_window_extent().width / figure.dpi for text in axes.texts}
    for part in PARTS_OF_SITES[site]:
        if part.label not in "⊕⊗xy":
            assert widths[part.x, part.y] < part.width, part.label
