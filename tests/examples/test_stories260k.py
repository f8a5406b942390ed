"""The example makes a folder of stories260K that generates the published story."""

import subprocess
import sys
from pathlib import Path

import pytest

from armlet.checkpoints.pretrained import load

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "examples" / "stories260k.py"


def test_the_folder_tells_the_published_story(shared, tmp_path):
    source = shared / "data" / "stories260K"
    subprocess.run([sys.executable, SCRIPT, source, tmp_path / "made"], check=True, capture_output=True)
    model, tokenizer = load(str(tmp_path / "made"), dtype="float32")
    story = (source / "expected_greedy.txt").read_text().strip()
    prompt = tokenizer("<s>", add_special_tokens=False, return_tensors="pt")
    told = model.generate(**prompt, max_new_tokens=len(tokenizer(story)["input_ids"]), do_sample=False)
    assert tokenizer.decode(told[0], skip_special_tokens=True).strip().startswith(story)


def test_without_its_two_arguments_it_says_how_it_is_run():
    run = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert run.returncode == 1
    assert "Run: python examples/stories260k.py" in run.stderr


def test_a_folder_without_the_two_files_is_one_line(tmp_path):
    run = subprocess.run([sys.executable, SCRIPT, tmp_path, tmp_path / "made"], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.splitlines() == [
        f"stories260k.py: [Errno 2] No such file or directory: '{tmp_path / 'stories260K.bin'}'"
    ]
