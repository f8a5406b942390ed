"""The commands of docs/howto/serve.md: `vllm serve` on the loopback address, and a request to it."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
import torch

from armlet import Outward, attach
from armlet.checkpoints.pretrained import load
from armlet.cli import main
from engines import ROOT

PAGE = (ROOT / "docs/howto/serve.md").read_text("utf-8")
(SECTION,) = re.findall(r"```sh\n(vllm serve.*?)```", PAGE, flags=re.DOTALL)
(VLLM,) = re.findall(r"```python\n(import importlib.metadata\n.*?)```", PAGE, flags=re.DOTALL)
"""The command `vllm` of the CPU build."""

SERVE, CURL = SECTION.split("\n\n")
BODY = json.loads(shlex.split(CURL)[-1])
PATIENCE = 240  # seconds


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
        with attach(model, Outward(band=0.13, strength=strength)):
            texts_by_strength[strength] = text()
    return texts_by_strength


@pytest.fixture(scope="module")
def url(smollm2_folder, tmp_path_factory):
    """The server of the page's command, eager and in float32, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program, *arguments = shlex.split(SERVE)
    assert program == "vllm"
    assert str(smollm2_folder).endswith(arguments[1])
    command = [sys.executable, "-c", VLLM, *arguments]
    extra = ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--dtype", "float32"]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, *extra, "--max-model-len", "512"],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"VLLM_LOGGING_LEVEL": "INFO"},
        )
    try:
        _wait(server, f"http://127.0.0.1:{port}/health", log)
        assert "armlet: Outward(band=0.13" in log.read_text()  # one line at load says what is where
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


def test_a_request_that_means_nothing_is_answered_with_400(url):
    with pytest.raises(HTTPError) as caught:
        answer(url, vllm_xargs={"armlet": "banana"})
    assert caught.value.code == 400
    assert "must be 'on', 'off' or a strength in [0, 1], found 'banana'" in json.load(caught.value)["error"]["message"]
    assert answer(url)


def evaluated(folder, model, *options):
    """The texts of an `armlet evaluate`, by condition and item."""
    with pytest.raises(SystemExit) as exit:
        main(
            [
                "evaluate",
                model,
                *options,
                "--policy",
                "outward:band=0.13",
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
    shared = {key: text for key, text in served.items() if key[0] in ("baseline", "outward")}
    assert shared == local
    assert len({key[1] for key in local}) == 4
    assert {local["baseline", item] != local["outward", item] for _, item in local} >= {True}
