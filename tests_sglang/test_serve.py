"""`sglang serve` with ARM, over HTTP, as docs/howto/serve.md says: SmolLM2's answers, and a refusal."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from armlet import Transport, attach

MODEL = Path(__file__).parents[1] / "models/smollm2-135m-instruct"
PROMPT = "The capital of France is"
OPTIONS = "--device cpu --attention-backend torch_native --sampling-backend pytorch --dtype float32 --log-level info"
SETTING = {"armlet": {"policy": "transport", "layers": [0]}}
START = 500  # seconds


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server, and the file of its log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "server.log"
    sglang = [sys.executable, "-c", "from sglang.cli.main import main; main()"]  # what the command `sglang` runs
    command = [*sglang, "serve", "--model-path", str(MODEL), "--port", str(port), *OPTIONS.split()]
    command += ["--max-total-tokens", "2048", "--json-model-override-args", json.dumps(SETTING)]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        wait(process, f"{address}/health", log)
        yield address, log
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def wait(process, url, log):
    for _ in range(START):
        try:
            return urllib.request.urlopen(url, timeout=5)
        except OSError:
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(1)
    raise TimeoutError(log.read_text()[-3000:])


def complete(address, armlet):
    body = {"model": "m", "prompt": PROMPT, "max_tokens": 16, "temperature": 0}
    body |= {} if armlet is None else {"custom_params": {"armlet": armlet}}
    request = urllib.request.Request(
        f"{address}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["choices"][0]["text"]


def test_a_request_over_http_gets_hugging_face_s_answer_at_its_strength(server):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    answers = set()
    for asked, strength in (("off", 0.0), (0.5, 0.5), ("on", 1.0), (None, 1.0)):
        with attach(model, Transport(strength=strength), layers=0):
            tokens = model.generate(ids, do_sample=False, max_new_tokens=16)[0, ids.shape[1] :]
        wanted = tokenizer.decode(tokens, skip_special_tokens=True)
        assert complete(server[0], asked) == wanted
        answers.add(wanted)
    assert len(answers) == 3


def test_a_wrong_value_is_answered_with_400_and_the_server_goes_on(server):
    with pytest.raises(urllib.error.HTTPError) as refusal:
        complete(server[0], "?")
    assert refusal.value.code == 400
    assert "armlet must be 'on', 'off' or a strength" in refusal.value.read().decode()
    assert complete(server[0], "off")


def test_the_log_says_where_arm_is_and_the_server_s_state_counts_it(server):
    complete(server[0], "on")
    assert f"armlet: {Transport()} in layers [0] on this rank" in server[1].read_text()
    with urllib.request.urlopen(f"{server[0]}/server_info", timeout=60) as response:
        assert json.load(response)["internal_states"][0]["armlet"]["on"]["0"]["tokens"] > 0
