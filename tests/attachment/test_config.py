"""armlet.json gives back what was attached, and refuses what it does not know."""

import json

import numpy as np
import pytest
import torch

from armlet import Cut, Inward, Noise, Outward, Transport, attach, load_config
from armlet.attachment.config import ConfigError, describe, layer_indices, limited_layers, parse_layers
from armlet.presentation.files import WriteError
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policies import parse_policy
from families import prompt, tiny

POLICIES = [
    Outward(band=0.3, share=(0.1, 0.2), write="add"),
    Outward(proportion=0.25),
    Inward(curve="clip"),
    Transport(),
    Cut(threshold=0.05),
]


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("noise", [Noise(7, stream=2), Noise.fresh(), Noise.midpoint()], ids=repr)
def test_what_was_saved_attaches_again(tmp_path, policy, noise):
    model = tiny()
    with attach(model, policy, layers=[0, 2], scope="sequence", noise=noise) as attachment:
        path = attachment.save(tmp_path / "new" / "folder")
    expected = {"policy": policy, "layers": [0, 2], "scope": "sequence", "noise": noise}
    assert load_config(path) == load_config(path.parent) == expected


def test_a_path_that_ends_in_json_is_a_file(tmp_path):
    with attach(tiny(), Outward(band=0.3)) as attachment:
        path = attachment.save(str(tmp_path / "new" / "mine.json"))
    assert path == tmp_path / "new" / "mine.json"
    assert path.is_file()
    assert load_config(str(path))["policy"] == Outward(band=0.3)


def test_a_loaded_config_gives_the_same_logits(tmp_path):
    model, ids = tiny(), prompt(6)
    with attach(model, Outward(band=0.5), layers=[0, 1], noise=Noise(3)) as attachment:
        expected = model(ids).logits
        attachment.save(tmp_path)
    with attach(model, **load_config(tmp_path)):
        assert torch.equal(model(ids).logits, expected)


def test_only_the_policy_is_needed(tmp_path):
    (tmp_path / "armlet.json").write_text('{"policy": "outward", "band": 0.2}')
    assert load_config(tmp_path) == {"policy": Outward(band=0.2), "layers": 0, "scope": "token", "noise": Noise(0)}


SEVERAL = [
    {"policy": Inward(limit=0.3, side="above", curve="clip"), "layers": [0, 1]},
    {"policy": Inward(limit=0.4), "layers": "all", "site": "up", "noise": Noise(4)},
    {"policy": Outward(band=0.3), "layers": 2, "site": "product"},
]


def test_several_placements_are_one_file_of_version_2_that_attaches_again(tmp_path):
    model, ids = tiny(), prompt(6)
    with attach(model, SEVERAL) as attachment:
        expected = model(ids).logits
        content = json.loads(attachment.save(tmp_path).read_text())
    assert (content["version"], len(content["placements"])) == (2, 3)
    with attach(model, **load_config(tmp_path)) as again:
        assert torch.equal(model(ids).logits, expected)
        assert again.placements == attachment.placements
        assert again.save(tmp_path / "again").read_bytes() == (tmp_path / "armlet.json").read_bytes()


def test_one_placement_in_a_list_is_that_placement(tmp_path):
    (tmp_path / "armlet.json").write_text('{"version": 2, "placements": [{"policy": "cut", "site": "up"}]}')
    one = {"policy": Cut(), "layers": 0, "scope": "token", "noise": Noise(0), "site": "up"}
    assert load_config(tmp_path) == one
    with attach(tiny(), [one]) as attachment:
        assert json.loads(attachment.save(tmp_path).read_text())["version"] == 1


def test_a_site_is_in_the_file_where_it_is_not_the_gate(tmp_path):
    for site, named in (("gate", {}), ("up", {"site": "up"}), ("product", {"site": "product"})):
        with attach(tiny(), Outward(), site=site) as attachment:
            content = json.loads(attachment.save(tmp_path).read_text())
        assert {key: content[key] for key in content if key == "site"} == named
        expected = {"policy": Outward(), "layers": [0], "scope": "token", "noise": Noise(0)}
        assert load_config(tmp_path) == expected | named
    (tmp_path / "armlet.json").write_text('{"policy": "outward", "site": "gate"}')
    assert "site" not in load_config(tmp_path)


@pytest.mark.parametrize("noise", [torch.zeros(1, 1, 48), Noise.fresh(torch.Generator())])
def test_noise_that_a_file_cannot_keep_is_refused(tmp_path, noise):
    with attach(tiny(), Outward(), noise=noise) as attachment, pytest.raises(ConfigError, match=r"use Noise\(seed\)"):
        attachment.save(tmp_path)
    assert not (tmp_path / "armlet.json").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "expected an object, found list"),
        ("{}", "has no policy: expected the content of an armlet.json"),
        ('{"policy": "sideways"}', "found 'sideways'"),
        ('{"policy": "outward", "version": 3}', "has version 3, but this armlet reads up to 2: upgrade"),
        ('{"policy": "outward", "version": 2}', "version 2: expected version and placements, a list with at least one"),
        ('{"placements": [], "version": 2}', "version 2: expected version and placements, a list with at least one"),
        ('{"placements": [{"policy": "outward"}], "version": 1}', "has no policy"),
        ('{"placements": ["outward"], "version": 2}', r"placements\[0\]: expected an object, found str"),
        (
            '{"placements": [{"policy": "cut"}, {"policy": "cut", "version": 1}], "version": 2}',
            r"placements\[1\]: .*unknown version",
        ),
        ('{"policy": "outward", "version": "1"}', "version must be an integer"),
        ('{"policy": "outward", "knee": 0.9}', "outward: unknown knee; expected band, ceiling"),
        ('{"policy": "inward", "code": "import os"}', "inward: unknown code"),
        ('{"policy": "outward", "band": 0}', "band must be a number"),
        ('{"policy": "outward", "band": "0.1"}', "band must be a number"),
        ('{"policy": "outward", "ceiling": NaN}', "ceiling must be a number"),
        ('{"policy": "outward", "share": [0.3, 0.1]}', "share must be"),
        ('{"policy": "outward", "scope": "batch"}', "scope: expected one of"),
        ('{"policy": "outward", "site": "down"}', "site: expected gate, up or product, found 'down'"),
        ('{"policy": "outward", "site": ["product"]}', "site: expected gate, up or product"),
        ('{"policy": "outward", "layers": "some"}', "layers must be indices"),
        ('{"policy": "outward", "layers": [-1]}', "layers must be indices"),
        ('{"policy": "outward", "layers": []}', "layers must be indices"),
        ('{"policy": "outward", "layers": {}}', "layers must be indices"),
        ('{"policy": "outward", "noise": "loud"}', "noise must be"),
        ('{"policy": "outward", "noise": ["keyed"]}', "noise must be"),
        ('{"policy": "outward", "noise": "fresh", "seed": 1}', "noise must be"),
        ('{"policy": "outward", "seed": 1.5}', "seed must be an integer"),
        ('{"policy": ["outward"]}', "policy: expected one of"),
        ('{"policy": "outward", "band": 1' + "0" * 400 + "}", "band must be a number"),
        ('{"policy": "outward", "band": 1' + "0" * 5000 + "}", r"armlet\.json"),
    ],
)
def test_what_a_config_cannot_contain_is_refused_with_its_path(tmp_path, content, message):
    path = tmp_path / "armlet.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [None, 3, [1], ""])
def test_what_is_no_path_is_refused(wrong):
    with pytest.raises(ArgumentError, match="path: expected a path, found"):
        load_config(wrong)
    with (
        attach(tiny(), Outward()) as attachment,
        pytest.raises(ArgumentError, match="path: expected a path"),
    ):
        attachment.save(wrong)


def test_a_missing_config_is_refused_with_its_path(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere", tmp_path / "armlet.json"):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(place)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "armlet.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"armlet\.json"):
        load_config(tmp_path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with attach(tiny(), Outward()) as attachment, pytest.raises(WriteError, match="cannot be written"):
        attachment.save(tmp_path / "file" / "below")


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("transport", Transport()),
        ("cut:band=0.2,threshold=0.05", Cut(band=0.2, threshold=0.05)),
        ("outward:band=1e-2,ceiling=.5", Outward(band=0.01, ceiling=0.5)),
        ("outward:band=0.2,share=0.1/0.2,write=add", Outward(band=0.2, share=(0.1, 0.2), write="add")),
    ],
)
def test_a_policy_is_read_from_a_line(text, policy):
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sideways", "found 'sideways'"),
        ("outward:share=0.1,0.2", r"a pair as share=0\.02/0\.25, found '0\.2'"),
        ("outward:band=", "band must be a number"),
        ("inward:band=0.1", "inward: unknown band"),
        ("outward:bnd=0.1", r"outward: unknown bnd; expected band, .*, strength; did you mean band\?$"),
        ("outward:bnd=0.1,Celing=1", r"outward: unknown bnd, Celing; .*; did you mean band, ceiling\?$"),
        ("outward:band=0.2,band=0.3", "^outward: band is given twice$"),
        ("outward:", "^outward: expected settings as name=value"),
        ("outward:band=0.2,", "^outward: expected settings as name=value"),
        ("outward:band=1_0", "band must be a number in .*, found '1_0'"),
        ("outward:band=١", "band must be a number"),
        ("outward:band=nan", "band must be a number"),
        ("Outward", r"found 'Outward'; did you mean outward\?$"),
        ("outwrad:band=0.2", r"found 'outwrad'; did you mean outward\?$"),
        ("publisehd:a/b", r"did you mean published\?$"),
    ],
)
def test_a_line_that_is_no_policy_is_refused(text, message):
    with pytest.raises(ArgumentError, match=message):
        parse_policy(text)


def test_layers_are_read_from_a_line():
    assert [parse_layers(text) for text in ("all", "3", "0,3", "0-2,5")] == ["all", [3], [0, 3], [0, 1, 2, 5]]
    for text in ("", "a", "-1", "1-", "0--2", "0-99999999999", "3-0", "٠", "0-٣"):
        with pytest.raises(ArgumentError, match="layers:"):
            parse_layers(text)


def test_the_file_is_plain_and_versioned(tmp_path):
    with attach(tiny(), Inward(), layers=1) as attachment:
        content = json.loads(attachment.save(tmp_path).read_text())
    assert content == {
        "version": 1,
        "policy": "inward",
        "knee": 0.99,
        "curve": "log",
        "strength": 1.0,
        "layers": [1],
        "scope": "token",
        "noise": "keyed",
        "seed": 0,
        "stream": 0,
    }


def test_a_limit_and_a_side_are_in_the_file_only_where_they_say_something(tmp_path):
    policy = Inward(limit=2.0, side="above", curve="clip")
    with attach(tiny(), policy) as attachment:
        content = json.loads(attachment.save(tmp_path).read_text())
    assert (content["limit"], content["side"], load_config(tmp_path)["policy"]) == (2.0, "above", policy)


@pytest.mark.parametrize("layers", ["2,0", [2, 0], range(0, 3, 2), {0, 2}, (np.int64(2), 0, 0), iter([0, 2])], ids=str)
def test_layers_in_every_form_are_distinct_indices(layers):
    assert layer_indices(layers) == [0, 2]


def test_all_stays_a_word_and_an_index_is_a_list():
    assert (layer_indices("all"), layer_indices("0-0")) == ("all", [0])
    assert [layer_indices(one) for one in (np.int64(1), np.array(1), torch.tensor(1), torch.tensor([1]))] == [[1]] * 4


@pytest.mark.parametrize(
    "layers", [True, [True], 1.0, -1, [0, -1], [], "", ["0"], None, [None], np.arange(2) / 2], ids=str
)
def test_what_is_no_layer_is_refused(layers):
    with pytest.raises(ArgumentError, match=r"^layers: expected [^\n]+$"):
        layer_indices(layers)


@pytest.mark.parametrize("layers", [1.0, None, {0: 1}], ids=str)
def test_what_is_no_layer_is_refused_with_all_that_is_one(layers):
    message = rf'^layers: expected an index from 0, several, a range, or text such as .* or "all", found {layers!r}$'
    with pytest.raises(ArgumentError, match=message):
        layer_indices(layers)


def test_an_old_file_with_settings_that_have_no_effect_loads_and_they_are_said_once(tmp_path):
    path = tmp_path / "armlet.json"
    path.write_text(json.dumps({"policy": "outward", "proportion": 0.3, "band": 0.5, "layers": "all"}))
    model = tiny()
    with attach(model, **load_config(path)) as attachment:
        model(prompt(8))
        assert limited_layers(json.loads(path.read_text()), attachment.report()) == [
            "outward: band has no effect, because proportion replaces band and share"
        ]


def test_tokens_with_nan_hide_no_limit():
    content = describe(Outward(band=3), [0], "token", Noise())
    counts = {"calls": 1, "tokens": 8, "moved": 5 * 25, "share_moved": 5 * 25 / 800, "passed": 3}
    sentence = "layer 0: band 3 is limited by share: at most 0.25 of the values move"
    assert limited_layers(content, {0: counts}) == [sentence]
    assert limited_layers(content, {0: counts | {"passed": 0}}) == []


def test_the_suffix_of_a_file_may_be_upper_case(tmp_path):
    with attach(tiny(), Outward()) as attachment:
        assert attachment.save(tmp_path / "x.JSON") == tmp_path / "x.JSON"
    assert load_config(tmp_path / "x.JSON")["policy"] == Outward()
