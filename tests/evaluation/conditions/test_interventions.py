"""A user's function as a treatment: judged as ARM is, and refused where it leaves a change or is no context manager."""

import hashlib
import json
from contextlib import contextmanager

import pytest
import torch

from armlet import Inward, Outward, attach, load_config
from armlet.checkpoints.folder import abacus
from armlet.checkpoints.identity import model_state
from armlet.checkpoints.pretrained import load
from armlet.evaluation import evaluate
from armlet.evaluation.conditions.conditions import Condition, conditions, make_treatments
from armlet.evaluation.conditions.interventions import make_intervention, read_intervention
from armlet.evaluation.engines.endpoint import Endpoint
from armlet.evaluation.report.sentences import arm_checks, title
from armlet.integrations.vllm.engine import check_conditions
from armlet.redistribution.errors import ArgumentError
from command_line import run

FILE = """
from contextlib import contextmanager

@contextmanager
def doubles(model):
    weight = model.model.layers[0].mlp.gate_proj.weight
    weight.data.mul_(2)
    yield
    weight.data.div_(2)

@contextmanager
def nothing(model):
    yield

@contextmanager
def forgets_a_hook(model):
    model.model.layers[1].register_forward_hook(lambda *_: None)
    yield

@contextmanager
def forgets_a_weight(model):
    model.lm_head.weight.data[0, 0] += 1
    yield

@contextmanager
def adds_and_subtracts(model):
    model.model.norm.weight.data += 1
    yield
    model.model.norm.weight.data -= 1

@contextmanager
def leaves_a_default_dtype(model):
    import torch
    torch.set_default_dtype(torch.float64)
    yield

@contextmanager
def ends_the_program(model):
    raise SystemExit(3)
    yield

@contextmanager
def gives_nan(model):
    hook = model.lm_head.register_forward_hook(lambda module, given, output: output * float("nan"))
    try:
        yield
    finally:
        hook.remove()

@contextmanager
def replaces_a_method(model):
    model.model.norm.forward = lambda values: values
    yield

@contextmanager
def fails(model):
    raise ValueError("no such layer\\nand more")
    yield

@contextmanager
def breaks_the_model(model):
    hook = model.model.layers[0].register_forward_hook(lambda module, given, output: output[:, :, :3])
    try:
        yield
    finally:
        hook.remove()

@contextmanager
def hides_errors(model):
    hook = model.model.layers[0].register_forward_hook(lambda *_: 1 / 0)
    try:
        yield
    except ZeroDivisionError:
        pass
    finally:
        hook.remove()

def undecorated(model):
    yield

def returns_the_model(model):
    return model

CONSTANT = 3
"""
CHOICE = [{"question": "1+1=", "choices": ["2", "3"], "gold": 0}]
FEW = {"items": 6, "difficulty": 1, "batch": 3}


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def default_dtype():
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def loaded():
    return load(str(abacus()))


@contextmanager
def negated_norm(model):
    """Changes the sign of the last norm's weight."""
    model.model.norm.weight.data.neg_()
    yield
    model.model.norm.weight.data.neg_()


def test_a_treatment_is_named_after_file_and_function_and_recognised_by_the_files_content(file):
    treatment = read_intervention(f"{file}:doubles")
    digest = hashlib.sha256(FILE.encode()).hexdigest()
    assert treatment.plain() == {"file": "mine.py", "function": "doubles", "sha256": digest}
    (base, treated) = conditions([treatment], [], placebos=False)
    assert (base.treatment, treated.name, treated.role) == (None, "mine.py:doubles", "treated")
    file.write_text(FILE + "# changed\n")
    assert read_intervention(f"{file}:doubles").plain() != treatment.plain()


def test_a_function_that_is_passed_as_an_object_is_equal_to_itself_only():
    def other(model):
        return negated_norm(model)

    first, again, another = (make_intervention(function).plain() for function in (negated_norm, negated_norm, other))
    assert first == again
    assert first["sha256"] != another["sha256"]
    assert [treatment.name for treatment in make_treatments([negated_norm, other, negated_norm])] == [
        "negated_norm",
        "other",
    ]


def test_a_function_has_no_placebo_at_the_gate_and_a_policy_beside_it_keeps_all(file):
    function = read_intervention(f"{file}:nothing")
    assert [c.name for c in conditions([function], [])] == ["baseline", "mine.py:nothing", "A/A", "temperature"]
    both = conditions([function, *make_treatments(Outward())], [])
    placebos = ["identity", "draw-only", "matched (outward)", "zeroed (outward)", "A/A", "temperature"]
    assert [c.name for c in both][3:] == placebos


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("absent.py:doubles", r"^treatment: absent.py cannot be read \(No such file or directory\)$"),
        ("mine.py", "^treatment: expected file.py:function, found 'mine.py'$"),
        ("mine.py:a b", "^treatment: expected file.py:function, found 'mine.py:a b'$"),
        ("mine.py:halves", "^treatment: mine.py has no function 'halves'; its functions: .*doubles, nothing"),
        ("mine.py:CONSTANT", "^treatment: mine.py has no function 'CONSTANT'"),
        ("wrong.py:doubles", r"^treatment: wrong.py cannot be run \(SyntaxError: "),
        ("exits.py:doubles", r"^treatment: exits.py cannot be run \(SystemExit: 3; exits.py, line 2\)$"),
    ],
)
def test_what_is_no_function_of_a_file_is_one_line(tmp_path, text, message):
    (tmp_path / "wrong.py").write_text("def doubles(model:\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(ArgumentError, match=message) as caught:
        make_treatments(text)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("forgets_a_hook", "changed the hooks of model.layers.1 and did not restore it"),
        ("forgets_a_weight", r"changed .*weight and did not restore it"),
        ("adds_and_subtracts", r"changed model\.norm\.weight and did not restore it"),
        ("replaces_a_method", "changed the functions of model.norm and did not restore it"),
        ("leaves_a_default_dtype", "changed torch's default dtype and did not restore it"),
        ("fails", "ValueError: no such layer$"),
        ("ends_the_program", "SystemExit: 3$"),
        ("breaks_the_model", "RuntimeError: "),
        ("hides_errors", "it hid an error of the model"),
        ("undecorated", "expected a context manager, found generator; decorate it with contextlib.contextmanager"),
        ("returns_the_model", "expected a context manager, found Qwen2ForCausalLM; see examples/treatments.py"),
    ],
)
@pytest.mark.usefixtures("default_dtype")
def test_a_function_that_fails_or_leaves_a_change_is_refused_before_the_baseline(file, function, message):
    with pytest.raises(ArgumentError, match=rf"^treatment mine\.py:{function}: {message}") as caught:
        evaluate(*load(str(abacus())), treatments=f"{file}:{function}", **FEW, run="run")
    assert "\n" not in str(caught.value)
    assert not (file.parent / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "task", [None, [{"question": "1+1=", "choices": ["2", "3"], "gold": 0}]], ids=["sums", "choice"]
)
def test_answers_from_logits_that_are_nan_are_refused_with_their_condition(file, loaded, task):
    asked = FEW if task is None else {"task": task}
    with pytest.raises(ArgumentError, match=r"^condition mine\.py:gives_nan: the model's logits are NaN, .*; correct"):
        evaluate(*loaded, treatments=f"{file}:gives_nan", **asked, run="run")


@pytest.mark.slow
def test_a_function_is_judged_with_the_pairs_of_arm_and_the_model_is_as_before(file, loaded, capsys):
    before = model_state(loaded[0], whole=True)
    findings = evaluate(*loaded, treatments=[f"{file}:doubles", negated_norm, f"{file}:nothing"], **FEW, run="run")
    assert model_state(loaded[0], whole=True) == before
    (task,) = findings.tasks
    judged = [str(pair.treated) for pair in task.comparisons if pair.judged]
    assert judged == ["mine.py:doubles", "negated_norm", "mine.py:nothing"]
    assert task.unchanged["mine.py:nothing"] == 6 > task.unchanged["negated_norm"]
    assert [check.ok for check in arm_checks(task)] == [True, True, False]
    assert "the treatment changed no output" in findings.sentences()[2]
    assert title(findings) == "Does the treatment help abacus?"
    notes = capsys.readouterr().err
    assert "left out for mine.py:doubles, negated_norm, mine.py:nothing: placebos at the gate" in notes
    assert "treatment mine.py:nothing changes nothing: no logit of a fixed prompt is different" in notes


@pytest.mark.slow
def test_a_changed_file_is_another_run(file):
    first = evaluate(treatments=f"{file}:nothing", **FEW, placebos=False)
    assert evaluate(treatments=f"{file}:nothing", **FEW, placebos=False).folder == first.folder
    file.write_text(FILE + "# changed\n")
    assert evaluate(treatments=f"{file}:nothing", **FEW, placebos=False).folder != first.folder


@pytest.mark.slow
def test_the_command_runs_a_function_in_place_of_the_default_policy_or_beside_one(file):
    options = ("--items", "4", "--difficulty", "1", "--no-placebos", "--json")
    code, out, _ = run("evaluate", "--treatment", f"{file}:doubles", *options)
    assert (code, '"outward"' in out, '"mine.py:doubles"' in out) == (0, False, True)
    code, out, _ = run("evaluate", "--treatment", f"{file}:doubles", "--policy", "inward", *options)
    assert (code, '"inward"' in out, '"mine.py:doubles"' in out) == (0, True, True)
    code, out, err = run("evaluate", "--treatment", f"{file}:doubles", "--layers", "1", *options)
    assert (code, out) == (2, "")
    assert "they apply to a policy" in err


def test_a_server_and_vllm_refuse_a_function(file):
    treated = Condition("mine.py:doubles", "treated", treatment=read_intervention(f"{file}:doubles"))
    with pytest.raises(ArgumentError, match=r"a server cannot run a function in its model: mine\.py:doubles"):
        Endpoint("http://127.0.0.1:1/v1", model="m", treated_endpoint="http://127.0.0.1:2/v1").check([treated])
    with pytest.raises(ArgumentError, match=r"cannot run a function in its model: mine\.py:doubles"):
        check_conditions([treated], [])


PLACEMENTS = [
    {"policy": Inward(limit=0.2), "layers": "all"},
    {"policy": Inward(limit=0.5), "site": "up", "layers": [1]},
]


@pytest.mark.slow
def test_an_armlet_json_with_several_placements_is_one_treatment(tmp_path):
    model, tokenizer = load(str(abacus()))
    with attach(model, PLACEMENTS) as attachment:
        path = attachment.save(tmp_path)
    treated = []
    for name, given in {"file": path, "arguments": load_config(path)}.items():
        evaluate(model, tokenizer, treatments=[given], **FEW, run=name)
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        treated += [condition for condition in manifest["conditions"] if condition["treatment"]]
        assert json.loads(treated[-1]["treatment"]["placements"]) == json.loads(path.read_text())
    assert len(treated) == 2
    assert treated[0]["name"] == treated[1]["name"]
    assert treated[0]["name"].startswith("2 placements (")


def test_outward_among_several_placements_is_refused_by_an_evaluation():
    several = {"policy": [{"policy": Outward()}, {"policy": Inward(), "site": "up"}]}
    with pytest.raises(ArgumentError, match="the same noise for outward in each sample"):
        make_treatments([several])
