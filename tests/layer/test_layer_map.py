"""The map draws every part and wire of the diagram once, at its place, under the name of its tensor."""

import re
from xml.etree import ElementTree

import pytest

from armlet.attachment.sites import SITES
from armlet.layer.decoder import __doc__ as glossary
from armlet.layer.diagram import DIAGRAM_HEIGHT, PARTS_OF_SITES, wires
from armlet.layer.layer_map import PART_NAMES, layer_map

each_site = pytest.mark.parametrize("site", SITES)


def parsed(**how):
    svg = ElementTree.fromstring(layer_map(**{"layer": 0, **how}))
    return svg, [group for group in svg.iter("g") if group.get("class", "").startswith("part")]


@each_site
def test_each_part_stands_where_the_diagram_has_it_with_its_label(site):
    _, parts = parsed(site=site)
    assert [part.get("data-part") for part in parts] == [*PART_NAMES]
    for element, part in zip(parts, PARTS_OF_SITES[site], strict=True):
        text = element.find("text")
        assert text.text == part.label
        centre = float(text.get("x")) / 100, DIAGRAM_HEIGHT - float(text.get("y")) / 100
        assert centre == pytest.approx((part.x, part.y), abs=0.001)


@each_site
def test_every_wire_is_drawn_once(site):
    svg, _ = parsed(site=site)
    paths = [path.get("d") for path in svg.iter("path") if path.get("class") == "wire"]
    assert len(paths) == len(set(paths)) == len(wires(site))


def test_every_name_is_in_the_glossary_of_the_layer():
    words = set(re.findall(r"[A-Za-z_0-9]+", glossary))
    assert set(PART_NAMES) <= words


def test_only_the_chosen_parts_are_buttons_and_have_a_name():
    _, parts = parsed(buttons=("gate", "add_1"))
    buttons = {part.get("data-part"): part.get("aria-label") for part in parts if part.get("role") == "button"}
    assert buttons == {"gate": "gate", "add_1": "⊕ (add_1)"}
    assert [part.get("data-part") for part in parts if part.get("tabindex") == "0"] == ["add_1", "gate"]


@pytest.mark.parametrize(("buttons", "role"), [((), "img"), (("ARM",), "group")])
def test_a_map_without_buttons_is_an_image(buttons, role):
    svg, _ = parsed(buttons=buttons)
    assert svg.get("role") == role


def test_the_activation_and_the_frames_are_those_of_the_layer():
    svg, _ = parsed(layer=3, activation="GELU", experts=8, simplified=True)
    texts = [text.text for text in svg.iter("text")]
    assert {"GELU", "Layer 4 (layer 3 in code), simplified", "one of 8 experts"} <= set(texts)
    assert "SiLU" not in texts
