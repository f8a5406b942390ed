"""The command line, in process on a tiny checkpoint: what it shows, writes and refuses, and how it ends."""

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch
import typer
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from armlet import Inward, Noise, Outward, Transport, attach, load_config, redistribute
from armlet.cli import QUESTIONS, application, main
from armlet.inspection.figures import draw_inspection
from armlet.inspection.measure import activated_gates
from armlet.prompts.generation import TokenStream
from armlet.prompts.questions import BUILT_IN
from armlet.redistribution.outward import near_zero_halfwidth
from armlet.statistics.shape import MEASURES, difference, measure
from command_line import result, run, shown
from run_folder import CACHES
from tiny_checkpoints import TEMPLATE, save, words

WORDS = {name: word for words in QUESTIONS.values() for name, word in words.items()}
PROMPTS = ["w1 w2 w3 w4 w5", "w9", "w30 w20 w10"]
ASK = ("w5 w6 w7", "--max-new-tokens", 12)


@pytest.fixture(autouse=True)
def plain_terminal(tmp_path, monkeypatch):
    """Runs each test in its own folder, on 80 columns, and restores transformers' logging."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    verbosity = logging.get_verbosity()
    yield
    logging.set_verbosity(verbosity)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    """Sampling settings that greedy decoding does not use, and two limits of length, are what transformers warns of."""
    own = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "max_length": 50}
    return save(tmp_path_factory.mktemp("models") / "chatty", generation=own)


@pytest.fixture
def undrawn(monkeypatch):
    """Skips figures, for tests that are only about numbers."""
    monkeypatch.setattr("armlet.inspection.figures.draw_inspection", lambda *_, **_how: None)
    monkeypatch.setattr("armlet.presentation.style.save", lambda *_: [])


def process(code, *arguments, **environment):
    """Runs a command in a new process, after `code`."""
    command = f"{code}\nfrom armlet.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", command, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        env={
            "PATH": "",
            "PYTHONPATH": ":".join(path for path in sys.path if path),
            "COLUMNS": "80",
            **{variable: os.environ[variable] for variable in CACHES},
            **environment,
        },
        timeout=120,
        check=False,
    )


@cache
def model_of(folder):
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def hooked(folder, prompts, layer=0):
    """The activated gates, through a hook."""
    model, found = model_of(folder), []
    activation = model.model.layers[layer].mlp.act_fn
    handle = activation.register_forward_hook(lambda _module, _args, out: found.append(out[0]))
    with torch.no_grad():
        for prompt in prompts:
            model(**words()(prompt, return_tensors="pt"))
    handle.remove()
    return found


def expected(gates, policy, *, scope="token", seed=0, layer=0):
    """What `inspect` should say of a policy: its effect through `redistribute`, prompt by prompt."""
    noise = [Noise(seed).uniforms(a.shape, torch.arange(len(a)), Noise(seed).keys(a.shape[1], layer)) for a in gates]
    after = torch.cat([redistribute(a, policy, scope=scope, noise=u) for a, u in zip(gates, noise, strict=True)])
    before = torch.cat(gates)
    halfwidth = near_zero_halfwidth(before)
    ends = measure(before, halfwidth=halfwidth), measure(after, halfwidth=halfwidth)
    # A value just outside Inward's knee moves by less than rounding shows: it counts as moved, and looks the same.
    share = pytest.approx((before != after).double().mean().item(), abs=2 / before.numel())
    return {"share_moved": share, "after": ends[1], "difference": difference(*ends)}


def generated(model, prompt=(5, 6, 7), **how):
    how = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0} | how
    return model.generate(torch.tensor([prompt]), **how)[0, len(prompt) :].tolist()


# inspect


@pytest.mark.slow
def test_inspect_shows_every_measure_and_names_both_figures(folder):
    out = shown("inspect", folder, "--prompt", PROMPTS[0], "--out", "here")
    lines = out.splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    assert [name for name in names if name in MEASURES or name == "share_moved"] == ["share_moved", *MEASURES]
    heading = next(line for line in lines if line.startswith("measure"))
    assert heading.split() == ["measure", "before", "Outward", "change", "Inward", "change", "Transport", "change"]
    assert lines[-3:] == ["figure: here/inspect.png", "figure: here/inspect.svg", "written: here/inspect.json"]
    assert Path("here/inspect.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert ElementTree.parse("here/inspect.svg").getroot().tag.endswith("svg")
    assert json.loads(Path("here/inspect.json").read_text())["prompts"] == 1
    assert max(len(line) for line in lines) <= 80


@pytest.mark.slow
def test_inspect_writes_into_a_folder_of_its_own_by_default(folder):
    shown("inspect", folder, "--prompt", PROMPTS[0])
    assert {file.name for file in Path("armlet-inspect").iterdir()} == {"inspect.png", "inspect.svg", "inspect.json"}
    assert [file.name for file in Path().iterdir()] == ["armlet-inspect"]


@pytest.mark.slow
def test_json_is_one_object_on_stdout_and_the_file_is_the_same(folder):
    code, out, err = run("inspect", folder, "--prompt", PROMPTS[0], "--out", "here", "--json")
    assert (code, err) == (0, "")
    assert out == Path("here/inspect.json").read_text()
    found = json.loads(out)
    assert found["figure"] == ["here/inspect.png", "here/inspect.svg"]
    assert (found["source"], found["layer"], found["scope"], found["seed"]) == (str(folder), 0, "token", 0)
    assert (found["tokens"], found["width"], found["passed"], found["interrupted"]) == (5, 48, 0, False)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "arguments",
    [{}, {"layer": 2}, {"scope": "sequence"}, {"scope": "call", "layer": 1, "seed": 7}],
    ids=repr,
)
def test_numbers_are_those_of_a_hook_and_redistribute(folder, arguments):
    options = [text for name, value in arguments.items() for text in (f"--{name}", value)]
    prompts = [text for prompt in PROMPTS for text in ("--prompt", prompt)]
    found = result("inspect", folder, *options, *prompts)
    gates = hooked(folder, PROMPTS, arguments.get("layer", 0))
    before = torch.cat(gates)
    assert (found["tokens"], found["prompts"]) == (len(before), len(PROMPTS)) == (9, 3)
    assert found["before"] == pytest.approx(measure(before, halfwidth=near_zero_halfwidth(before)), rel=1e-5)
    for entry, policy in zip(found["policies"], (Outward(), Inward(), Transport()), strict=True):
        assert entry["policy"] == policy.name
        assert expected(gates, policy, **arguments).items() <= entry.items()


@pytest.mark.usefixtures("undrawn")
def test_policies_are_taken_in_the_order_given_with_their_settings(folder):
    given = ["transport:spread=0.5", "outward:band=0.3,share=0.1/0.3,write=add", "inward:knee=0.9,curve=clip"]
    options = [text for policy in given for text in ("--policy", policy)]
    found = result("inspect", folder, "--prompt", PROMPTS[0], *options)
    policies = [Transport(spread=0.5), Outward(band=0.3, share=(0.1, 0.3), write="add"), Inward(knee=0.9, curve="clip")]
    gates = hooked(folder, PROMPTS[:1])
    for entry, policy in zip(found["policies"], policies, strict=True):
        assert entry["policy"] == policy.name
        assert entry["strength"] == 1
        assert entry["after"] == expected(gates, policy)["after"]
    assert found["policies"][1]["share"] == [0.1, 0.3]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("command", "options"), [("inspect", ["--policy", "cut"]), ("explain", ["--layers", 0, "--count", 2])]
)
def test_html_writes_a_page_beside_the_json_and_without_it_there_is_none(command, options, folder):
    pytest.importorskip("plotly", reason="the extra page is not installed")
    asked = (command, folder, "--prompt", PROMPTS[0], *options, "--out", "here")
    assert f"written: here/{command}.html" not in shown(*asked)
    plain = json.loads(Path(f"here/{command}.json").read_text())
    assert not Path(f"here/{command}.html").exists()
    assert f"written: here/{command}.html" in shown(*asked, "--html").splitlines()
    assert json.loads(Path(f"here/{command}.json").read_text()) == plain
    assert Path(f"here/{command}.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("command", ["inspect", "explain"])
def test_html_without_plotly_is_refused_before_the_model_is_read(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    code, out, err = run(command, "no/such/model", "--html")
    assert (code, out) == (2, "")
    assert "interactive figures need an extra package: pip install 'armlet[page]'" in err


@pytest.mark.usefixtures("undrawn")
def test_prompts_come_from_options_and_then_from_a_file(folder):
    Path("prompts.txt").write_text(f"{PROMPTS[1]}\n\n{PROMPTS[2]}\n")
    found = result("inspect", folder, "--prompts", "prompts.txt", "--prompt", PROMPTS[0])
    given = [text for prompt in PROMPTS for text in ("--prompt", prompt)]
    assert found == result("inspect", folder, *given)
    assert result("inspect", folder, "--prompts", "prompts.txt")["prompts"] == 2


@pytest.mark.usefixtures("undrawn")
def test_without_a_prompt_the_built_in_ones_are_run(folder):
    found = result("inspect", folder, "--policy", "inward")
    assert found["prompts"] == len(BUILT_IN)
    assert found["tokens"] == sum(len(words()(prompt)["input_ids"]) for prompt in BUILT_IN)


@pytest.mark.usefixtures("undrawn")
def test_inspect_runs_prompts_through_the_chat_template(tmp_path, folder):
    chat = save(tmp_path / "chat", template=TEMPLATE)
    found = result("inspect", chat, "--prompt", "w5 w6")
    assert found["before"] == result("inspect", folder, "--prompt", "w1 w5 w6 w2 w3")["before"]


@pytest.mark.usefixtures("undrawn")
def test_dtype_is_the_models(folder):
    found = result("inspect", folder, "--prompt", PROMPTS[0], "--dtype", "bfloat16")
    assert found["before"] != result("inspect", folder, "--prompt", PROMPTS[0])["before"]
    assert found["before"]["l2"] == pytest.approx(
        result("inspect", folder, "--prompt", PROMPTS[0])["before"]["l2"], 0.1
    )


@pytest.mark.usefixtures("undrawn")
def test_tokens_that_overflow_are_left_out_counted_and_mentioned(folder, monkeypatch):
    def spoilt(*args):
        for gate in activated_gates(*args):
            gate[-1, 0] = float("inf")
            yield gate

    monkeypatch.setattr("armlet.inspection.run.activated_gates", spoilt)
    given = ("inspect", folder, "--prompt", "w1 w2 w9", "--prompt", "w4 w5")
    found = result(*given)
    assert (found["tokens"], found["passed"]) == (3, 2)
    assert "3 tokens, scope token; 2 tokens with NaN or Inf in their scope left out" in " ".join(shown(*given).split())
    code, out, err = run(*given, "--scope", "sequence")
    assert (code, out) == (2, "")
    assert err == "armlet: inspect: every prompt contains NaN or Inf; try another dtype, such as float32\n"


@pytest.mark.usefixtures("undrawn")
def test_synthetic_modes_become_one_under_transport():
    found = result("inspect", "--synthetic", "modes")
    transport = found["policies"][2]
    assert transport["policy"] == "transport"
    assert (found["before"]["modes"], transport["after"]["modes"]) == (5, 1)
    assert transport["difference"]["std"] < -0.2
    assert found["source"] == "the synthetic sample 'modes'"


@pytest.mark.slow
def test_synthetic_modes_are_drawn_on_the_axis_of_the_figure(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "armlet.inspection.figures.draw_inspection",
        lambda *args, **how: asked.append(how["axis"]) or draw_inspection(*args, **how),
    )
    result("inspect", "--synthetic", "modes")
    result("inspect", "--synthetic", "heavy-tail")
    assert asked == [(-4, 4), None]


@pytest.mark.usefixtures("undrawn")
def test_synthetic_heavy_tails_become_lighter_under_inward():
    change = result("inspect", "--synthetic", "heavy-tail")["policies"][1]["difference"]
    assert change["kurtosis"] < 0
    assert change["max_over_median"] < 0
    assert change["std"] < 0


@pytest.mark.parametrize("name", [".", "{folder}"])
def test_the_figure_names_the_folder_and_not_the_way_to_it(folder, monkeypatch, name):
    titles = []
    monkeypatch.setattr("armlet.inspection.figures.draw_inspection", lambda *_, **how: titles.append(how["title"]))
    monkeypatch.setattr("armlet.presentation.style.save", lambda *_: [])
    monkeypatch.chdir(folder)
    result("inspect", name.format(folder=folder), "--prompt", PROMPTS[0], "--out", folder.parent / "out")
    assert titles == ["Activated gate of tiny, 5 tokens"]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["model", "heavy-tail"])
def test_the_same_seed_gives_the_same_bytes(folder, tmp_path, monkeypatch, source):
    what = [folder, "--prompt", PROMPTS[0]] if source == "model" else ["--synthetic", source]
    files = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        torch.rand(1)  # the global generator stands elsewhere
        out = run("inspect", *what, "--seed", 3, "--json")[1]
        files.append([out, *(file.read_bytes() for file in sorted(Path("armlet-inspect").iterdir()))])
    assert len(files[0]) == 4
    assert files[0] == files[1]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("source", ["model", "modes"])
def test_another_seed_gives_other_numbers(folder, source):
    what = [folder, "--prompt", PROMPTS[0]] if source == "model" else ["--synthetic", source]
    one, other = (result("inspect", *what, "--seed", seed)["policies"][0]["after"] for seed in (3, 4))
    assert one != other


# generate


def test_baseline_is_the_untouched_models_answer_and_treated_that_with_arm(folder):
    found = result("generate", folder, *ASK, "--policy", "outward:band=0.5", "--layers", "0,2", "--seed", 3)
    model = model_of(folder)
    assert found["baseline"]["tokens"] == generated(model)
    with attach(model, Outward(band=0.5), layers=[0, 2], noise=Noise(3)) as attachment:
        assert found["treated"]["tokens"] == generated(model)
        report = attachment.report()
    assert found["report"] == {str(layer): counts for layer, counts in report.items()}
    one, other = found["baseline"]["tokens"], found["treated"]["tokens"]
    assert one != other
    assert found["first_difference"] == next(i for i in range(12) if one[i] != other[i])
    assert found["baseline"]["text"] == words().decode(one)
    assert found["treated"]["text"] == words().decode(other)
    assert (found["model"], found["prompt"]) == (str(folder), ASK[0])


def test_the_answers_stand_side_by_side_with_the_parting_token_marked(folder):
    answers = result("generate", folder, *ASK)
    out = shown("generate", folder, *ASK)
    at = answers["first_difference"]
    assert f"first difference at token {at + 1}, »marked«" in out
    columns = zip(*(line.split("│")[1:3] for line in out.splitlines() if line.startswith("│")), strict=True)
    for column, name in zip(columns, ("baseline", "treated"), strict=True):
        tokens = answers[name]["tokens"]
        marked = "".join("".join(column).split("»")[1].split("«")[0].split())
        assert marked == f"w{tokens[at]}"
        text = " ".join(" ".join(column).replace("»", " ").replace("«", " ").split())
        assert text == answers[name]["text"]


def test_a_policy_that_does_nothing_gives_the_same_answer_unmarked(folder):
    found = result("generate", folder, *ASK, "--policy", "outward:strength=0")
    assert found["baseline"] == found["treated"]
    assert found["first_difference"] is None
    assert "the same 12 tokens" in shown("generate", folder, *ASK, "--policy", "outward:strength=0")


def test_an_answer_that_ends_early_parts_where_it_ends(tmp_path, folder):
    whole = result("generate", folder, *ASK, "--policy", "outward:strength=0")["baseline"]["tokens"]
    end = next(token for token in whole[1:] if token != whole[0])
    ending = save(tmp_path / "ending", generation={"eos_token_id": end})
    found = result("generate", ending, *ASK, "--policy", "outward:strength=0")
    assert found["treated"]["tokens"] == whole[: whole.index(end) + 1]


def test_generate_applies_the_chat_template_where_there_is_one(tmp_path, folder):
    chat = save(tmp_path / "chat", template=TEMPLATE)
    found = result("generate", chat, *ASK)["baseline"]["tokens"]
    assert found == generated(model_of(folder), (1, 5, 6, 7, 2, 3)) != result("generate", folder, *ASK)["baseline"]


@pytest.mark.parametrize(
    ("text", "layers"),
    [("1", [1]), ("0,2", [0, 2]), ("2,0", [0, 2]), ("0-1", [0, 1]), ("1-2,0", [0, 1, 2]), ("all", [0, 1, 2])],
)
def test_layers_are_an_index_several_a_range_or_all(folder, text, layers):
    found = result("generate", folder, "w5", "--max-new-tokens", 1, "--layers", text)
    assert found["armlet"]["layers"] == layers
    assert list(found["report"]) == [str(layer) for layer in layers]


def test_out_holds_the_result_and_an_armlet_json_that_attaches_again(folder):
    out = run("generate", folder, *ASK, "--policy", "inward:knee=0.5", "--layers", "0-1", "--scope", "sequence",
              "--seed", 9, "--out", "new/folder", "--json")[1]  # fmt: skip
    assert out == Path("new/folder/generate.json").read_text()
    assert {file.name for file in Path("new/folder").iterdir()} == {
        *("armlet.json", "generate.json", "generate.png", "generate.svg")
    }
    loaded = load_config("new/folder")
    assert loaded == {"policy": Inward(knee=0.5), "layers": [0, 1], "scope": "sequence", "noise": Noise(9)}
    found = json.loads(out)
    assert found["armlet"] == json.loads(Path("new/folder/armlet.json").read_text())
    for place in ("new/folder", "new/folder/armlet.json"):
        assert result("generate", folder, *ASK, "--config", place) == found


def test_the_site_is_attached_shown_and_saved(folder):
    found = result("generate", folder, *ASK, "--site", "product", "--out", "new")
    with attach(model_of(folder), Outward(), site="product") as attachment:
        assert found["armlet"] == json.loads(attachment.save("own").read_text())
    model = model_of(folder)
    with attach(model, **load_config("new")):
        assert found["treated"]["tokens"] == generated(model)
    assert result("generate", folder, *ASK, "--config", "new")["treated"] == found["treated"]
    assert "product" in shown("generate", folder, *ASK, "--config", "new")
    code, _, said = run("generate", folder, *ASK, "--config", "new", "--site", "product")
    assert code == 2
    assert "--site" in said


def test_generate_writes_nothing_unless_asked_to(folder):
    shown("generate", folder, *ASK)
    assert list(Path().iterdir()) == []


def test_config_decides_what_is_attached(folder):
    Path("armlet.json").write_text('{"policy": "outward", "band": 0.5, "layers": "all", "seed": 5, "stream": 2}')
    found = result("generate", folder, *ASK, "--config", "armlet.json")
    assert (found["armlet"]["seed"], found["armlet"]["stream"]) == (5, 2)
    model = model_of(folder)
    with attach(model, Outward(band=0.5), layers="all", noise=Noise(5, stream=2)):
        assert found["treated"]["tokens"] == generated(model)


@pytest.mark.parametrize("noise", ["fresh", "midpoint"])
def test_config_may_ask_for_other_noise(folder, noise):
    Path("armlet.json").write_text(json.dumps({"policy": "outward", "noise": noise}))
    assert result("generate", folder, *ASK, "--config", "armlet.json")["armlet"]["noise"] == noise


def test_sampling_repeats_with_its_seed(folder):
    warm = ("generate", folder, *ASK, "--temperature", 1.5)
    one = result(*warm, "--seed", 3)
    assert result(*warm, "--seed", 3) == one
    assert result(*warm, "--seed", 4)["baseline"] != one["baseline"]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        assert one["baseline"]["tokens"] == generated(model_of(folder), do_sample=True, temperature=1.5)


def test_config_samples_the_saved_answer_again(folder):
    warm = ("generate", folder, *ASK, "--temperature", 1.5)
    one = result(*warm, "--seed", 3, "--out", "here")
    assert result(*warm, "--config", "here") == one


@pytest.mark.parametrize("seed", [-1, 2**64 + 1])
def test_config_may_have_any_integer_as_its_seed(folder, seed):
    Path("armlet.json").write_text(json.dumps({"policy": "outward", "seed": seed}))
    assert result("generate", folder, *ASK, "--temperature", 1.5, "--config", "armlet.json")["armlet"]["seed"] == seed


def test_both_answers_are_sampled_from_one_stream(folder):
    found = result("generate", folder, *ASK, "--temperature", 1.5, "--policy", "outward:strength=0")
    assert found["baseline"] == found["treated"]


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_generating_leaves_the_global_generator_alone(folder, temperature):
    state = torch.get_rng_state()
    result("generate", folder, *ASK, "--temperature", temperature)
    assert torch.equal(torch.get_rng_state(), state)


# Ctrl-C


def interrupt(monkeypatch, count):
    """Presses Ctrl-C at the count-th token of a command."""
    seen, put = [], TokenStream.put

    def pressing(self, value):
        put(self, value)
        if self.tokens:
            seen.append(None)
        if len(seen) == count:
            seen.append(None)
            raise KeyboardInterrupt

    monkeypatch.setattr(TokenStream, "put", pressing)


@pytest.mark.parametrize("count", [1, 5])
def test_ctrl_c_in_the_baseline_keeps_its_tokens(folder, monkeypatch, count):
    whole = result("generate", folder, *ASK)
    interrupt(monkeypatch, count)
    found = result("generate", folder, *ASK, "--out", "here", code=130)
    assert found["baseline"]["tokens"] == whole["baseline"]["tokens"][:count]
    assert found["baseline"]["interrupted"]
    assert found["treated"] is found["first_difference"] is None
    assert json.loads(Path("here/generate.json").read_text()) == found


def test_ctrl_c_in_the_treated_answer_keeps_both(folder, monkeypatch):
    whole = result("generate", folder, *ASK)
    interrupt(monkeypatch, 15)
    found = result("generate", folder, *ASK, code=130)
    assert found["baseline"] == whole["baseline"]
    assert found["treated"]["tokens"] == whole["treated"]["tokens"][:3]
    assert found["treated"]["interrupted"]


def test_ctrl_c_prints_what_there_is_as_a_table(folder, monkeypatch):
    text = result("generate", folder, *ASK)["baseline"]["tokens"][:2]
    interrupt(monkeypatch, 2)
    code, out, err = run("generate", folder, *ASK)
    assert (code, err) == (130, "interrupted: this is what there is\n")
    assert "incomplete" in out
    assert "interrupted" not in out  # stderr says it, once
    assert out.splitlines()[-1].strip() == "incomplete"  # no empty line below
    assert words().decode(text) in out


@pytest.mark.slow
def test_a_real_sigint_ends_generate_with_130_and_what_there_is(folder, chatty):
    press = """
import os, signal
from armlet.prompts.generation import TokenStream
put = TokenStream.put
def pressing(self, value):
    put(self, value)
    if len(self.tokens) == 2:
        os.kill(os.getpid(), signal.SIGINT)
TokenStream.put = pressing
"""
    found = process(press, "generate", chatty, *ASK, "--json")
    assert found.returncode == 130
    # A slow machine also says that it is loading.
    said = [line for line in found.stderr.splitlines() if not line.startswith("loading ")]
    assert said[0].startswith(f"loaded {chatty}")
    assert said[1:] == ["interrupted: this is what there is"]
    # Python may run one more step before it sees the signal.
    tokens = json.loads(found.stdout)["baseline"]["tokens"]
    assert 2 <= len(tokens) < 12
    assert tokens == result("generate", folder, *ASK)["baseline"]["tokens"][: len(tokens)]


def interrupt_inspection(monkeypatch, count):
    """Presses Ctrl-C at the prompt after the count-th."""

    def pressing(*args):
        for index, gate in enumerate(activated_gates(*args)):
            if index == count:
                raise KeyboardInterrupt
            yield gate

    monkeypatch.setattr("armlet.inspection.run.activated_gates", pressing)


@pytest.mark.slow
def test_ctrl_c_in_inspect_shows_the_prompts_so_far(folder, monkeypatch):
    prompts = [text for prompt in PROMPTS for text in ("--prompt", prompt)]
    alone = result("inspect", folder, "--prompt", PROMPTS[0], "--prompt", PROMPTS[1])
    interrupt_inspection(monkeypatch, 2)
    found = result("inspect", folder, *prompts, code=130)
    assert found == alone | {"interrupted": True}
    assert json.loads(Path("armlet-inspect/inspect.json").read_text()) == found


@pytest.mark.usefixtures("undrawn")
def test_ctrl_c_before_the_first_prompt_leaves_nothing(folder, monkeypatch):
    interrupt_inspection(monkeypatch, 0)
    code, out, err = run("inspect", folder, "--prompt", PROMPTS[0])
    assert (code, out, err) == (130, "", "interrupted: there is no result\n")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    "place",
    ["layer.reading.load_tokenizer", "inspection.run.inspect_gates", "inspection.figures.draw_inspection"],
)
def test_ctrl_c_elsewhere_ends_with_one_line(folder, monkeypatch, place):
    def press(*_args, **_how):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"armlet.{place}", press)
    assert run("inspect", folder, "--prompt", PROMPTS[0]) == (130, "", "interrupted: there is no result\n")


# bad input


@pytest.fixture(scope="module")
def places(folder, tmp_path_factory):
    """Files for bad command lines."""
    root = tmp_path_factory.mktemp("bad")
    weightless, truncated, gpt2 = (root / name for name in ("weightless", "truncated", "gpt2"))
    (save(weightless) / "model.safetensors").unlink()
    weights = save(truncated) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=64)).save_pretrained(gpt2)
    words().save_pretrained(gpt2)
    save(root / "template", template=r"{{ raise_exception('of two\n\nlines') }}")
    for name, content in {
        "file": "text\n",
        "empty.txt": "\n\n",
        "binary.txt": b"\xff\xfe",
        "torn.json": '{"policy": ',
        "newer.json": '{"policy": "outward", "version": 3}',
        "unknown.json": '{"policy": "outward", "knee": 0.9}',
        "list.json": "[]",
        "range.json": '{"policy": "inward", "knee": 99}',
        "layers.json": '{"policy": "inward", "layers": [7]}',
    }.items():
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return SimpleNamespace(tiny=folder, root=root)


INSPECT = "inspect {tiny} --prompt w1 --out out"
GENERATE = "generate {tiny} w1 --out out"
BAD = {
    "sideways": "No such command 'sideways'",
    "--sideways": "No such option: --sideways",
    f"{INSPECT} --sideways": "No such option: --sideways",
    f"{INSPECT} w2": "extra argument",
    "generate --out out": "Missing argument 'model'",
    "generate {tiny} --out out": "Missing argument 'prompt'",
    f"{INSPECT} --layer": "'--layer' requires an argument",
    "inspect {root}/absent --out out": "absent' should be a folder",
    "generate {root}/absent w1 --out out": "absent' should be a folder",
    "inspect {root}/file --out out": "found a file there",
    "inspect {root}/weightless --out out": "weightless has neither model.safetensors nor",
    "generate {root}/weightless w1 --out out": "weightless has neither model.safetensors nor",
    "inspect {root}/truncated --out out": "model.safetensors is truncated or damaged",
    "generate {root}/truncated w1 --out out": "model.safetensors is truncated or damaged",
    "inspect {root}/gpt2 --prompt w1 --out out": "GPT2LMHeadModel, layer 0: expected one gated MLP",
    "generate {root}/gpt2 w1 --out out": "GPT2LMHeadModel",
    "inspect {root}/template --prompt w1 --out out": "the chat template cannot be used",
    "generate {root}/template w1 --out out": "the chat template cannot be used (TemplateError: of two lines)",
    f"{INSPECT} --layer 3": "has layers 0 to 2, found 3",
    f"{INSPECT} --layer -1": "layer: expected an integer of at least 0, found -1",
    f"{INSPECT} --layer one": "Invalid value for '--layer'",
    f"{GENERATE} --layers 0,3": "has layers 0 to 2, found 3",
    f"{GENERATE} --layers 2-1": "the range 2-1 is empty; write 1-2",
    f"{GENERATE} --layers -1": "expected indices such as 0 or 0,3 or 0-5, or all, found '-1'",
    f"{GENERATE} --layers 0-99999999999": "expected indices",
    f"{GENERATE} --layers every": "expected indices",
    f"{INSPECT} --policy sideways": "expected one of outward, inward, transport, cut, found 'sideways'",
    f"{GENERATE} --policy sideways": "expected one of outward, inward, transport, cut, found 'sideways'",
    f"{INSPECT} --policy outward:knee=1": "outward: unknown knee; expected band, ceiling",
    f"{INSPECT} --policy outward:band=0": "band must be a number in (0, inf), found 0.0",
    f"{GENERATE} --policy outward:band=0": "band must be a number in (0, inf), found 0.0",
    f"{INSPECT} --policy outward:band": "expected settings as name=value",
    f"{INSPECT} --policy outward:share=0.3/0.1": "share must be (low, high)",
    f"{INSPECT} --policy outward:ceiling=99.5": "ceiling must be a number in [0, 1], found 99.5",
    f"{INSPECT} --policy inward:curve=wavy": "curve must be 'log', 'clip' or 'tanh', found 'wavy'",
    INSPECT + "".join(f" --policy inward:knee=0.{n}" for n in range(4)): "expected up to 3, as in the figure, found 4",
    f"{INSPECT} --scope word": "'word' is not one of 'token', 'sequence', 'call'",
    f"{INSPECT} --site word": "'word' is not one of 'gate', 'up', 'product'",
    f"{GENERATE} --scope word": "'word' is not one of 'token', 'sequence', 'call'",
    f"{INSPECT} --prompts {{root}}/absent": "absent cannot be read (No such file or directory)",
    f"{INSPECT} --prompts {{root}}": "cannot be read (Is a directory)",
    f"{INSPECT} --prompts {{root}}/binary.txt": "binary.txt cannot be read (it is not UTF-8 text)",
    f"{INSPECT} --prompts {{root}}/empty.txt": "empty.txt contains no prompt",
    f"{INSPECT} --synthetic modes": "has no effect on a synthetic sample; leave it out",
    "inspect --synthetic modes --prompt w1 --out out": "has no effect on a synthetic sample; leave it out",
    "inspect --synthetic modes --prompts {root}/file --out out": "has no effect on a synthetic sample; leave it out",
    "inspect --synthetic modes --layer 1 --out out": "has no effect on a synthetic sample; leave it out",
    "inspect --synthetic waves --out out": "'waves' is not one of 'modes', 'heavy-tail'",
    f"{INSPECT} --dtype float7": "dtype: expected auto, float32, bfloat16",
    f"{INSPECT} --device nowhere": "device 'nowhere' cannot be used here",
    f"{INSPECT} --seed -1": "Invalid value for '--seed'",
    f"{INSPECT} --seed 9223372036854775808": "Invalid value for '--seed'",
    f"{GENERATE} --seed 9223372036854775808": "Invalid value for '--seed'",
    f"{GENERATE} --config {{root}}/absent.json": "absent.json: cannot be read",
    f"{GENERATE} --config {{root}}/torn.json": "torn.json: is not JSON",
    f"{GENERATE} --config {{root}}/list.json": "list.json: expected an object, found list",
    f"{GENERATE} --config {{root}}/newer.json": "newer.json: has version 3, but this armlet reads up to 2",
    f"{GENERATE} --config {{root}}/unknown.json": "unknown.json: outward: unknown knee",
    f"{GENERATE} --config {{root}}/range.json": "range.json: Inward: knee must be a number in [0, 1], found 99",
    f"{GENERATE} --config {{root}}/layers.json": "has layers 0 to 2, found 7",
    f"{GENERATE} --config {{root}}/torn.json --policy inward": "--config sets the policy, its place and the seed",
    f"{GENERATE} --config {{root}}/torn.json --layers all": "--config sets the policy, its place and the seed",
    f"{GENERATE} --config {{root}}/torn.json --scope call": "--config sets the policy, its place and the seed",
    f"{GENERATE} --config {{root}}/torn.json --seed 1": "--config sets the policy, its place and the seed",
    f"{GENERATE} --max-new-tokens 0": "Invalid value for '--max-new-tokens'",
    f"{GENERATE} --temperature -0.5": "Invalid value for '--temperature'",
    f"{GENERATE} --temperature nan": "Invalid value for '--temperature'",
    f"{GENERATE} --temperature warm": "Invalid value for '--temperature'",
    "inspect {tiny} --prompt w1 --out {root}/file": "file is a file",
    "inspect {tiny} --prompt w1 --out {root}/file/below/it": "file is a file",
    "generate {tiny} w1 --out {root}/file/below/it": "file is a file",
    "generate {tiny} \udcff --out out": "is not UTF-8 text",
    "inspect {tiny} --prompt w1 --out out\udcff": "is not UTF-8 text",
}


@pytest.mark.slow
@pytest.mark.parametrize("line", BAD)
def test_bad_input_exits_2_with_one_line_and_leaves_nothing(places, line):
    before = {file: file.stat().st_mtime_ns for file in places.root.rglob("*")}
    arguments = [part.format(**vars(places)) for part in line.split()]
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("armlet: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert BAD[line] in err
    assert list(Path().iterdir()) == []
    assert {file: file.stat().st_mtime_ns for file in places.root.rglob("*")} == before


@pytest.mark.parametrize("line", [f"{INSPECT} --layer 3", f"{GENERATE} --layers 3", "sideways"])
def test_bad_input_leaves_stdout_empty_under_json_too(places, line):
    code, out, err = run(*line.format(**vars(places)).split(), "--json")
    assert (code, out) == (2, "")
    assert BAD.get(line, "has layers 0 to 2, found 3") in err


@pytest.mark.parametrize("template", [None, TEMPLATE])
@pytest.mark.parametrize("command", ["inspect", "generate"])
def test_an_empty_prompt_is_bad_input_even_where_a_template_adds_tokens(tmp_path, command, template):
    arguments = ["--prompt", ""] if command == "inspect" else [""]
    refusal = f"armlet: {'--' * (command == 'inspect')}prompt: it is empty; write a question\n"
    assert run(command, save(tmp_path / "tiny", template=template), *arguments) == (2, "", refusal)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_abacus_is_a_name_for_every_command():
    found = result("generate", "abacus", "8*(36+27)-90+14", "--policy", "outward:strength=0")
    assert found["baseline"]["text"] == "36+27=63;8*63=504;504-90=414;414+14=428#428"
    assert result("inspect", "abacus", "--prompt", "12+7")["source"] == "abacus"
    assert result("explain", "abacus", "--prompt", "12+7", "--count", 5, "--layers", 0)["source"] == "abacus"


@pytest.mark.parametrize(
    "line", [("inspect", "nobody/nothing"), ("explain", "nobody/nothing"), ("generate", "nobody/nothing", "w1")]
)
def test_a_hub_id_that_nobody_answers_for_is_bad_input(monkeypatch, line):
    def no_network(*_args, **_how):
        raise ConnectionError("no network\n\nplease check")

    monkeypatch.setattr("huggingface_hub.snapshot_download", no_network)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("armlet.checkpoints.hub_requests.PAUSE", 0)
    code, out, err = run(*line, "--out", "out")
    assert (code, out) == (2, "")
    assert err.startswith("armlet: 'nobody/nothing' is not a local folder, and the hub")
    assert "did not provide it: check the name or the network" in err
    assert err.count("\n") == 1


def test_a_folder_that_may_not_be_written_to_is_refused_before_the_model_is_loaded(folder, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr("armlet.checkpoints.given.load", None)
    code, out, err = run("generate", folder, *ASK, "--out", "here")
    assert (code, out) == (2, "")
    assert err.startswith("armlet: --out: here cannot be written")


def test_a_disk_that_fills_up_is_one_line_below_the_answers(folder, monkeypatch):
    def full(*_args, **_how):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    code, out, err = run("generate", folder, *ASK, "--out", "here")
    assert (code, err) == (2, "armlet: here/armlet.json: cannot be written (No space left on device)\n")
    assert "baseline" in out
    assert "written" not in out


@pytest.mark.parametrize(
    ("line", "option"),
    [
        (f"{GENERATE} --policy outward --policy inward", "--policy"),
        (f"{GENERATE} --layers=0 --seed 1 --layers 1", "--layers"),
        (f"{INSPECT} --json --json", "--json"),
        ("evaluate --placebos --no-placebos", "--placebos"),
        ("tune --items 4 --trials 1 --items 4", "--items"),
    ],
)
def test_an_option_that_takes_one_value_is_refused_the_second_time(line, option):
    refusal = f"armlet: Option '{option}' was given 2 times, and takes one value; leave out the others\n"
    assert run(*line.split()) == (2, "", refusal)


def test_lm_evals_own_options_may_be_repeated(monkeypatch):
    passed = []
    monkeypatch.setattr("armlet.integrations.lm_eval.register", lambda: None)
    module = SimpleNamespace(cli_evaluate=lambda: passed.append(sys.argv))
    monkeypatch.setitem(sys.modules, "lm_eval.__main__", module)
    monkeypatch.setitem(sys.modules, "lm_eval", SimpleNamespace(__main__=module))
    shown("lm-eval", "--tasks", "a", "--tasks", "b")
    assert passed[0][1:5] == ["--tasks", "a", "--tasks", "b"]


def test_an_unforeseen_error_is_not_hidden(folder, monkeypatch):
    monkeypatch.setattr("armlet.layer.reading.load_tokenizer", None)
    with pytest.raises(TypeError):
        main(["inspect", str(folder)])


@pytest.mark.slow
def test_bad_input_in_a_process_of_its_own_has_no_traceback(places):
    found = process("", "inspect", "--policy", "outward:band=0", "--out", places.root / "out")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("armlet: ")
    assert found.stderr.count("\n") == 1
    assert not (places.root / "out").exists()


# help, and what is on stdout


@pytest.mark.parametrize("arguments", [[], ["--help"]], ids=repr)
def test_armlet_alone_shows_its_commands(arguments):
    out = shown(*arguments)
    listed = out.partition("this message and exit.")[2].splitlines()
    assert [line for line in listed if line[:1].strip()] == list(QUESTIONS)
    assert [line.split()[0] for line in listed if line[:2] == "  " and line[2:3].strip()] == list(WORDS)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("word", WORDS)
def test_every_example_in_the_help_stands_on_one_line_and_parses(word):
    line = f"$ armlet {word} {WORDS[word].example}"
    assert line in [text.strip() for text in shown("--help").splitlines()]
    Path("search").mkdir()
    context = typer.main.get_command(application()).commands[word].make_context(word, shlex.split(line)[3:])
    assert context.params or context.args


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("inspect", "layer policy scope site prompt prompts synthetic out seed dtype device html json"),
        ("generate", "policy layers scope site experts config max-new-tokens temperature out seed dtype device json"),
    ],
)
def test_help_of_a_command_names_every_option(command, options):
    out = shown(command, "--help")
    named = [line.split()[0] for line in out.splitlines() if line.strip().startswith("--")]
    assert named == [f"--{option}" for option in (*options.split(), "help")]
    assert WORDS[command].command.__doc__.split(":")[0] in " ".join(out.split())


def test_main_takes_the_process_arguments_by_default(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["armlet", "sideways"])
    with contextlib.redirect_stderr(io.StringIO()) as err, pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "sideways" in err.getvalue()


@pytest.mark.slow
def test_stdout_holds_the_json_alone_however_much_transformers_has_to_say(chatty):
    found = process("", "generate", chatty, *ASK, "--json", TRANSFORMERS_VERBOSITY="debug")
    assert found.returncode == 0
    assert "[transformers]" in found.stderr
    assert len(json.loads(found.stdout)["baseline"]["tokens"]) == 12


def test_an_error_about_an_argument_names_its_option_as_it_is_typed():
    code, out, err = run("evaluate", "abacus", "--items", 4, "--allow-code-execution")
    assert (code, out) == (2, "")
    assert err == "armlet: --allow-code-execution: none of these tasks runs programs; leave it out\n"


@pytest.mark.slow
def test_a_command_ends_without_a_search_for_garbage():
    last = "import atexit, gc; atexit.register(lambda: print('frozen', gc.get_freeze_count() > 0))"
    program = f"{last}; from armlet.cli import main; main(['--version'])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "frozen True"
