"""A time budget chooses the number of items, answers nothing twice, and gives the same items when it is resumed."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armlet.evaluation import budget as budget_file
from armlet.evaluation import evaluate
from armlet.evaluation.budget import affordable_items, budget_seconds
from armlet.redistribution.errors import ArgumentError
from armlet.runs.folder import RunError
from evaluations import Fake

ROWS = [{"question": f"{a}+{b}=?", "answer": str(a + b)} for a in range(5) for b in range(8)]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def batch_seconds(monkeypatch):
    """The time that a batch takes when it is timed; a test may change it."""
    seconds, now = [1.0], [0.0]

    def clock():
        """Read before and after each batch."""
        now[0] += seconds[0]
        return now[0]

    monkeypatch.setattr(budget_file, "monotonic", clock)
    return seconds


def faked(engine=None, **arguments):
    """Two conditions, five items in a batch."""
    fixed = {"task": ROWS, "placebos": False, "batch": 5, "run": "run", **arguments}
    return evaluate(engine=lambda *_: engine or Fake(), **fixed)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5h", 5400)])
def test_a_budget_is_a_number_with_its_unit(text, seconds):
    assert budget_seconds(text) == seconds


@pytest.mark.parametrize("text", ["30", "m", "0s", "-5m", "30 m", "1e3s", "5d", "٣m", 30, ""], ids=repr)
def test_anything_else_is_no_budget(text):
    with pytest.raises(ArgumentError, match=r"^budget: expected a time such as 90s, 30m or 2h, found "):
        budget_seconds(text)


@given(
    st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(1, 300), st.floats(0.01, 10)), min_size=1),
    st.floats(0, 1000),
)
def test_as_many_items_as_fit_and_not_one_more(tasks, seconds):
    sizes, per_item = ({name: pair[at] for name, pair in tasks.items()} for at in (0, 1))
    items = affordable_items(sizes, per_item, seconds)
    most = max(items.values())
    assert items == {name: min(most, size) for name, size in sizes.items()}

    def cost(count):
        return sum(min(count, size) * per_item[name] for name, size in sizes.items())

    assert cost(most) <= seconds
    assert most == max(sizes.values()) or cost(most + 1) > seconds


@pytest.mark.usefixtures("batch_seconds")
def test_the_first_batch_says_how_many_items_the_budget_allows(capsys):
    engine = Fake()
    findings = faked(engine, budget="4s")  # 1 s for 5 items, under 2 conditions: 0.4 s for an item
    notes = capsys.readouterr().err
    assert "budget: 4 s for these items under all conditions: 10 of items (0.4 s each)" in notes
    assert "items: 10 items can show differences of" in notes
    assert (findings.tasks[0].items, findings.complete, engine.calls) == (10, True, 4)
    assert findings.settings.to_dict()["budget"] == {"budget": 4.0, "timed_items": 5}


@pytest.mark.slow
def test_nothing_is_answered_twice_and_a_resumed_run_has_the_same_items(batch_seconds):
    first = faked(budget="4s")
    rows = [json.loads(line) for line in Path("run/items.jsonl").read_text().splitlines()]
    answered = [(row["condition"], row["item"]) for row in rows if "item" in row]
    assert len(answered) == len(set(answered)) == 20
    batch_seconds[0] = 50.0  # a slower machine: the times of the first run count
    again = Fake()
    assert faked(again, budget="4s").to_dict() == first.to_dict()
    assert again.calls == 0


@pytest.mark.slow
@pytest.mark.usefixtures("batch_seconds")
def test_another_budget_is_another_run():
    faked(budget="4s")
    with pytest.raises(RunError, match=r"contains another run \(--budget was 4.0, is 8.0"):
        faked(budget="8s")
    assert Path(faked(budget="8s", run=None).folder) != Path(faked(budget="4s", run=None).folder)


@pytest.mark.slow
@pytest.mark.usefixtures("batch_seconds")
def test_a_larger_budget_includes_the_items_of_a_smaller_one():
    def asked(budget):
        faked(budget=budget, run=f"run {budget}")
        lines = Path(f"run {budget}/tasks.jsonl").read_text().splitlines()
        return [json.loads(line)["id"] for line in lines]

    small, large = asked("4s"), asked("8s")
    assert (len(small), len(large)) == (10, 20)
    assert large[:10] == small


@pytest.mark.usefixtures("batch_seconds")
def test_a_budget_below_the_first_batch_is_told(capsys):
    assert faked(budget="1s").tasks[0].items == 5
    assert "2 s for these items under all conditions: 5 of items (0.4 s each); the first batch alone takes more" in (
        capsys.readouterr().err
    )


@pytest.mark.usefixtures("batch_seconds")
def test_a_large_budget_answers_everything():
    assert faked(budget="2h").tasks[0].items == len(ROWS)


@pytest.mark.usefixtures("batch_seconds")
def test_two_tasks_share_the_budget():
    tasks = faked(budget="8s", task=[ROWS, ROWS[:7]]).tasks
    assert [task.items for task in tasks] == [13, 7]  # 0.4 s each in both tasks


def test_ctrl_c_while_timing_resumes():
    class Interrupted(Fake):
        def fired(self):
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().fired()

    with pytest.raises(KeyboardInterrupt, match=r"^interrupted: the same command or call resumes the run in run$"):
        faked(Interrupted(), budget="2h")
    engine = Fake()
    assert faked(engine, budget="2h").complete
    assert engine.calls == 2 * len(ROWS) // 5 - 1


def test_items_and_a_budget_are_refused():
    with pytest.raises(ArgumentError, match=r"^budget: use either --budget or --items, not both$"):
        faked(budget="2h", items=10)
