"""The embedded model: its files, tokens and accuracy, and its reproducible training."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import armlet
from armlet.checkpoints.pretrained import load
from armlet.evaluation.tasks.arithmetic import DIFFICULTY, LEVELS, exercise, split_of, stated, worked
from armlet.prompts.fillers import Filler, Position, filler_tokens, make_prompt

FOLDER = Path(armlet.__file__).parent / "checkpoints" / "abacus"
SCRIPT = Path(__file__).parents[2] / "examples" / "train_abacus.py"
KNOWN = "0123456789+-*()=;#?/.~ ,!':\nabcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

problems = st.builds(lambda at, level: exercise(at, difficulty=level), st.integers(0, 9999), st.sampled_from([*LEVELS]))


@pytest.fixture(scope="module")
def abacus():
    return load(str(FOLDER))


@pytest.fixture(scope="module")
def tokenizer(abacus):
    return abacus[1]


@pytest.fixture(scope="module")
def answers(abacus):
    """(problem, answer), greedily, of 256 test problems."""
    model, tokenizer = abacus
    asked = [exercise(index) for index in range(256)]
    prompts = [make_prompt(tokenizer, each.question, system="").words for each in asked]
    batch = tokenizer(["".join(words) for words in prompts], return_tensors="pt", padding=True)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two that wait for each other on a busy machine are several times slower
    made = model.generate(**batch)[:, batch["input_ids"].shape[1] :]
    torch.set_num_threads(threads)
    assert (made == tokenizer.eos_token_id).any(dim=1).all()
    return list(zip(asked, tokenizer.batch_decode(made, skip_special_tokens=True), strict=True))


def test_the_folder_is_whole_and_small():
    files = {file.name for file in FOLDER.iterdir()}
    needed = {"config.json", "generation_config.json", "model.safetensors", "README.md"}
    assert needed | {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} == files
    assert (FOLDER / "model.safetensors").stat().st_size <= 4_000_000


def test_it_is_a_gated_qwen2_of_at_most_a_million_parameters(abacus):
    model, _ = abacus
    assert (type(model).__name__, model.config.hidden_act, model.dtype) == ("Qwen2ForCausalLM", "silu", torch.float32)
    assert 700_000 < model.num_parameters() <= 1_000_000


def test_no_file_holds_a_path_of_the_machine_that_wrote_it():
    for file in FOLDER.iterdir():
        head = file.read_bytes()[:20_000].decode("utf-8", "replace")
        assert not any(place in head for place in ("/tmp", "/home", "/work", "/root"))


@given(st.text(KNOWN))
def test_what_is_encoded_decodes_to_itself_one_token_a_character(tokenizer, text):
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert tokenizer.decode(encoded["input_ids"]) == text
    assert encoded["offset_mapping"] == [(at, at + 1) for at in range(len(text))]
    assert tokenizer.unk_token_id not in encoded["input_ids"]


def test_the_bytes_of_other_characters_are_tokens_that_look_like_the_unknown_one(abacus):
    model, tokenizer = abacus
    encoded = tokenizer("1é2", return_offsets_mapping=True)
    assert encoded["offset_mapping"] == [(0, 1), (1, 2), (1, 2), (2, 3)]
    assert tokenizer.decode(encoded["input_ids"]) == "1é2"
    table = model.get_input_embeddings().weight
    others = encoded["input_ids"][1:3]
    assert all(torch.equal(table[token], table[tokenizer.unk_token_id]) for token in others)


def test_padding_stands_at_the_left(tokenizer):
    batch = tokenizer(["1+2=?", "3=?"], padding=True)
    assert batch["input_ids"][1][:2] == [tokenizer.pad_token_id] * 2
    assert batch["attention_mask"] == [[1] * 5, [0, 0, 1, 1, 1]]


def test_the_chat_template_writes_what_the_model_was_trained_on(tokenizer):
    turns = [{"role": "user", "content": "2*3"}, {"role": "assistant", "content": "2*3=6#6"}]
    assert tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, tokenize=False) == "2*3=?"
    assert tokenizer.apply_chat_template(turns, tokenize=False) == "2*3=?2*3=6#6<eos>"


@given(problems)
def test_a_prompt_has_a_place_for_fillers_of_any_kind(tokenizer, problem):
    size = len(problem.question)
    places: dict[Position, int] = {"before": 0, "between": 0, "end": size}
    for position, at in places.items():
        prompt = make_prompt(tokenizer, problem.question, system="", position=position)
        assert ("".join(prompt.words), prompt.insert_at, prompt.question) == (f"{problem.question}=?", at, (0, size))
        run = filler_tokens(tokenizer, Filler("/", 25))
        text = f"{problem.question[:at]}{'/' * 25}{problem.question[at:]}=?"
        assert tokenizer.decode(prompt.filled(run)) == text


@pytest.mark.slow
def test_it_answers_seven_in_ten_and_in_the_form_it_was_taught(answers):
    right = sum(stated(answer) == problem.value for problem, answer in answers)
    assert 0.55 <= right / len(answers) <= 0.9
    assert all(answer.count("#") == 1 and stated(answer) is not None for _, answer in answers)


@pytest.mark.slow
def test_its_errors_are_slips_in_the_steps(answers):
    """Almost every answer has as many steps as the question has operations, and states its own last result."""
    kept = [answer.count(";") + 1 == LEVELS[DIFFICULTY].operations for _, answer in answers]
    own = [answer.rpartition("=")[2] == "#".join([str(stated(answer))] * 2) for _, answer in answers]
    assert min(sum(kept), sum(own)) >= 0.95 * len(answers)


def test_the_card_says_what_was_measured(answers):
    card = (FOLDER / "README.md").read_text()
    row = next(line for line in card.splitlines() if line.startswith(f"| {DIFFICULTY} |"))
    share = float(row.split("|")[-2])
    right = sum(stated(answer) == problem.value for problem, answer in answers) / len(answers)
    # Five standard errors of the share among as many problems.
    assert abs(share - right) < 5 * (share * (1 - share) / len(answers)) ** 0.5


@pytest.fixture(scope="module")
def script():
    """The example as a module, run with one thread."""
    threads = torch.get_num_threads()
    sys.path.insert(0, str(SCRIPT.parent))
    torch.set_num_threads(1)
    yield importlib.import_module(SCRIPT.stem)
    torch.set_num_threads(threads)
    sys.path.remove(str(SCRIPT.parent))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder that two steps of the example's training write."""
    folder = tmp_path_factory.mktemp("trained") / "abacus"
    command = [sys.executable, SCRIPT, "--out", folder, "--steps", "2", "--seed", "3", "--problems", "1"]
    paths = os.pathsep.join(filter(None, (str(Path(armlet.__file__).parents[1]), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_example_writes_a_folder_like_the_embedded_one(trained, abacus):
    assert {file.name for file in trained.iterdir()} == {file.name for file in FOLDER.iterdir()}
    for file in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        mine, embedded = (json.loads((folder / file).read_text()) for folder in (trained, FOLDER))
        mine.pop("transformers_version", None), embedded.pop("transformers_version", None)  # who wrote it
        assert mine == embedded
    model, tokenizer = load(str(trained))
    assert shapes(model) == shapes(abacus[0])
    assert tokenizer.get_vocab() == abacus[1].get_vocab()


def shapes(model):
    return {name: weight.shape for name, weight in model.state_dict().items()}


def weights_after(script, seed):
    """The same two steps without the command line."""
    torch.manual_seed(seed)
    tokenizer = script.make_tokenizer()
    model = script.make_model(tokenizer)
    script.train(model, tokenizer, 2, seed)
    script.extend_to_all_bytes(model, tokenizer)
    return model.state_dict()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_one_others(trained, script):
    written = load(str(trained))[0].state_dict()
    same, other = weights_after(script, 3), weights_after(script, 4)
    assert all(torch.equal(weight, same[name]) for name, weight in written.items())
    name = "model.layers.0.mlp.gate_proj.weight"
    assert not torch.equal(written[name], other[name])


def test_training_asks_no_test_question_and_leaves_the_prompt_out_of_the_loss(script):
    tokenizer = script.make_tokenizer()
    tokens, labels = next(script.batches(tokenizer, 0, 100))
    for row, asked in zip(labels, tokens, strict=True):
        answer = tokenizer.decode(row[row != script.IGNORED], skip_special_tokens=True)
        prompt = tokenizer.decode(asked, skip_special_tokens=True).partition("=?")[0]
        assert answer.count("#") == 1
        assert stated(answer) is not None
        assert set(re.findall(r"[+*-]", prompt)) >= set(re.findall(r"\d([+*-])", answer))
        if re.fullmatch(r"[0-9+*()-]+", prompt):
            assert (split_of(prompt), worked(prompt).answer) == ("train", answer)


def test_a_folder_that_exists_is_left_alone(tmp_path, script):
    with pytest.raises(SystemExit, match="exists already; remove it to train again"):
        script.main(tmp_path)
    assert not list(tmp_path.iterdir())
