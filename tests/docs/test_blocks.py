"""Every code block and every command on the README and on the site does what it says, or says why it is only parsed."""

import ast
import json
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from armlet import load_config
from armlet.evaluation.studies.file import read_study
from command_line import run
from doc_blocks import LANGUAGES, LEAST_WORDS, ROOT, Block, blocks, pages, read_blocks
from doc_commands import MODELS, check, commands, here_documents, reason_elsewhere, small
from doc_printed import beside, missing_lines, same_line, same_value
from tiny_checkpoints import TEMPLATE, save, words

BLOCKS = [block for page in pages() for block in blocks(page)]
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
ROWS = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(12)]


def pages_with(language):
    """A parameter for each page with such blocks."""
    named = dict.fromkeys(block.page for block in BLOCKS if block.language == language)
    return pytest.mark.parametrize("page", named, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A folder as a reader's checkout, with files of the names that pages use for the reader's own."""
    for name in ("examples", "studies"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "models").symlink_to(ROOT / "models")
    for name, rows in {"problems": ROWS, "solved": ROWS[-2:]}.items():
        lines = [
            json.dumps({"question": row["question"].replace("What", name), "answer": row["answer"]}) for row in rows
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "text.txt").write_text("w1 w2 w3 w4 w5 w6 w7 w8 w9 " * 40)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(page):
    """Writes the files that a page tells its reader to save, and returns its blocks."""
    parts = blocks(page)
    for block in parts:
        files = {block.file: block.text} if block.file else here_documents(block.text)
        for name, text in files.items():
            Path(name).write_text(text, encoding="utf-8")
    return parts


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A tiny checkpoint, which takes the place of a model."""
    return save(tmp_path_factory.mktemp("models") / "tiny", template=TEMPLATE)


@pytest.fixture(scope="module")
def deep_model(tmp_path_factory):
    """One with as many layers as SmolLM2: Python is run as the page says it."""
    folder = save(tmp_path_factory.mktemp("models") / "deep", num_hidden_layers=30)
    tokenizer = words(pad_token="w0")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def test_every_block_has_a_language():
    assert [block.place for block in BLOCKS if block.language not in LANGUAGES] == []


NOT_PRINTED = {"equations.md", "policies.md", "commands.md"}  # pages with formulas, and with how a command is called


def test_every_text_is_compared_with_what_is_printed_or_says_why_not():
    for page in pages():
        parts = blocks(page)
        compared = {block.printed for block in parts if not block.parse_only}
        texts = [block for block in parts if block.language == "text" and not block.parse_only and not block.file]
        if page.name not in NOT_PRINTED:
            assert [block.place for block in texts if block.text not in compared] == []


def test_what_is_only_parsed_says_why():
    parsed = [block for block in BLOCKS if block.parse_only]
    assert [block.place for block in parsed if len(block.parse_only.split()) < LEAST_WORDS] == []
    assert [block.place for block in parsed if block.language not in ("python", "sh", "text")] == []


@pytest.mark.slow
@pytest.mark.needs("real model")
@pages_with("python")
@pytest.mark.usefixtures("workspace")
def test_the_python_of_a_page_runs_and_prints_what_it_says(page, deep_model, request):
    """With a tiny model in the place of SmolLM2, unless the page says what is printed."""
    parts = [block for block in prepare(page) if block.language == "python"]
    is_told = any(beside(block) or block.printed for block in parts) and any(HUB_ID in block.text for block in parts)
    folder = request.getfixturevalue("smollm2_folder") if is_told else deep_model
    assert run_python(parts, str(folder)) == []


def run_python(parts, folder):
    """Runs blocks in order; returns what was printed otherwise than they say."""
    printed = {}

    def show(*values, sep=" "):
        printed.setdefault(sys._getframe(1).f_lineno, []).append(sep.join(map(str, values)))

    namespace, wrong = {"__name__": "page", "print": show}, []
    for block in parts:
        text = "\n" * (block.line - 1) + block.text.replace(HUB_ID, folder)
        code = compile(text, block.place, "exec")
        if not block.parse_only:
            printed.clear()
            exec(block.before, namespace)
            exec(code, namespace)
            wrong += differences(block, printed)
    return wrong


def differences(block, printed):
    """What a block printed, by line, otherwise than its page says."""
    for line, value in beside(block).items():
        text = "\n".join(printed.get(line, ["None"]))
        if not same_value(value, ast.literal_eval(text)):
            yield f"line {line}: {text}"
    lines = [text for texts in printed.values() for text in texts]
    yield from missing_lines(block.printed, "\n".join(lines))


@pages_with("sh")
@pytest.mark.usefixtures("workspace")
def test_the_commands_of_a_page_parse(page):
    for block in prepare(page):
        for command in commands(block.text) if block.language == "sh" else ():
            try:
                check(command)
            except BaseException as error:
                pytest.fail(f"{block.place}: {' '.join(command)}: {type(error).__name__}: {error}")


@pytest.mark.slow
@pytest.mark.needs("real model")
@pages_with("sh")
@pytest.mark.usefixtures("workspace")
def test_the_commands_of_a_page_run_and_print_what_it_says(page, tiny_model, request):
    """With a tiny model in the place of SmolLM2, and small, unless the page says what is printed."""
    for block in prepare(page):
        if block.language == "sh" and not block.parse_only:
            exec(block.before, {})
            if block.printed and MODELS.search(block.text):
                request.getfixturevalue("smollm2_folder")
            model = None if block.printed else tiny_model
            printed = [output(command, model) for command in commands(block.text) if command[0] == "armlet"]
            assert missing_lines(block.printed, "".join(printed)) == [], block.place


def output(command, tiny_model=None):
    """What a command prints, with a tiny model or as it is; empty if other tests run it."""
    if reason_elsewhere(command) and tiny_model:
        return ""
    replaced = ("models/smollm2-135m-instruct" if MODELS.fullmatch(word) else word for word in command[1:])
    code, out, err = run(*(small(command[1:], tiny_model) if tiny_model else replaced))
    assert code == 0, f"{' '.join(command)}: {err}"
    return out + err


def test_json_and_toml_on_pages_is_read_by_what_reads_it(tmp_path):
    for block in BLOCKS:
        content = json.loads(block.text) if block.language == "json" else {}
        if "policy" in content or "placements" in content:
            (tmp_path / "armlet.json").write_text(block.text)
            load_config(tmp_path)
        if block.language == "toml" and "hypothesis" in tomllib.loads(block.text):
            (tmp_path / "studies").mkdir(exist_ok=True)
            shutil.copytree(ROOT / "examples", tmp_path / "examples", dirs_exist_ok=True)
            (tmp_path / "studies" / "study.toml").write_text(block.text)
            read_study(tmp_path / "studies" / "study.toml")


class TestTheseTestsCanFail:
    @pytest.mark.parametrize(
        ("command", "message"),
        [
            ("armlet inspekt MODEL", "no command"),
            ("armlet inspect MODEL --layre 3", "No such option"),
            ("armlet inspect MODEL --layer three", "valid integer"),
            ("armlet inspect MODEL --scope tokens", "not one of"),
            ("armlet inspect MODEL --layer 3 --layer 4", "given 2 times"),
            ("armlet lm-eval --model_args pretrained=MODEL,policies=outward", "unknown keys"),
            ("inspect eval task.py --model armlet/MODEL -M policy=outwards", "expected one of"),
            ('vllm serve MODEL --additional-config \'{"armlet": {"policy": "outward", "bend": 1}}\'', "unknown bend"),
            ("make demoo", "make demoo"),
            ("pip install '.[pages]'", "unknown extras"),
            ("python examples/smollm3.py", "there is no"),
            ("armlets inspect", "no check knows"),
        ],
    )
    def test_at_a_wrong_command(self, command, message):
        (words,) = commands(command)
        with pytest.raises(Exception, match=message):
            check(words)

    def test_at_python_that_prints_something_else(self):
        text = "print({'a': 1.0})  # {'a': 1.005}\nprint(2)  # 3\nprint(4)  # a remark\n"
        block = Block(ROOT / "README.md", 7, "python", text)
        assert run_python([block], "") == ["line 8: 2"]

    def test_at_python_that_prints_another_text(self):
        block = Block(ROOT / "README.md", 7, "python", "print('a', 1.5)\nprint('b')\n", printed="a 1.6\nb\n")
        assert run_python([block], "") == []
        assert run_python([block._replace(printed="a 1.7\nb\n")], "") == ["a 1.7", "b"]

    @pytest.mark.parametrize(
        ("stated", "printed"),
        [
            ("12 items", "13 items"),
            ("+1", "+2"),
            ("0.123", "0.125"),
            ("1e-05", "0.9"),
            ("a b", "ab"),
            ("1 of 2", "1 of 2 of 3"),
        ],
    )
    def test_at_a_line_that_differs(self, stated, printed):
        assert same_line(stated, stated)
        assert not same_line(stated, printed)

    def test_at_a_comment_that_no_block_follows(self):
        with pytest.raises(ValueError, match="stands before a block"):
            list(read_blocks(ROOT / "README.md", "<!-- test: parse only: for no reason at all -->\ntext\n"))


def test_a_command_may_go_on_over_lines_and_in_quotes():
    text = "armlet a \\\n  b  # a remark\n\ncurl -d '{\n  \"c\": 1}'\n"
    assert commands(text) == [["armlet", "a", "b"], ["curl", "-d", '{\n  "c": 1}']]


def test_a_file_that_a_block_writes_is_no_command():
    text = "cat > a.jsonl <<'EOF'\n{}\n{}\nEOF\nls a.jsonl\n"
    assert (here_documents(text), commands(text)) == ({"a.jsonl": "{}\n{}\n"}, [["ls", "a.jsonl"]])


def test_a_comment_belongs_to_the_block_below_it():
    text = "<!-- test: before: x = 1;\ny = 2 -->\n<!-- test: file: a.py -->\n```python\nx\n```\n```sh\nls\n```\n"
    first, second = read_blocks(ROOT / "README.md", text)
    assert (first.before, first.file, first.text, first.line) == ("x = 1;\ny = 2", "a.py", "x\n", 5)
    assert (second.before, second.file, second.language) == ("", "", "sh")
