"""HumanEval: combines a row and a model's completion into a program."""

import ast
import re
import textwrap
from collections.abc import Iterator

FENCE = re.compile(r"^[ \t]*(?:```+|~~~+)[ \t]*(\w*)[^\n]*$", re.MULTILINE)
FUTURE = re.compile(r"^from __future__ import [^\n]*\n?", re.MULTILINE)
INDENT = "    "
MAX_CUTS = 100  # number of an answer's last lines before which the code may end


def humaneval_program(prompt: str, completion: str, test: str, entry_point: str) -> str:
    """The program that runs a completion against the tests of its row, which define `check`.

    The row's prompt contains imports, helpers and the beginning of the function `entry_point`. The completion is the
    rest of the function or all of it, with or without a fence. The first of several blocks with all of it is used.
    """
    code = _extract_code(completion, entry_point)
    whole = _defines(code, entry_point)  # if so, the body in the prompt is `pass`, but its imports and helpers remain
    solution = f"{prompt.rstrip()}\n{INDENT}pass\n\n{code}" if whole else prompt + _as_body(code)
    program = f"{solution}\n\n{test}\n\ncheck({entry_point})\n"
    # Code under `if __name__ == "__main__"` must not run: it may wait for input.
    return "".join(FUTURE.findall(program)) + '__name__ = "solution"\n' + FUTURE.sub("", program)


def _extract_code(completion: str, entry_point: str) -> str:
    """The first fenced block that defines the function, else the first block, else the text without prose."""
    if blocks := _fenced_blocks(completion):
        dedented = map(textwrap.dedent, blocks)  # a whole function may be indented as part of a list
        whole = [block for block in dedented if _defines(block, entry_point)]
        return next(filter(_parses, whole), (whole or blocks)[0])
    return _without_prose(completion, entry_point)


def _fenced_blocks(completion: str) -> list[str]:
    """The fenced blocks. The last one may have no closing fence, and a single fence after text ends that text."""
    fences = list(FENCE.finditer(completion))
    if len(fences) == 1 and not fences[0][1] and completion[: fences[0].start()].strip():
        return [completion[: fences[0].start()]]
    ends = [*(fence.start() for fence in fences[1::2]), len(completion)]
    blocks = [completion[opening.end() + 1 : end] for opening, end in zip(fences[::2], ends, strict=False)]
    # Because a docstring may contain fences, all text from the first fence to the last is also a candidate.
    return [*blocks, completion[fences[0].end() + 1 : fences[-1].start()]] if len(fences) > 2 else blocks


def _defines(code: str, entry_point: str) -> bool:
    name = re.escape(entry_point)
    return re.search(rf"^(?:(?:async )?def {name}\b|{name}\s*(?::[^=\n]+)?=(?!=))", code, re.MULTILINE) is not None


def _without_prose(completion: str, entry_point: str) -> str:
    """A whole function without the sentences before and after it; the rest of a function is returned unchanged."""
    first = re.search(r"^(?:def|class|import|from|async def|@\w)", completion, re.MULTILINE)
    if not first or not _defines(completion, entry_point):
        return completion
    code = completion[first.start() :]
    return next((head for head in _beginnings(code) if _defines(head, entry_point) and _parses(head)), code)


def _beginnings(code: str) -> Iterator[str]:
    """The code, and then the code before each of its last unindented lines, longest first."""
    yield code
    starts = [match.start() for match in re.finditer(r"^\S", code, re.MULTILINE)]
    yield from (code[:start] for start in reversed(starts[-MAX_CUTS:]) if start)


def _parses(code: str) -> bool:
    try:
        return bool(ast.parse(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _as_body(code: str) -> str:
    """The rest of a function, indented as a body and without prose after it.

    Models drop the indentation of the first line or of all lines, and use other indentation widths.
    """
    spaced = re.sub(r"^\t+", lambda tabs: INDENT * len(tabs[0]), code.strip("\n"), flags=re.MULTILINE)
    bodies = (
        body
        for head in _beginnings(spaced)
        for body in (head, textwrap.indent(textwrap.dedent(head), INDENT), INDENT + head.lstrip())
    )
    valid_bodies = (body for body in bodies if body[:1].isspace() and _parses(f"def _():\n{INDENT}pass\n{body}"))
    return next(valid_bodies, spaced)
