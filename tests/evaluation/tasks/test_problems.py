"""Tasks: a row's keys say what it is, ids are unique, and a subset does not depend on the order of a file."""

import json
from pathlib import Path

import pytest

from armlet.evaluation import grade
from armlet.evaluation.tasks.arithmetic import DIFFICULTY, worked
from armlet.evaluation.tasks.problems import with_letters
from armlet.evaluation.tasks.sources import arithmetic, collect_tasks, given_task, hub_task, read_task, task_sources
from armlet.redistribution.errors import ArgumentError

MATHS = {"unique_id": "a/1", "problem": "What?", "answer": "\\frac12"}
CHOICE = {"id": "c", "context": "", "question": "Which?", "choices": ["x", "y"], "gold": 1}
CODE = {"task_id": "H/0", "prompt": "def f(): ...", "entry_point": "f", "test": "def check(f): pass", "x": 0}


def file_of(folder, *rows):
    path = folder / "some.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("row", "kind", "gold"), [(MATHS, "maths", "\\frac12"), (CHOICE, "choice", "1")])
def test_the_keys_of_a_row_say_what_it_is(tmp_path, row, kind, gold):
    task = read_task(file_of(tmp_path, row))
    assert (task.name, task.kind, task.problems[0].gold) == ("some", kind, gold)


def test_a_program_has_its_tests_for_gold(tmp_path):
    (problem,) = read_task(file_of(tmp_path, CODE)).problems
    assert (problem.id, problem.gold, problem.entry_point) == ("H/0", CODE["test"], "f")


def test_a_worked_solution_counts_by_the_result_after_its_mark(tmp_path):
    row = {"question": "How many?", "answer": "2 + 3 = 5 #### 1\n#### 5"}
    assert read_task(file_of(tmp_path, row)).problems[0].gold == "5"
    assert read_task(file_of(tmp_path, {**row, "final": "6"})).problems[0].gold == "6"


GPQA = {"Question": "Q?", "Correct Answer": "r", **{f"Incorrect Answer {at}": str(at) for at in (1, 2, 3)}}


def test_the_order_of_gpqas_answers_depends_only_on_the_texts_and_differs_between_questions(tmp_path):
    rows = [{**GPQA, "Question": f"{at}?"} for at in range(40)]
    problems = read_task(file_of(tmp_path, *rows)).problems
    assert {problem.gold for problem in problems} == set("ABCD")
    assert all(f"{problem.gold}) r\n" in problem.question for problem in problems)
    others = read_task(file_of(tmp_path, *({**row, "Subdomain": "new"} for row in reversed(rows)))).problems
    assert [(p.question, p.gold) for p in others[::-1]] == [(p.question, p.gold) for p in problems]


@pytest.mark.slow
def test_an_answer_of_gpqa_is_graded_by_its_letter(tmp_path):
    (problem,) = read_task(file_of(tmp_path, GPQA)).problems
    wrong = "ABCD".replace(problem.gold, "")
    right = [rf"So \boxed{{{problem.gold}}}.", rf"\boxed{{\text{{{problem.gold}}}}}"]
    assert [grade(text, problem.gold).correct for text in right] == [True, True]
    assert not any(grade(rf"\boxed{{{letter}}}", problem.gold).correct for letter in wrong)


def test_a_row_without_an_id_keeps_its_own_wherever_it_stands(tmp_path):
    rows = [{"question": f"{at}?", "answer": "1"} for at in range(3)]
    ids = [problem.id for problem in read_task(file_of(tmp_path, *rows)).problems]
    assert len(set(ids)) == 3
    again = read_task(file_of(tmp_path, {"question": "new?", "answer": "1"}, *reversed(rows))).problems
    assert [problem.id for problem in again][1:] == ids[::-1]


def test_a_row_without_an_id_is_named_by_its_line_and_a_wrong_choice_may_occur_twice(tmp_path):
    twice = {**CHOICE, "id": None, "choices": ["x", "y", "y"], "gold": 0}
    problems = read_task(file_of(tmp_path, {**CHOICE, "id": "mine"}, twice)).problems
    assert [problem.label for problem in problems] == ["item mine", "line 2"]


@pytest.mark.parametrize("written", ["0.00001", "1e17", "100000000000000000.0", "-2.50", "7"])
def test_a_number_of_a_file_is_a_gold_as_it_is_written(tmp_path, written):
    (file := tmp_path / "f.jsonl").write_text(f'{{"question": "?", "answer": {written}}}\n')
    (problem,) = read_task(file).problems
    assert problem.gold == written
    assert problem.id == given_task("t", [{"question": "?", "answer": json.loads(written)}], None).problems[0].id


@pytest.mark.parametrize(("number", "stated"), [(0.00001, "0.00001"), (1e17, "100000000000000000"), (2.5, "2.50")])
def test_a_number_in_a_dict_is_a_gold_by_its_value(number, stated):
    (problem,) = given_task("t", [{"question": "?", "answer": number}], None).problems
    assert grade(f"\\boxed{{{stated}}}", problem.gold).correct


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    plain = file_of(tmp_path, MATHS)
    (marked := tmp_path / "marked.jsonl").write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    assert read_task(marked).problems == read_task(plain).problems


def test_other_ends_of_lines_inside_a_row_do_not_part_it(tmp_path):
    row = {"question": "one\u2028two\x85three\x0c?", "answer": "1"}
    (file := tmp_path / "f.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_task(file).problems[0].question == row["question"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "^data: some contains no problems"),
        ([[]], "line 1: expected an object, found list"),
        ([{}], "expected problem or question with answer.* found nothing"),
        ([{"text": "x"}], "found text"),
        ([MATHS, CHOICE], r"^data: some mixes kinds of problems, maths \(/.*line 1\) and choice \(/.*line 2\)"),
        ([MATHS, CHOICE], r": put each kind into a file of its own, and give both: --data twice, or task=\[A, B\]$"),
        ([MATHS, CHOICE, MATHS], r"line 3: has the id 'a/1' of line 1; leave one of them out$"),
        ([{"question": "?", "answer": "1"}] * 2, r"line 2: is the same row as line 1; leave one of them out$"),
        ([{**MATHS, "answer": " "}], "the answer is empty"),
        ([{**MATHS, "problem": 3}], "problem: expected a text, found 3"),
        ([{**CHOICE, "gold": 2}], "gold: expected an index of the 2 choices, found 2"),
        ([{**CHOICE, "gold": True}], "gold: expected an index"),
        ([{**CHOICE, "choices": ["x"]}], "choices: expected a list of at least two texts"),
        ([{**CHOICE, "choices": ["x", "y ", " y"], "gold": 1}], "line 1: choices: the right one, 'y ', occurs twice"),
        ([{**CHOICE, "question": ""}], "expected context or question"),
        ([{**GPQA, "Incorrect Answer 2": None}], "Incorrect Answer 2: expected a text, found None"),
        ([{**CODE, "entry_point": "f()"}], "entry_point: expected a function's name"),
    ],
    ids=repr,
)
def test_a_row_that_is_not_understood_is_named_in_one_line(tmp_path, rows, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        read_task(file_of(tmp_path, *rows))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_or_no_json_are_one_line(tmp_path):
    with pytest.raises(ArgumentError, match="cannot be read"):
        read_task(tmp_path / "absent")
    (tmp_path / "bad").write_text(json.dumps(MATHS) + "\n{")
    with pytest.raises(ArgumentError, match=r"bad, line 2: is not JSON \(Expecting property name .*, column 2\)$"):
        read_task(tmp_path / "bad")


def test_a_subset_is_the_same_whatever_the_order_of_the_file_and_a_larger_one_contains_it(tmp_path):
    rows = [{"id": str(at), "question": f"{at}?", "answer": "1"} for at in range(50)]
    small, large = (read_task(file_of(tmp_path, *rows), items) for items in (10, 20))
    mixed = read_task(file_of(tmp_path, *reversed(rows)), 10)
    ids = {problem.id for problem in small.problems}
    assert len(ids) == 10
    assert ids == {problem.id for problem in mixed.problems} < {problem.id for problem in large.problems}
    assert ids != {str(at) for at in range(10)}


def test_two_tasks_have_one_fingerprint_just_where_they_ask_the_same(tmp_path):
    one = read_task(file_of(tmp_path, MATHS)).fingerprint()
    assert read_task(file_of(tmp_path, {**MATHS, "subject": "unasked"})).fingerprint() == one
    assert read_task(file_of(tmp_path, {**MATHS, "answer": "1"})).fingerprint() != one


def test_the_built_in_problems_have_their_values_for_gold():
    task = arithmetic(20, seed=3)
    assert [int(problem.gold) for problem in task.problems] == [
        worked(problem.question).value for problem in task.problems
    ]
    assert task.source == {"generator": "arithmetic", "seed": 3, "difficulty": DIFFICULTY}
    assert len({problem.id for problem in task.problems}) == 20


def test_a_task_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ArgumentError, match=r"expected arithmetic, math500, .* found 'maths'"):
        hub_task("maths")


def test_a_dataset_in_a_folder_is_read_as_one_of_a_hub_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/test.jsonl").write_text(json.dumps({"question": "1+1?", "answer": "#### 2"}) + "\n")
    task = hub_task(f"{tmp_path / 'data'}")
    assert (task.kind, task.problems[0].gold) == ("maths", "2")


def test_a_dataset_that_cannot_be_had_is_one_line(monkeypatch):
    def load(*_, **__):
        raise ConnectionError("Couldn't reach\nhttp://me:sekret@example.org")

    monkeypatch.setattr("datasets.load_dataset", load)
    with pytest.raises(ArgumentError, match=r"from the hub \(Couldn't reach http://…@example.org\); a JSON Lines file"):
        hub_task("nobody/nothing")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question": "1+1?"}], r"^task: .*/data, row 1: expected problem or question with answer"),
        (
            [{"question": "1+1?", "answer": "2"}] * 2,
            r"^task: .*/data, row 2: is the same row as row 1",
        ),
        ([MATHS | {"choices": None}, CHOICE | {"problem": None}], r"^task: .*/data, row 1: choices: expected a list"),
    ],
    ids=["key", "twice", "choices"],
)
def test_a_fault_of_a_dataset_of_a_hub_is_not_blamed_on_a_file(tmp_path, monkeypatch, rows, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ArgumentError, match=message) as caught:
        hub_task(f"{tmp_path / 'data'}")
    assert "--data" not in str(caught.value)


def test_an_empty_dataset_of_a_hub_is_not_blamed_on_a_file(monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: [])
    with pytest.raises(ArgumentError, match=r"^task: gsm8k contains no problems$"):
        hub_task("gsm8k")


def test_a_dataset_of_a_hub_that_mixes_kinds_is_not_blamed_on_a_file(monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: [MATHS, CHOICE])
    where = r"maths \(openai/gsm8k, row 1\) and choice \(openai/gsm8k, row 2\)"
    with pytest.raises(ArgumentError, match=f"^task: gsm8k mixes kinds of problems, {where}"):
        hub_task("gsm8k")


@pytest.mark.parametrize("second", ["arithmetic", "arithmetic.jsonl"])
def test_two_tasks_of_one_name_are_refused(tmp_path, second):
    file = tmp_path / "arithmetic.jsonl"
    file.write_text(json.dumps(MATHS) + "\n")
    with pytest.raises(ArgumentError, match=r"^task: two tasks are named 'arithmetic'; give"):
        collect_tasks(["arithmetic", file if second == file.name else second], 3, None, 0)


def test_dicts_are_the_items_of_a_file_with_the_same_lines(tmp_path):
    rows = [{**MATHS, "id": str(number)} for number in range(3)]
    (task,), (of_file,) = collect_tasks(rows, 2, None, 0), collect_tasks(file_of(tmp_path, *rows), 2, None, 0)
    assert (task.problems, task.kind, task.name) == (of_file.problems, of_file.kind, "items")
    assert len(task.problems) == 2


def test_several_lists_of_items_are_numbered():
    tasks = collect_tasks([[MATHS], "arithmetic", [CHOICE]], 1, None, 0)
    assert [(task.name, task.kind) for task in tasks] == [
        ("items 1", "maths"),
        ("arithmetic", "integer"),
        ("items 2", "choice"),
    ]


def test_items_and_a_name_are_two_tasks():
    assert [task.name for task in collect_tasks([[MATHS], "arithmetic"], 1, None, 0)] == ["items", "arithmetic"]


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ([], "^task: items contains no problems$"),
        ([{"question": "x", "answer": {1, 2}}], "^task: expected dicts of texts and numbers"),
        ([{"question": "x"}], "^task: items, item 1: expected problem or question with answer"),
        ([[MATHS], [MATHS, {"question": "x"}]], "^task: items 2, item 2: expected problem or question with answer"),
        (17, "^task: expected a name, a file or a list of dicts, found int$"),
    ],
)
def test_what_is_no_task_is_refused(task, message):
    with pytest.raises(ArgumentError, match=message):
        collect_tasks(task, None, None, 0)


def test_development_files_are_read_whole(shared):
    sizes = {"math500_dev": 400, "gsm8k_dev": 1019, "aime2024": 30, "humaneval": 164, "arc_easy_test": 2376}
    for name, size in sizes.items():
        assert len(read_task(shared / "data" / f"{name}.jsonl").problems) == size


def test_text_that_names_a_file_is_a_file_but_a_task_is_a_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("gsm8k", "mine"):
        Path(name).touch()
    assert task_sources(["gsm8k", "mine", "owner/name"]) == ["gsm8k", Path("mine"), "owner/name"]
    assert task_sources("absent.jsonl") == [Path("absent.jsonl")]
    assert collect_tasks(str(file_of(tmp_path, MATHS)), None, None, 0)[0].name == "some"


def test_a_dataset_has_no_more_than_a_configuration_and_a_split():
    with pytest.raises(ArgumentError, match="expected owner/name:config:split, found 'owner/name:a:b:c'"):
        hub_task("owner/name:a:b:c")


def test_letters_end_at_26_choices(tmp_path):
    choices = [f"x{i}" for i in range(27)]
    task = read_task(file_of(tmp_path, CHOICE | {"choices": choices[:26]}))
    assert with_letters(task).problems[0].choices[-1].strip() == "Z"
    with pytest.raises(ArgumentError, match="more than 26 choices"):
        with_letters(read_task(file_of(tmp_path, CHOICE | {"choices": choices})))
