"""The generated pages of the reference are those of what they describe."""

import json
import sys
import tomllib

import pytest
from jsonschema import Draft202012Validator

import armlet
from armlet import Noise, Outward, attach, errors, evaluation
from armlet.attachment.config import parse_config
from armlet.cli import QUESTIONS
from armlet.evaluation.tasks.sources import collect_tasks
from armlet.redistribution.errors import ArmletError
from command_line import run
from doc_blocks import ROOT
from families import tiny

REFERENCE = ROOT / "docs" / "reference"
sys.path.insert(0, str(REFERENCE))
try:
    import generate
    from generators import api, tested
    from generators import errors as error_page
finally:
    sys.path.remove(str(REFERENCE))

SCHEMAS = {file.name.partition(".")[0]: json.loads(file.read_text()) for file in (REFERENCE / "schemas").iterdir()}


@pytest.mark.slow
def test_every_page_is_as_generated():
    for name, content in generate.pages().items():
        assert (REFERENCE / name).read_text(encoding="utf-8") == content, "run: python docs/reference/generate.py"


@pytest.mark.parametrize("kind", SCHEMAS["data"]["$defs"])
def test_every_kind_of_row_has_its_table(kind):
    rows = (REFERENCE / "formats.md").read_text(encoding="utf-8").partition("## Rows of data")[2]
    assert f"**{kind.replace('_', ' ')}**" in rows


def test_every_public_name_and_every_word_has_its_place():
    paths = [path for room in api.ROOMS for path in api.public_names(room)]
    assert {path.rpartition(".")[2] for path in paths} >= {*armlet.__all__}
    assert len(paths) == len(set(paths))
    commands = (REFERENCE / "commands.md").read_text(encoding="utf-8")
    assert [word for words in QUESTIONS.values() for word in words if f"### armlet {word}\n" not in commands] == []


def test_every_error_says_its_cause_and_what_to_do():
    assert [name for name in errors.__all__[1:] if not all(error_page.cause_and_mend(name))] == []


def problems(name, content):
    """What a schema says against a file's content."""
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(SCHEMAS[name]).iter_errors(content)]


def lines(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one(name):
    Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {"items": 4, "treatments": "outward", "margin": 5, "filler": "/", "count": 4, "max_new_tokens": 12},
        {"task": [{"question": f"{i} + 1 =", "choices": ["1", "2"], "gold": 0} for i in range(6)]},
    ],
    ids=["written answers", "choices"],
)
def test_the_schemas_are_those_of_a_run(arguments, tmp_path):
    findings = evaluation.evaluate("abacus", run=tmp_path, **arguments)
    assert problems("report", json.loads(json.dumps(findings.to_dict()))) == []
    assert problems("manifest", json.loads((tmp_path / "manifest.json").read_text())) == []
    assert [problem for line in lines(tmp_path / "items.jsonl") for problem in problems("items", line)] == []


@pytest.mark.slow
def test_the_schema_of_limits_is_that_of_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("limits", "abacus", "--headroom", 20, "--windows", 4, "--calibration", 2, "--out", "out")[0] == 0
    content = json.loads((tmp_path / "out" / "limits.json").read_text())
    assert problems("limits", content) == []
    assert content["limits"]
    assert problems("armlet", json.loads((tmp_path / "out" / "armlet.json").read_text())) == []


@pytest.mark.parametrize("file", sorted((ROOT / "studies").glob("*.toml")), ids=lambda file: file.stem)
def test_the_schema_of_studies_is_that_of_ours(file):
    assert problems("study", tomllib.loads(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("policy", [Outward(), "inward:limit=7,side=above", "transport", "cut:threshold=0.1"])
def test_the_schema_of_armlet_json_is_that_of_what_is_saved(policy, tmp_path):
    with attach(tiny("llama"), policy, layers=[0, 2], site="product", noise=Noise(3)) as arm:
        arm.save(tmp_path)
    assert problems("armlet", json.loads((tmp_path / "armlet.json").read_text())) == []


@pytest.mark.parametrize(
    "content",
    [
        {"version": 1, "policy": "outward", "knee": 0.9},
        {"policy": "outwards"},
        {"band": 0.2},
        {"policy": "inward", "layers": [-1]},
        {"policy": "inward", "layers": []},
        {"policy": "inward", "site": "down"},
        {"policy": "outward", "noise": "loud"},
        {"version": 3, "policy": "outward"},
        {"version": 2, "placements": []},
        {"version": 2, "placements": [{"version": 1, "policy": "outward"}]},
    ],
    ids=str,
)
def test_the_schema_of_armlet_json_refuses_what_armlet_refuses(content):
    assert problems("armlet", content)
    with pytest.raises(ArmletError):
        parse_config(content)


@pytest.mark.parametrize(
    ("row", "is_read"),
    [
        ({"question": "1 + 1", "answer": 2}, True),
        ({"context": "a", "choices": ["b", "c"], "gold": 1}, True),
        ({"prompt": "def f():", "test": "def check(f): ...", "entry_point": "f"}, True),
        ({"question": "1 + 1"}, False),
        ({"question": "a", "choices": ["b"], "gold": 0}, False),
        ({"prompt": "def f():", "entry_point": "f"}, False),
    ],
    ids=str,
)
def test_the_schema_of_rows_is_that_of_what_is_read(row, is_read):
    assert (problems("data", row) == []) == is_read
    if is_read:
        assert collect_tasks([row], None, None, 0)
    else:
        with pytest.raises(ArmletError):
            collect_tasks([row], None, None, 0)


class TestWhatWasTestedWhere:
    @pytest.mark.slow
    def test_every_marker_names_an_environment_of_the_table(self):
        assert tested.count_tests(ROOT).keys() <= tested.ENVIRONMENTS.keys()

    @pytest.mark.parametrize(
        ("source", "needed"),
        [
            ("def test_a(): ...", [set()]),
            ("def test_a(smollm2): ...", [{"real model"}]),
            ("@pytest.fixture\ndef made(hub): ...\ndef test_a(made): ...", [{"hub server"}]),
            ("@pytest.mark.usefixtures('hub')\ndef test_a(): ...", [{"hub server"}]),
            ("pytestmark = [slow, pytest.mark.needs('cuda')]\ndef test_a(): ...", [{"cuda"}]),
            ("gpu = pytest.mark.needs('cuda')\n@gpu\ndef test_a(): ...\ndef test_b(): ...", [{"cuda"}, set()]),
            ("@pytest.mark.needs('cuda')\nclass TestA:\n    def test_a(self): ...", [{"cuda"}]),
        ],
    )
    def test_what_a_test_needs_is_read_from_its_source(self, source, needed):
        assert list(tested.needs(source)) == needed

    def test_an_environment_without_tests_was_never_used(self):
        assert tested._told(0, "cuda") == "**never run**"
        assert tested._told(7, "cuda") == "7"
