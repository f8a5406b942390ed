"""A run folder survives torn lines, two processes, full disks and changed questions."""

import errno
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armlet.runs import folder as folder_module
from armlet.runs.folder import RunError, differences, open_run_folder, readable

MANIFEST = {"engine": {"model": "m"}, "batch": 2, "tasks": [{"name": "t"}]}
MACHINE = {"cores": 2}
ROWS = [{"item": "a", "text": "x\n"}, {"item": "b", "text": "closed ≠ open"}]


def fill(folder, units=2):
    with open_run_folder(folder, MANIFEST, MACHINE) as run:
        for at in range(units):
            run.close(("t", at), ROWS, {"arm": {}})
    return (folder / "items.jsonl").read_bytes()


def opened(folder, manifest=MANIFEST, machine=MACHINE):
    with open_run_folder(folder, manifest, machine) as run:
        return run


def test_what_was_closed_is_there_again(tmp_path):
    fill(tmp_path / "run")
    run = opened(tmp_path / "run")
    assert run.rows == ROWS * 2
    assert [run.has(("t", at)) for at in range(3)] == [True, True, False]


def test_a_batch_that_is_on_the_disk_when_ctrl_c_comes_is_counted(tmp_path, monkeypatch):
    with open_run_folder(tmp_path, MANIFEST, MACHINE) as run:
        run.close(("t", 0), ROWS, {})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", interrupt)
            with pytest.raises(KeyboardInterrupt):
                run.close(("t", 1), ROWS, {})
        assert (run.rows, run.has(("t", 1))) == (ROWS * 2, True)
        run.close(("t", 2), ROWS, {})
    assert opened(tmp_path).rows == ROWS * 3


def interrupt(_):
    raise KeyboardInterrupt


def test_what_only_one_of_two_lists_has_is_named():
    stored, wanted = ([{"name": name, "role": "r" * 60} for name in names] for names in ("abc", "bd"))
    assert list(differences({"conditions": stored}, {"conditions": wanted})) == [
        ("conditions", "of the first only: a, c"),
        ("conditions", "of the second only: d"),
    ]


def test_lists_of_other_lengths_differ_also_where_their_members_are_the_same():
    assert list(differences({"layers": [0, 1, 1]}, {"layers": [0, 1]})) == [("layers", "was 3 values, is 2")]


def test_long_texts_are_shown_where_they_differ():
    ((_, change),) = differences("x" * 100 + "old" + "y" * 100, "x" * 100 + "new" + "y" * 100)
    assert "xold" in change
    assert "xnew" in change
    assert len(change) < 150


@pytest.mark.slow
@given(cut=st.integers(0, 10_000))
def test_wherever_a_file_is_cut_off_closed_batches_stay_and_the_rest_is_written_again(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("run")
    whole = fill(folder)
    cut %= len(whole) + 1
    (folder / "items.jsonl").write_bytes(whole[:cut])
    with open_run_folder(folder, MANIFEST, MACHINE) as run:
        whole_lines = whole[:cut].split(b"\n")[:-1]
        assert len(run.closed) == sum(line.startswith(b'{"closed"') for line in whole_lines)
        for at in range(2):
            if not run.has(("t", at)):
                run.close(("t", at), ROWS, {"arm": {}})
    assert (folder / "items.jsonl").read_bytes() == whole


def test_a_damaged_line_before_whole_batches_is_refused(tmp_path):
    whole = fill(tmp_path)
    (tmp_path / "items.jsonl").write_bytes(whole.replace(b'{"item": "a"', b'{"item": a', 1))
    with pytest.raises(RunError, match="a line is damaged, and complete batches follow it"):
        opened(tmp_path)


def test_a_batch_that_lost_an_item_is_refused(tmp_path):
    lines = fill(tmp_path).splitlines(keepends=True)
    (tmp_path / "items.jsonl").write_bytes(b"".join(lines[1:]))
    with pytest.raises(RunError, match="expected 2 records, found 1"):
        opened(tmp_path)


def test_a_changed_run_is_refused_and_told_what_changed(tmp_path):
    fill(tmp_path)
    before = (tmp_path / "items.jsonl").read_bytes()
    with pytest.raises(
        RunError, match=r"contains another run \(--batch was 2, is 4; tasks\[0\].name was \"t\", is \"u\"\)"
    ):
        opened(tmp_path, {**MANIFEST, "batch": 4, "tasks": [{"name": "u"}]})
    assert (tmp_path / "items.jsonl").read_bytes() == before


def test_a_change_is_named_by_its_option_once_and_hashes_only_if_nothing_else_changed():
    settings = {"items": 2, "sha256": "a", "treatment": {"layers": [0, 1]}}
    tasks = {"tasks": [settings, settings]}
    more = {
        "tasks": [{**settings, "items": 3, "sha256": "b"}, {**settings, "items": 3, "treatment": {"layers": [0, 2]}}]
    }
    assert readable([*differences(tasks, more)]) == ["--items was 2, is 3", "--layers was 1, is 2"]
    engines = [{"engine": {"model": "m", "sha256": digest}} for digest in ("loaded:a", "loaded:b")]
    assert readable([*differences(*engines)]) == [
        "the model, its weights, settings, hooks or tokenizer changed, or the machine or its threads, or only one of "
        "the runs read it from files"
    ]
    other = {"tasks": [settings, settings | {"sha256": "b"}]}
    assert readable([*differences(tasks, other)]) == ['tasks[1].sha256 was "a", is "b"']
    assert readable([*differences({"kind": 1, "top_p": 1}, {"kind": 2, "top_p": 2})]) == [
        "--top-p was 1, is 2",
        "kind was 1, is 2",
    ]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (4, "all 4 answers are from an earlier run in {}; another run folder starts anew\n"),
        (6, "resuming: 4 of 6 answers are from an earlier run in {}\n"),
        (None, "2 trials are from an earlier run in {}; another run folder starts anew\n"),
    ],
)
def test_results_of_an_earlier_run_are_announced_once_and_a_new_run_says_nothing(tmp_path, capsys, answers, said):
    fill(tmp_path)
    assert capsys.readouterr().err == ""
    with open_run_folder(tmp_path, MANIFEST, MACHINE, answers=answers):
        assert capsys.readouterr().err == said.format(tmp_path)
    assert capsys.readouterr().err == ""


def test_another_machine_may_go_on_and_is_recorded(tmp_path):
    fill(tmp_path)
    opened(tmp_path, machine={"cores": 8})
    opened(tmp_path, machine={"cores": 8})
    assert json.loads((tmp_path / "manifest.json").read_text())["machines"] == [{"cores": 2}, {"cores": 8}]


PROCESS = f"""
import pathlib, sys
from armlet.runs.folder import RunError, open_run_folder
try:
    with open_run_folder(pathlib.Path(sys.argv[1]), {MANIFEST!r}, {MACHINE!r}) as run:
        print("open", len(run.rows), flush=True)
        sys.stdin.read()
except RunError as error:
    print(error)
"""


def in_another_process(folder):
    """A process that opens a run folder, says so, and keeps it open until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_a_second_process_is_refused_at_once_and_the_first_continues(tmp_path):
    with open_run_folder(tmp_path, MANIFEST, MACHINE) as run:
        with in_another_process(tmp_path) as other:
            assert "another process is using it; wait for it, or use another folder" in other.stdout.readline()
        run.close(("t", 0), ROWS, {"arm": {}})
    assert len(opened(tmp_path).rows) == 2


@pytest.mark.slow
def test_a_process_is_refused_while_another_has_the_folder_and_not_after_that_was_killed(tmp_path):
    fill(tmp_path)
    with in_another_process(tmp_path) as other:
        assert other.stdout.readline() == "open 4\n"
        with pytest.raises(RunError, match="another process is using it"):
            opened(tmp_path)
        other.kill()
    assert len(opened(tmp_path).rows) == 4


@pytest.mark.slow
def test_a_folder_that_was_closed_can_be_opened_by_another_process(tmp_path):
    fill(tmp_path)
    with in_another_process(tmp_path) as other:
        assert other.stdout.readline() == "open 4\n"
        other.stdin.close()


def test_a_folder_that_this_process_has_open_is_refused_too(tmp_path):
    with open_run_folder(tmp_path, MANIFEST, MACHINE), pytest.raises(RunError, match="another process is using it"):
        opened(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["folder", "machine"])
def test_no_module_that_only_posix_systems_have_is_needed(module):
    program = f"import sys; sys.modules.update(fcntl=None, resource=None, pwd=None); import armlet.runs.{module}"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_full_disk_stops_with_the_closed_batches_safe(tmp_path, monkeypatch):
    whole = fill(tmp_path, units=1)
    with open_run_folder(tmp_path, MANIFEST, MACHINE) as run:

        def full(_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(folder_module.os, "fsync", full)  # the bytes are in the file by then, and must go again
        with pytest.raises(RunError, match=r"No space left on device\); saved batches: 1; fix the cause"):
            run.close(("t", 1), ROWS, {"arm": {}})
        assert (tmp_path / "items.jsonl").read_bytes() == whole
        monkeypatch.undo()
        run.close(("t", 1), ROWS, {"arm": {}})
    assert len(opened(tmp_path).closed) == 2


@pytest.mark.parametrize("name", ["manifest.json", "items.jsonl"])
def test_a_folder_of_something_else_is_refused_untouched(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunError, match=r"manifest\.json"):
        opened(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file: the run folder cannot be created .* run= \(or --run\) chooses another"):
        opened(tmp_path / "file")


VALUES = st.recursive(
    st.integers() | st.text(max_size=3) | st.none(), lambda v: st.dictionaries(st.text(max_size=3), v)
)


@pytest.mark.slow
@given(VALUES, VALUES)
def test_differences_are_none_just_where_two_manifests_are_equal(one, other):
    without_none = [_pruned(value) for value in (one, other)]
    assert (list(differences(one, other)) == []) == (without_none[0] == without_none[1])


def _pruned(value):
    """A key with None is as good as none."""
    if not isinstance(value, dict):
        return value
    return {key: kept for key, item in value.items() if (kept := _pruned(item)) is not None}
