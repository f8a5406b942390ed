"""A policy of one's own in the commands, by its file and by the name that a package registers."""

import hashlib
import json
from dataclasses import dataclass
from typing import ClassVar

import optuna
import pytest

from armlet import evaluation, inspection
from armlet.answers import generate
from armlet.checkpoints.folder import ABACUS
from armlet.commands.evaluate import TreatmentOptions
from armlet.evaluation.conditions.conditions import conditions, make_treatments
from armlet.evaluation.conditions.placebos import GATE_PLACEBOS, REPEAT
from armlet.evaluation.search.search import Space, _suggest
from armlet.evaluation.studies.definition import StudyTreatment
from armlet.integrations.treatment import DEFAULTS, treatment
from armlet.integrations.vllm.settings import full_setting
from armlet.playground.setting import from_link
from armlet.redistribution import registry
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policy_class import RESERVED_NAMES
from command_line import result, run, shown
from user_policies import CLASS, EXAMPLE, SOFT, install, write_policy

ITEMS = ("--items", "6", "--max-new-tokens", "4")


@pytest.fixture
def by_name(tmp_path, monkeypatch):
    """A folder to work in, where the example is installed."""
    install(tmp_path / "site", monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_lists_what_packages_register_and_hides_no_policy_if_one_is_broken(by_name, monkeypatch):
    install(by_name / "broken", monkeypatch, "broken", "absent:Broken", package="broken")
    text = " ".join(shown("inspect", "--policy", "help").split())
    assert "share 0.1 a number" in text
    assert "of soft-threshold 0.1: Moves every value towards 0 by T" in text
    assert "broken: cannot be used (policy broken of broken 0.1: absent:Broken cannot be imported" in text
    assert "p_min, p_max" in text
    install(by_name / "taken", monkeypatch, "outward", package="taken")
    text = " ".join(shown("inspect", "--policy", "help").split())
    assert "outward: cannot be used (policy outward of taken 0.1: the class calls itself 'soft_threshold'" in text
    assert "file.py:Class:setting=value" in text


@pytest.mark.slow
def test_a_file_and_a_name_inspect_the_same(tmp_path, monkeypatch):
    def inspected(policy):
        report = result("inspect", "--synthetic", "modes", "--policy", policy, "--out", tmp_path / "out")
        return report["policies"][0]

    in_file = inspected(f"{SOFT}:share=0.3")
    install(tmp_path, monkeypatch)
    assert inspected("soft_threshold:share=0.3") == in_file
    assert (in_file["policy"], in_file["share"], in_file["share_moved"]) == ("soft_threshold", 0.3, 1)


@pytest.mark.slow
def test_generate_stores_a_file_by_its_sha256_and_does_not_run_it_from_there(tmp_path, monkeypatch):
    answered = generated("--policy", f"{SOFT}:share=0.3", "--out", tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "armlet.json").read_text())
    assert stored["policy"] == "soft_threshold.py:SoftThreshold"
    assert stored["sha256"] == hashlib.sha256(EXAMPLE.read_bytes()).hexdigest()
    assert answered["report"]["0"]["share_moved"] > 0
    monkeypatch.setattr(registry, "_classes", {})  # as in another process
    code, out, err = run("generate", ABACUS, "12+3=", "--config", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "is in a file, which armlet runs only if you name it: add --policy soft_threshold.py:SoftThreshold" in err
    again = generated("--config", tmp_path / "out", "--policy", SOFT)
    assert (again["armlet"], again["treated"]["tokens"]) == (stored, answered["treated"]["tokens"])
    code, _, err = run("generate", ABACUS, "12+3=", "--config", tmp_path / "out", "--policy", f"{SOFT}:share=0.9")
    assert (code, "--policy: --config sets the policy, its place and the seed; leave it out" in err) == (2, True)


@pytest.mark.slow
def test_generate_takes_an_installed_policy_from_an_armlet_json(by_name):
    first = generated("--policy", "soft_threshold:share=0.3", "--out", by_name / "out")
    stored = json.loads((by_name / "out" / "armlet.json").read_text())
    assert stored["policy"] == "soft_threshold"
    assert "sha256" not in stored
    assert generated("--config", by_name / "out")["treated"]["tokens"] == first["treated"]["tokens"]


def generated(*options):
    return result("generate", ABACUS, "12+3=", "--max-new-tokens", "4", *options)


def test_a_class_beside_a_file_that_names_it_is_no_second_treatment(tmp_path):
    (treatment,) = make_treatments(f"{SOFT}:share=0.4", layers="0-1")
    (tmp_path / "armlet.json").write_text(json.dumps(treatment.content()))
    for text, count in ((SOFT, 1), (f"{SOFT}:share=0.9", 2), ("outward", 2)):
        sources = TreatmentOptions([text], config=tmp_path / "armlet.json").sources(served=False)
        assert len(make_treatments(sources)) == count
        assert treatment.content() in [other.content() for other in make_treatments(sources)]


@pytest.mark.slow
def test_evaluate_judges_a_file_with_its_placebos(tmp_path):
    policy = write_policy(tmp_path)
    (task,) = result("evaluate", ABACUS, *ITEMS, "--run", tmp_path / "run", "--policy", policy)["tasks"]
    assert [condition["name"] for condition in task["conditions"] if condition["role"] == "treated"] == ["mine"]
    assert task["same_as_baseline"] == {"identity": 6, "draw-only": 6}
    assert "matched (mine)" in [condition["name"] for condition in task["conditions"]]


@pytest.mark.parametrize("installed", [False, True])
def test_a_run_is_recognised_by_the_code_of_its_policy(installed, tmp_path, monkeypatch):
    policy, file = write_policy(tmp_path), tmp_path / "mine.py"
    if installed:
        folder = install(tmp_path, monkeypatch, "mine", "mine:Mine", package="mine")
        policy, file = "mine", folder / "mine.py"
        file.write_text(CLASS)
    ((one,), (same,)) = (make_treatments(policy) for _ in range(2))
    before = one.plain()
    assert before == same.plain()
    file.write_text(CLASS + "# another file")
    if installed:
        (now,) = make_treatments(policy)
        assert now.plain() == before  # this process runs what it loaded
        registry._code_of.cache_clear()  # as in another process
    (other,) = make_treatments(policy)
    after = other.plain()
    assert {key for key in before if before[key] != after[key]} == {"code" if installed else "sha256"}


def test_a_run_is_recognised_by_all_files_of_a_package(tmp_path, monkeypatch):
    folder = install(tmp_path, monkeypatch, "mine", "ours.policies:Mine", package="mine") / "ours"
    folder.mkdir()
    for name, source in {
        "__init__": "",
        "policies": f"from ours.factor import FACTOR\n{CLASS}",
        "factor": "FACTOR = 1",
    }.items():
        (folder / f"{name}.py").write_text(source)
    before = make_treatments("mine")[0].plain()["code"]
    (folder / "factor.py").write_text("FACTOR = 2")
    registry._code_of.cache_clear()  # as in another process
    assert make_treatments("mine")[0].plain()["code"] != before


@pytest.mark.slow
def test_a_search_of_a_file_is_confirmed_by_who_names_the_file(tmp_path, monkeypatch):
    options = ("--items", "16", "--max-new-tokens", "4", "--trials", "0", "--run", tmp_path / "run")
    tuned = result("tune", ABACUS, *options, "--policy", SOFT)
    assert tuned["map"]["names"] == ["share"]
    _, out, _ = run("tune", ABACUS, *options, "--policy", SOFT)
    assert f"armlet confirm {tmp_path / 'run'} --policy soft_threshold.py:SoftThreshold" in out.replace("\n", " ")
    assert [trial["share"] for trial in tuned["trials"]] == [0.02, 0.05, 0.1, 0.25, 0.5]
    monkeypatch.setattr(registry, "_classes", {})  # as in another process
    code, _, err = run("confirm", tmp_path / "run")
    assert (code, "is in a file, which armlet runs only if you name it" in err) == (2, True)
    code, _, err = run("confirm", tmp_path / "run", "--policy", f"{SOFT}:share=0.9")
    assert (code, "the settings are those of the search" in err) == (2, True)
    (task,) = result("confirm", tmp_path / "run", "--policy", SOFT)["tasks"]
    assert any(condition["name"].startswith("soft_threshold") for condition in task["conditions"])


def test_a_search_without_values_is_refused_with_the_line_to_add(tmp_path):
    code, _, err = run("tune", ABACUS, "--policy", write_policy(tmp_path))
    assert code == 2
    assert "mine proposes no values; add to its class: search: ClassVar = {" in err
    code, _, err = run("tune", ABACUS, "--policy", write_policy(tmp_path), "--search", "factor")
    assert (code, "expected one or two of strength, found 'factor'" in err) == (2, True)


def test_a_page_of_a_policy_that_has_no_knobs_is_refused_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr(inspection, "inspect", None)
    code, _, err = run("inspect", "--synthetic", "modes", "--policy", SOFT, "--html")
    assert (code, "policy: a page has knobs for outward, inward, transport, cut, found SoftThreshold" in err) == (
        2,
        True,
    )


@dataclass(frozen=True)
class Callable:
    """A class of this session that can be called, and has values to search."""

    share: float = 0.5
    strength: float = 1.0
    name: ClassVar[str] = "callable"
    search: ClassVar = {"share": (0.2, 0.5)}

    def __call__(self): ...

    def move(self, rows, draw):
        return rows.values * self.share, rows.values != 0


def test_a_policy_that_can_be_called_is_a_policy():
    (treatment,) = make_treatments(Callable())
    assert treatment.policy == Callable()


@pytest.mark.slow
def test_results_of_a_class_of_the_session_have_no_armlet_json_and_say_so(tmp_path):
    answered = generate(ABACUS, "1+2=", policy=Callable(), max_new_tokens=2)
    tuned = evaluation.tune(ABACUS, policy=Callable(), items=12, max_new_tokens=2, trials=0, run=tmp_path / "run")
    for name, saved in {"answers": answered, "search": tuned}.items():
        paths = saved.save(tmp_path / name)
        assert "armlet.json" not in [path.name for path in paths]
        assert any("armlet.json cannot store Callable, a class of this Python" in line for line in saved.sentences())
    assert tuned.sentences()[-1].endswith("on the other items: confirm(search) in Python")


def test_no_policy_has_the_name_of_another_condition():
    names = {condition.name for condition in conditions([], []) if condition.name != "A/A"}
    assert {*names, *GATE_PLACEBOS, REPEAT} <= RESERVED_NAMES


def test_two_versions_of_a_file_are_two_conditions(tmp_path):
    texts = []
    for version in ("0.5", "0.25"):
        (tmp_path / version).mkdir()
        texts.append(write_policy(tmp_path / version, CLASS.replace("0.5", version)))
    treatments = make_treatments(texts)
    names = [condition.name for condition in conditions(treatments, [], placebos=False)]
    assert names == ["baseline", *(f"mine {treatment.plain()['sha256'][-8:]}" for treatment in treatments)]


SEARCHED = CLASS.replace("factor: float = 0.5", "low: int = 2\n    high: int = 5\n    factor: float = 0.5").replace(
    "def move",
    """search: ClassVar = {"low": (1, 2, 4), "high": (5, 8)}

    def __post_init__(self):
        if not self.low < self.high:
            raise ValueError("low must be below high")

    def move""",
)


def test_whole_numbers_stay_whole_in_a_search_and_values_that_exclude_each_other_are_refused(tmp_path):
    (treatment,) = make_treatments(write_policy(tmp_path, SEARCHED))
    space = Space(treatment, ("low", "high"), (0,), 3, 0)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    suggested = [_suggest(study.ask(), space)[0] for _ in range(3)]
    assert {type(value) for values in suggested for value in values.values()} == {int}
    (treatment,) = make_treatments(write_policy(tmp_path, SEARCHED.replace("(5, 8)", "(3, 5)")))
    with pytest.raises(ArgumentError, match=r"^mine: low=4,high=3 is refused \(ValueError: low must be below high\)"):
        Space(treatment, ("low", "high"), (0,), 3, 0)


def test_a_function_given_as_a_policy_and_a_policy_given_as_a_function_are_refused(tmp_path):
    policy = write_policy(tmp_path, f"{CLASS}\ndef change(model): ...\n")
    code, _, err = run("evaluate", ABACUS, "--policy", f"{tmp_path / 'mine.py'}:change")
    assert (code, "has no class 'change'; its classes: Mine" in err) == (2, True)
    code, _, err = run("evaluate", ABACUS, "--treatment", policy)
    assert (code, "Mine is a policy; use --policy mine.py:Mine" in err) == (2, True)
    assert [type(treatment.policy).__name__ for treatment in make_treatments([policy, f"{policy}:factor=2"])] == [
        "Mine",
        "Mine",
    ]


def test_a_link_of_the_page_runs_no_file(tmp_path):
    text = write_policy(tmp_path, "raise SystemExit(9)")
    for name in (text, "soft_threshold"):
        with pytest.raises(ArgumentError, match="the page has knobs for outward, inward, transport, cut, found"):
            from_link(f"?policy={name}")


@pytest.mark.usefixtures("by_name")
def test_a_server_refuses_a_policy_that_its_operator_does_not_know():
    with pytest.raises(ArgumentError, match=r"operator that knows the built-in policies alone.*: soft_threshold needs"):
        full_setting({"policy": "soft_threshold"})


@pytest.mark.usefixtures("by_name")
def test_a_study_refuses_a_file_and_takes_a_name():
    with pytest.raises(ArgumentError, match=r"cells may run elsewhere; found .*: register its class as an entry point"):
        StudyTreatment("soft", policy=SOFT).compared(ABACUS, "arithmetic", 0)
    assert StudyTreatment("soft", policy="soft_threshold").compared(ABACUS, "arithmetic", 0).policy.share == 0.1


def test_arguments_of_another_tool_name_a_file_with_semicolons_for_commas():
    chosen = treatment({**DEFAULTS, "policy": f"{SOFT}:share=0.3;strength=0.5", "layers": "0;2"}, None)
    assert (chosen["policy"].share, chosen["policy"].strength, chosen["layers"]) == (0.3, 0.5, [0, 2])
