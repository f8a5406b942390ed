"""Ctrl-C ends a loop, and keeps what is finished."""

import pytest

from armlet.presentation.interruption import (
    Interruption,
    collect_until_interrupted,
    keep_partial,
    until_interrupted,
)


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


def interruption(happened):
    state = Interruption()
    state.happened = happened
    return state


def test_an_interrupted_run_says_that_its_result_is_incomplete(capsys):
    assert keep_partial(interruption(True), {"a": 1})
    assert capsys.readouterr().err == "interrupted: this is what there is\n"


def test_an_interrupted_run_without_a_result_is_an_interruption():
    with pytest.raises(KeyboardInterrupt):
        keep_partial(interruption(True), {})


def test_a_run_that_was_not_interrupted_says_nothing(capsys):
    assert not keep_partial(interruption(False), {})
    assert capsys.readouterr().err == ""


def test_items_before_ctrl_c_are_kept():
    def items():
        yield from (1, 2)
        raise KeyboardInterrupt

    assert collect_until_interrupted(items()) == ([1, 2], True)
    assert collect_until_interrupted([1, 2]) == ([1, 2], False)
