"""Ctrl-C during an import comes when the import is complete."""

import signal
import sys
import threading
from importlib import import_module

import pytest

from armlet.redistribution.backends import choice
from armlet.redistribution.uninterrupted import ctrl_c_deferred


@pytest.fixture
def library(tmp_path, monkeypatch):
    """The name of a library during whose import Ctrl-C is pressed."""
    (tmp_path / "interrupted_library.py").write_text("import signal\nsignal.raise_signal(2)\npass\ncomplete = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "interrupted_library", raising=False)
    return "interrupted_library"


def test_an_import_is_completed_and_then_interrupted(library):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), ctrl_c_deferred():
        assert import_module(library).complete
    assert signal.getsignal(signal.SIGINT) is handler


def test_without_it_the_import_is_not_completed(library):
    with pytest.raises(KeyboardInterrupt):
        import_module(library)
    assert library not in sys.modules


def test_a_backends_library_is_imported_completely_and_the_next_call_works(library, monkeypatch):
    monkeypatch.setitem(choice.BACKENDS, "test", (library, "plain", "PLAIN"))
    with pytest.raises(KeyboardInterrupt):
        choice._load("test")
    assert sys.modules[library].complete
    assert choice._load("test") is choice.PLAIN


def test_other_threads_have_nothing_to_defer():
    def defer():
        with ctrl_c_deferred():
            entered.append(signal.getsignal(signal.SIGINT))

    entered, handler = [], signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=defer)
    thread.start()
    thread.join()
    assert entered == [handler]
