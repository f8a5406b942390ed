"""Ctrl-C ends a loop, keeps what is finished, and ends the command with 130."""

import pytest

from armlet.presentation.interruption import INTERRUPTED, report_interruption, until_interrupted


def test_ctrl_c_ends_the_block_and_keeps_what_it_finished():
    finished = []
    with until_interrupted() as interruption:
        finished.append(1)
        raise KeyboardInterrupt
    assert (finished, interruption.happened) == ([1], True)


def test_a_block_that_ends_was_not_interrupted():
    with until_interrupted() as interruption:
        pass
    assert not interruption.happened


def test_other_errors_pass():
    with pytest.raises(MemoryError), until_interrupted():
        raise MemoryError


def test_an_interrupted_run_says_that_its_result_is_incomplete(capsys):
    report_interruption(True, {"a": 1})
    assert capsys.readouterr().err == "interrupted: this is what there is\n"


def test_an_interrupted_run_without_a_result_exits_with_130(capsys):
    with pytest.raises(SystemExit, match=str(INTERRUPTED)):
        report_interruption(True, {})
    assert capsys.readouterr().err == "interrupted: nothing was finished\n"


def test_a_run_that_was_not_interrupted_says_nothing(capsys):
    report_interruption(False, {})
    assert capsys.readouterr().err == ""
