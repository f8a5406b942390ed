"""Grades: which answer a text states, and whether math-verify holds it to be the gold."""

import atexit
import json
import os
import re
import string
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

# For a machine that stands still: the worker itself bounds its processor time to a few seconds.
WALL_SECONDS = 60.0
LINE = 1000  # characters of a last line that are looked at
# GSM8K's form. A heading has as many marks at times, but words behind them, perhaps with a number as "1. ".
ANSWER_LINE = re.compile(
    r"^[ \t]*####(?!#)[ \t]*(?!\d+[.)][ \t])((?:[-+−]?[\d.$\\(\[{]|[^\W\d_]\b)[^\n]*)", re.MULTILINE
)


@dataclass(frozen=True)
class Grade:
    r"""What a grader makes of one answer.

    Attributes:
        correct: the stated answer is the gold.
        extracted: the stated answer as it was read; None where nothing could be read.
        format_ok: it was stated in the form asked for (a non-empty `\boxed{}` or a `#### x` line; the mark of a task).
    """

    correct: bool
    extracted: str | None
    format_ok: bool


def grade(answer_text: str, gold: str) -> Grade:
    r"""Grade a mathematical answer: what it states against the gold, as math-verify compares them.

    Read is the last non-empty `\boxed{...}`, else the last line `#### x` with an expression x, else what follows the
    last "answer is", else the last expression of the last line. A box that is never closed states nothing. Any text is
    graded, in bounded time and from any thread; a comparison that takes too long counts as different.

    Args:
        answer_text: what the model wrote.
        gold: the right answer, LaTeX or a plain number.
    """
    extracted, in_form = _stated(answer_text)
    return Grade(extracted is not None and _same(extracted, _cleaned(gold)), extracted, in_form)


def grade_integer(answer_text: str, gold: str | int) -> Grade:
    """Grade the integer behind the last #: an optional minus and digits, then white space or the end."""
    _, found, tail = answer_text.rpartition("#")
    match = re.match(r"[ \t]*(-?[0-9]+)(?!\S)", tail) if found else None
    if match is None:
        return Grade(False, None, False)
    return Grade(_integer(match[1]) == _integer(str(gold)), match[1], True)


def equal(a: str, b: str) -> bool:
    """Whether two extracted answers are the same answer, whichever comes first."""
    a, b = _cleaned(a), _cleaned(b)
    return _same(a, b) and _same(b, a)


def equal_integers(a: str, b: str) -> bool:
    """The same for two integers: 042 is 42, and -0 is 0."""
    return _integer(a) == _integer(b)


def last_box(text: str) -> str | None:
    r"""What stands in the last closed `\boxed{...}`, be it empty; None where there is none."""
    boxes, _ = _boxes(text)
    return boxes[-1] if boxes else None


# What an answer states


def _stated(text: str) -> tuple[str | None, bool]:
    """The stated answer, None where there is none, and whether it stands in the form asked for."""
    boxes, text = _boxes(text)
    lines = ANSWER_LINE.findall(text)
    for found in (*map(_cleaned, reversed(boxes)), *map(_expression, reversed(lines))):
        if found and _readable(found):
            return found, True
    return _said(text), False


def _boxes(text: str) -> tuple[list[str], str]:
    """What stands in closed boxes, outermost first, and the text up to a box that is never closed."""
    found, start = [], 0
    for opening in re.finditer(r"\\f?box(?:ed)?\s*\{", text):
        if opening.start() < start:
            continue
        end = _closing(text, opening.end())
        if end is None:
            return found, text[: opening.start()]
        found.append(text[opening.end() : end])
        start = end
    return found, text


def _closing(text: str, start: int) -> int | None:
    r"""Where the brace that was opened before `start` closes; `\{` and `\}` are brackets of the formula."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None


def _said(text: str) -> str | None:
    """What follows the last "answer is", else the last expression of the last line."""
    said = re.findall(r"(?i)\banswer\s*(?:is|:|=)[\s:]*([^\n]*)", text)
    sentence = re.split(r"[.!?](?:\s|$)", _plain(said[-1][:LINE]), maxsplit=1)[0] if said else ""
    if _readable(sentence):
        return _expression(sentence) or _cleaned(sentence)
    line = text.rstrip().rpartition("\n")[2]
    return _read(_plain(line[-LINE:]))


def _expression(sentence: str) -> str | None:
    """The sentence itself where it is one formula without words, else the expression it begins with."""
    words = re.sub(r"\\(?:begin|end|text\w*|math\w+|mbox)\s*\{[^{}]*\}|\\[a-zA-Z]+", "", sentence)
    if re.search(r"(?<!\\)\$", sentence) or r"\(" in sentence or re.search(r"[^\W\d_]{2}", words):
        return _read(f"answer: {sentence}")
    return _cleaned(sentence)


def _read(text: str) -> str | None:
    """The last expression that math-verify finds in running text; it loses the percent sign behind a number."""
    found = _WORKER.ask("read", text) if re.search(r"[\w\\]", text) else None
    if not isinstance(found, str):
        return None
    # "x = 1 or x = 2" comes back joined by a word that a formula does not know.
    found = _cleaned(found.replace(" and ", ", ").rstrip(" .,:;!"))
    percent = re.search(re.escape(found) + r"\s*(?:\\?%|percent)", text)
    return found + r"\%" * bool(percent) if _readable(found) else None


def _plain(text: str) -> str:
    """Running text without the marks of bold type."""
    return re.sub(r"(?<![\w)])\*\*|\*\*(?![\w(-])", "", text).strip()


def _readable(latex: str) -> bool:
    """Something is left when spacing and empty groups are taken away."""
    rest = re.sub(r"\\(?:q?quad|[hv]space\s*\{[^}]*\}|text\w*|mbox|[^a-zA-Z{}])", "", latex)
    return re.search(r"[^\W_]|\\[{}]", rest) is not None


# Whether two answers are the same


def _cleaned(latex: str) -> str:
    """An answer in one spelling of what math-verify reads wrongly or not at all."""
    latex = re.sub(r"\\?\$|(?<!\\)\\[()\[\]]", "", latex)  # dollars, as money or around a formula
    latex = re.sub(r"(?<=\d)(?:\\[,!;:]|\{,\}|,\\!|~)\s*(?=\d{3}(?!\d))", ",", latex)  # 1\,234 is no product
    latex = re.sub(r"^\s*[a-zA-Z]\s*\\in(?![a-zA-Z])", "", latex)  # "x ∈ S" states S
    latex = latex.strip()
    return latex if latex.endswith(r"\right.") else latex.rstrip(string.whitespace + ".")


@lru_cache(maxsize=1 << 16)
def _same(answer: str, gold: str) -> bool:
    """Whether the answer is the gold; math-verify takes x = 0 for 0, but 0 for no equation, so order matters."""
    if answer == gold:
        return True
    if _words(answer) or _words(gold):
        return _letters(answer) == _letters(gold)
    if _base(answer) and _base(gold) and _base(answer) != _base(gold):
        return False
    return _WORKER.ask("same", answer, gold) is True


def _words(latex: str) -> bool:
    r"""Words, which math-verify would read as a product of letters: `\text{...}` without a digit, or a plain word."""
    styled = re.fullmatch(r"\s*\\(?:text\w*|math\w+|mbox)\s*\{[^{}\\\d]*\}\s*", latex)
    return re.search(r"[^\W\d_]", _letters(latex)) is not None and (
        styled is not None or re.fullmatch(r"\(?[^\W\d_]{3,}(?:[ '-][^\W\d_]+)*\)?", latex.strip()) is not None
    )


def _letters(latex: str) -> str:
    """Words without type face, brackets around them, spacing and case."""
    bare = re.sub(r"\\(?:text\w*|math\w+|mbox)(?![a-zA-Z])|[{}]", "", latex)
    bare = " ".join(re.sub(r"\\[ ,;:!]|~", " ", bare).split()).rstrip(". ")
    return re.sub(r"^\((.*)\)$", r"\1", bare).strip().casefold()


def _base(latex: str) -> str | None:
    """The base of a numeral such as 204_5, which math-verify drops: 204_5 is not 204_7."""
    match = re.fullmatch(r"\s*-?[0-9a-zA-Z]+_\{?(\d+)\}?\s*", latex)
    return match[1] if match else None


def _integer(digits: str) -> str:
    """An integer in one spelling; `int` refuses more than 4,300 digits."""
    sign, magnitude = digits.startswith("-"), digits.strip().lstrip("-").lstrip("0")
    return "-" * (sign and bool(magnitude)) + (magnitude or "0")


# The process that knows mathematics


class _Worker:
    """math-verify in a process of its own, started when first asked, and anew where an answer took it too long."""

    def __init__(self):
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0

    def ask(self, *request: str) -> str | bool | None:
        """The worker's reply; None where it gave none in its time."""
        with self._lock:
            process = self._running()
            timer = threading.Timer(WALL_SECONDS, process.kill)
            timer.start()
            try:
                return self._exchange(process, request)
            except (OSError, ValueError):  # it ended before or within its reply
                self.close()
                return None
            except BaseException:  # Ctrl-C: a late reply must not be taken for that of the next question
                self.close()
                raise
            finally:
                timer.cancel()

    def _exchange(self, process: "subprocess.Popen[str]", request: tuple[str, ...]) -> str | bool | None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    def _running(self) -> "subprocess.Popen[str]":
        """The process; a fork of this one may not share it."""
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self._process, self._owner = _start(), os.getpid()
        return self._process

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            with process:  # closes the pipes and waits
                pass

    def forget(self) -> None:
        """In a fork: leave the parent's process to the parent."""
        if self._process is not None:
            self._process.returncode = 0  # or it warns that it was left running
        self.__init__()


def _start() -> "subprocess.Popen[str]":
    script = Path(__file__).with_name("mathematics.py")
    return subprocess.Popen(
        [sys.executable, "-P", str(script)],  # -P: the files beside the script are no top-level modules
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C is for this process
    )


_WORKER = _Worker()
atexit.register(_WORKER.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_WORKER.forget)
