"""Named tasks and other datasets, read by `datasets` from a hub on 127.0.0.1 with the columns of the real ones."""

import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hub_server import serving

pytestmark = [pytest.mark.slow, pytest.mark.needs("hub server")]

READ = """
import json, os, sys
from armlet.evaluation.tasks.sources import hub_task
from armlet.redistribution.errors import ArgumentError

results = {}
for name in sys.argv[1:]:
    name, _, os.environ["HF_TOKEN"] = name.partition(" ")
    try:
        task = hub_task(name)
        results[name] = [task.kind, [vars(problem) for problem in task.problems]]
    except ArgumentError as error:
        results.setdefault("refused", {})[name] = str(error)
print(json.dumps(results))
"""

GPQA = {
    "Record ID": "rec7",
    "Question": "Which gas is lightest?\n",
    "Correct Answer": "helium",
    "Incorrect Answer 1": "neon ",
    "Incorrect Answer 2": "argon",
    "Incorrect Answer 3": "xenon\n",
    "Explanation": "By its mass.",
}
ROWS = {
    "HuggingFaceH4/MATH-500/test-00000-of-00001": {
        "problem": "Half of 1?",
        "solution": "It is $\\boxed{\\frac12}$.",
        "answer": "\\frac12",
        "subject": "Algebra",
        "level": 1,
        "unique_id": "test/algebra/7.json",
    },
    "HuggingFaceH4/aime_2024/data/train-00000-of-00001": {
        "id": 63,
        "problem": "Twice 17?",
        "solution": "034",
        "answer": "034",
        "url": "https://example.org",
        "year": "2024",
    },
    "math-ai/aime25/test-00000-of-00001": {"problem": "Twice 18?", "answer": "36", "id": "4"},
    "openai/gsm8k/main/test-00000-of-00001": {"question": "3 and 4?", "answer": "3+4=<<3+4=7>>7\n#### 7"},
    "openai/gsm8k/socratic/test-00000-of-00001": {"question": "5 and 4?", "answer": "#### 9"},
    "openai/openai_humaneval/openai_humaneval/test-00000-of-00001": {
        "task_id": "HumanEval/7",
        "prompt": "def same(x):\n",
        "canonical_solution": "    return x\n",
        "test": "def check(candidate):\n    assert candidate(2) == 2\n",
        "entry_point": "same",
    },
    "Idavidrein/gpqa/diamond/train-00000-of-00001": GPQA,
}
CONFIGURATIONS = {
    "openai/gsm8k": {"main": "test", "socratic": "test"},
    "openai/openai_humaneval": {"openai_humaneval": "test"},
    "Idavidrein/gpqa": {"gpqa_diamond": "train"},
}
NAMES = ("math500", "aime24", "aime25", "gsm8k", "humaneval", "openai/gsm8k:socratic:test", "gpqa", "gpqa let-me-in")
REFUSED = ("openai/gsm8k", "openai/gsm8k:main:train", "openai/gsm8k:other:test", "nobody/nothing")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Kind and problems of each task by its name, and the messages of those that are refused."""
    folder, home = tmp_path_factory.mktemp("datasets"), tmp_path_factory.mktemp("home")
    for name, row in ROWS.items():
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([row]), path)
    for repo, splits in CONFIGURATIONS.items():
        files = {name: {"split": split, "path": f"{name.removeprefix('gpqa_')}/*"} for name, split in splits.items()}
        settings = [{"config_name": name, "data_files": [files]} for name, files in files.items()]
        (folder / repo / "README.md").write_text(f"---\n{json.dumps({'configs': settings})}\n---\n")
    with serving(folder, datasets=folder, gated="Idavidrein/gpqa") as hub:
        environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-c", READ, *NAMES, *REFUSED]
        done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "kind", "id", "question", "gold"),
    [
        ("math500", "maths", "test/algebra/7.json", "Half of 1?", "\\frac12"),
        ("aime24", "maths", "63", "Twice 17?", "034"),
        ("aime25", "maths", "4", "Twice 18?", "36"),
        ("gsm8k", "maths", None, "3 and 4?", "7"),
        ("openai/gsm8k:socratic:test", "maths", None, "5 and 4?", "9"),
        ("humaneval", "code", "HumanEval/7", "def same(x):\n", "def check(candidate):\n    assert candidate(2) == 2\n"),
    ],
)
def test_a_named_task_is_read_by_its_columns(tasks, name, kind, id, question, gold):
    found, (problem,) = tasks[name]
    assert (found, problem["question"], problem["gold"]) == (kind, question, gold)
    assert id in (None, problem["id"])


def test_gpqa_is_asked_with_letters_and_its_right_letter_is_gold(tasks):
    kind, (problem,) = tasks["gpqa"]
    assert (kind, problem["id"], problem["choices"]) == ("maths", "rec7", [])
    choices = [line for line in problem["question"].splitlines() if line[1:3] == ") "]
    assert [line[0] for line in choices] == ["A", "B", "C", "D"]
    assert {line[3:] for line in choices} == {"helium", "neon", "argon", "xenon"}
    assert f"{problem['gold']}) helium" in choices


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpqa", "is a gated dataset"),
        ("gpqa", "accept its terms on its page, and run `hf auth login` or set HF_TOKEN"),
        ("nobody/nothing", "doesn't exist on the Hub"),
        ("openai/gsm8k", "Config name is missing. Please pick one among the available configs: ['main', 'socratic']"),
        ("openai/gsm8k:main:train", "Unknown split \"train\". Should be one of ['test']"),
        ("openai/gsm8k:other:test", "BuilderConfig 'other' not found. Available: ['main', 'socratic']"),
    ],
)
def test_what_a_hub_does_not_give_is_said_in_one_line(tasks, name, message):
    said = tasks["refused"][name]
    assert said.startswith("task: ")
    assert message in said
    assert "\n" not in said
