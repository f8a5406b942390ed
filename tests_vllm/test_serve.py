"""The script and the commands of docs/howto/serve.md: `vllm serve`, and requests to it."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
import torch

from armlet import Transport, attach
from armlet.checkpoints.pretrained import load
from armlet.cli import main
from doc_blocks import blocks
from doc_commands import commands
from engines import ROOT

PAGE_FILE = ROOT / "docs/howto/serve.md"
PAGE, BLOCKS = PAGE_FILE.read_text("utf-8"), blocks(PAGE_FILE)
SERVE, _ = (commands(block.text)[0] for block in BLOCKS if block.text.startswith("vllm serve"))  # then several settings
(CURL,) = (commands(block.text)[0] for block in BLOCKS if block.text.startswith("curl"))
(SCRIPT,) = (block for block in BLOCKS if block.file == "vllm_cpu.py")
(LOGGED,) = (block.text.strip() for block in BLOCKS if block.text.startswith("armlet: "))
OPTIONS = SERVE[1 : SERVE.index("2>&1")]  # of vllm, without what the shell does with the log
BODY = json.loads(CURL[-1])
SETTING = json.loads(OPTIONS[OPTIONS.index("--additional-config") + 1])["armlet"]
POLICY = Transport()
PATIENCE = 240  # seconds
ENVIRONMENT = {"VLLM_LOGGING_LEVEL": "INFO", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}  # as vLLM has it by itself


@pytest.fixture(scope="module")
def texts(smollm2_folder):
    """Hugging Face's answers by strength."""
    model, tokenizer = load(str(smollm2_folder), dtype="float32")
    ids = torch.tensor([tokenizer(BODY["prompt"])["input_ids"]])

    def text():
        answer_ids = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=32)
        return tokenizer.decode(answer_ids[0, ids.shape[1] :], skip_special_tokens=True)

    texts_by_strength = {0: text()}
    for strength in (0.5, 1):
        with attach(model, replace(POLICY, strength=strength), layers=SETTING["layers"]):
            texts_by_strength[strength] = text()
    return texts_by_strength


@pytest.fixture(scope="module")
def url(smollm2_folder, tmp_path_factory):
    """The server of the page's script and command, eager, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert str(smollm2_folder).endswith(OPTIONS[1])
    folder = tmp_path_factory.mktemp("serve")
    script, log = folder / SCRIPT.file, folder / "log"
    script.write_text(SCRIPT.text)
    command = [sys.executable, str(script), *OPTIONS, "--port", str(port), "--enforce-eager"]
    with log.open("w") as output:
        server = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=os.environ | ENVIRONMENT
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        assert LOGGED in log.read_text()
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


def _wait(server, address, log):
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and server.poll() is None:
        try:
            return urlopen(address, timeout=5)
        except (URLError, ConnectionError):
            time.sleep(1)
    return pytest.fail(f"the server did not come up: {log.read_text()[-2000:]}")


def answer(url, **changes):
    body = json.dumps({name: value for name, value in (BODY | changes).items() if value is not None})
    request = Request(f"{url}/completions", body.encode(), {"Content-Type": "application/json"})
    return json.load(urlopen(request, timeout=60))["choices"][0]["text"]


@pytest.mark.parametrize(
    ("asked", "strength"), [(BODY["vllm_xargs"], 0), (None, 1), ({"armlet": "on"}, 1), ({"armlet": 0.5}, 0.5)]
)
def test_a_request_gets_the_strength_that_it_asks_for(url, texts, asked, strength):
    assert texts[0] != texts[1]
    assert answer(url, vllm_xargs=asked, max_tokens=32) == texts[strength]


def test_the_page_says_how_the_answers_begin(url):
    stated = re.findall(r'^\| `(\{"armlet": \S+\})`.* \| `(".*")` \|$', PAGE, flags=re.MULTILINE)
    assert [json.loads(asked)["armlet"] for asked, _ in stated] == ["off", "on", 0.5]
    for asked, beginning in stated:
        assert answer(url, vllm_xargs=json.loads(asked)).startswith(json.loads(beginning))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"armlet": "?"}, "armlet must be 'on', 'off' or a strength in [0, 1], found '?'"),
        ({"armlet": "0.5"}, "found '0.5'; for example {\"armlet\": 0.5}"),
        ({"armlett": "off"}, "(over HTTP: vllm_xargs): 'armlett' means nothing here; did you mean 'armlet'?"),
    ],
)
def test_a_request_that_means_nothing_is_answered_with_400(url, asked, message):
    with pytest.raises(HTTPError) as caught:
        answer(url, vllm_xargs=asked)
    assert caught.value.code == 400
    assert message in json.load(caught.value)["error"]["message"]
    assert answer(url)


def test_a_switch_beside_vllm_xargs_is_ignored_as_the_page_warns(url):
    assert answer(url, vllm_xargs=None, armlet="off") == answer(url, vllm_xargs=None) != answer(url)


def evaluated(folder, model, *options):
    """The texts of an `armlet evaluate`, by condition and item."""
    with pytest.raises(SystemExit) as exit:
        main(
            [
                "evaluate",
                model,
                *options,
                "--policy",
                POLICY.name,
                "--max-new-tokens",
                "24",
                "--run",
                str(folder),
            ]
        )
    assert not exit.value.code
    rows = [json.loads(line) for line in (folder / "items.jsonl").read_text("utf-8").splitlines()]
    return {(row["condition"], row["item"]): row["text"] for row in rows if "text" in row}


def test_evaluate_at_one_address_gives_the_local_engines_answers(url, smollm2_folder, tmp_path):
    problems = tmp_path / "problems.jsonl"
    asked = ("What is 12 + 30?", "What is 7 * 6?", "How many days have two weeks?", "What is half of 90?")
    problems.write_text("".join(json.dumps({"problem": problem, "answer": "42"}) + "\n" for problem in asked))
    data = ("--data", str(problems))
    served = evaluated(tmp_path / "served", BODY["model"], *data, "--endpoint", url, "--treated-endpoint", url)
    local = evaluated(tmp_path / "local", str(smollm2_folder), *data, "--no-placebos", "--dtype", "float32")
    shared = {key: text for key, text in served.items() if key[0] in ("baseline", POLICY.name)}
    assert shared == local
    assert len({key[1] for key in local}) == 4
    assert {local["baseline", item] != local[POLICY.name, item] for _, item in local} >= {True}
