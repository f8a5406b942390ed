"""A section of `make gpu`: its time, what it found, and what went wrong; written to a file after every case."""

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from armlet.presentation.files import write_json


class Section:
    """The record of a section with a budget of seconds, which starts now.

    An error in a case is recorded and the next case runs. Cases that begin after the budget is used up are dropped.
    """

    def __init__(self, path: Path, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = path.parent
        self._path, self._seconds, self._clock, self._start = path, seconds, clock, clock()
        self.results: dict[str, Any] = {}
        self._errors: list[dict[str, str]] = []
        self._dropped: list[str] = []
        self._skipped: str | None = None

    @property
    def left(self) -> float:
        """The seconds that are left of the budget."""
        return self._seconds - (self._clock() - self._start)

    @contextmanager
    def case(self, name: str) -> Iterator[None]:
        """A case: an error in it is recorded, and the file is written after it."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.fail(name, f"{type(error).__name__}: {error}")
        self.write()

    def fits(self, name: str, seconds: float = 0.0) -> bool:
        """Whether a case that takes this long may begin; otherwise it is recorded as dropped."""
        if self.left > seconds:
            return True
        self._dropped.append(name)
        return False

    def fail(self, case: str, reason: str) -> None:
        """Records that a case failed."""
        self._errors.append({"case": case, "error": reason[:2000]})

    def skip(self, reason: str) -> None:
        """Records that the section was not run, which is no failure."""
        self._skipped = reason

    def content(self) -> dict[str, Any]:
        """What is written."""
        status = "failed" if self._errors else "skipped" if self._skipped else "passed"
        record = {"status": status, "reason": self._skipped, "budget s": self._seconds}
        taken = round(self._clock() - self._start, 1)
        return record | {"seconds": taken, "errors": self._errors, "dropped": self._dropped, **self.results}

    def write(self) -> None:
        """Writes the file."""
        write_json(self._path, self.content())
