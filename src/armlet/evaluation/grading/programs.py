"""HumanEval: from a row and what a model wrote to a program, and what comes of it."""

import ast
import re
import textwrap
from collections.abc import Iterator

from armlet.evaluation.grading.sandbox import ProgramOutcome, run_program

FENCE = re.compile(r"^[ \t]*(?:```+|~~~+)[ \t]*(\w*)[^\n]*$", re.MULTILINE)
FUTURE = re.compile(r"^from __future__ import [^\n]*\n?", re.MULTILINE)
INDENT = "    "
MOST = 100  # lines at which an answer is tried to end before its prose


def check_humaneval(
    prompt: str, completion: str, test: str, entry_point: str, *, seconds: float = 10.0
) -> ProgramOutcome:
    """Run a completion against the tests of its row, shut in.

    Args:
        prompt: the row's: imports, helpers, the head of the function and its docstring.
        completion: what the model wrote: the rest of the function or the whole of it, bare or in a fenced block. Of
            several blocks with the whole function the first counts.
        test: the row's; defines `check`.
        entry_point: the function's name.
        seconds: of wall-clock time.

    Raises:
        ArmletError: see `run_program`.
    """
    return run_program(humaneval_program(prompt, completion, test, entry_point), seconds=seconds)


def humaneval_program(prompt: str, completion: str, test: str, entry_point: str) -> str:
    """The program that tests a completion; arguments as for `check_humaneval`."""
    code = _code(completion, entry_point)
    if not _defines(code, entry_point):
        solution = prompt + _as_body(code)
    else:  # the prompt's own function ends with its docstring and is defined again; its imports and helpers stay
        solution = f"{prompt.rstrip()}\n{INDENT}pass\n\n{code}"
    program = f"{solution}\n\n{test}\n\ncheck({entry_point})\n"
    # What a model guards by `if __name__ == "__main__"` is its own trial, perhaps one that waits for input.
    return "".join(FUTURE.findall(program)) + '__name__ = "solution"\n' + FUTURE.sub("", program)


def _code(completion: str, entry_point: str) -> str:
    """The first fenced block that defines the function, else the first one, else the text from its first code on."""
    blocks = [_flush(block, entry_point) for block in _fenced(completion)]
    if blocks:
        whole = [block for block in blocks if _defines(block, entry_point)]
        return next(filter(_parses, whole), (whole or blocks)[0])
    return _without_prose(completion, entry_point)


def _fenced(completion: str) -> list[str]:
    """Fenced blocks, the last one perhaps cut short; what stands before a lone closing fence is one, too."""
    fences = list(FENCE.finditer(completion))
    if len(fences) == 1 and not fences[0][1] and completion[: fences[0].start()].strip():
        return [completion[: fences[0].start()]]
    ends = [*(fence.start() for fence in fences[1::2]), len(completion)]
    blocks = [completion[opening.end() + 1 : end] for opening, end in zip(fences[::2], ends, strict=False)]
    # Fences may stand in a docstring.
    return [*blocks, completion[fences[0].end() + 1 : fences[-1].start()]] if len(fences) > 2 else blocks


def _defines(code: str, entry_point: str) -> bool:
    name = re.escape(entry_point)
    return re.search(rf"^(?:(?:async )?def {name}\b|{name}\s*(?::[^=\n]+)?=(?!=))", code, re.MULTILINE) is not None


def _flush(block: str, entry_point: str) -> str:
    """A block in a list is indented as a whole; that of a continuation says where it stands."""
    dedented = textwrap.dedent(block)
    return dedented if _defines(dedented, entry_point) else block


def _without_prose(completion: str, entry_point: str) -> str:
    """A whole function without the sentences before and behind it; a continuation as it is."""
    first = re.search(r"^(?:def|class|import|from|async def|@\w)", completion, re.MULTILINE)
    if not first or not _defines(completion, entry_point):
        return completion
    code = completion[first.start() :]
    return next((head for head in _heads(code) if _defines(head, entry_point) and _parses(head)), code)


def _heads(code: str) -> Iterator[str]:
    """The code, then what stands before each of its last flush lines, from the last one on."""
    yield code
    starts = [found.start() for found in re.finditer(r"^\S", code, re.MULTILINE)]
    yield from (code[:at] for at in reversed(starts[-MOST:]) if at)


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _as_body(code: str) -> str:
    """A continuation at the indentation of a body, without what is no code behind it.

    Models strip the indentation of the first line, or of all, and indent by another width.
    """
    spaced = re.sub(r"^\t+", lambda tabs: INDENT * len(tabs[0]), code.strip("\n"), flags=re.MULTILINE)
    bodies = (body for head in _heads(spaced) for body in _indented(head))
    fitting = (body for body in bodies if body[:1].isspace() and _parses(f"def _():\n{INDENT}pass\n{body}"))
    return next(fitting, spaced)


def _indented(code: str) -> tuple[str, str, str]:
    """As it stands, as a whole moved to a body's indentation, and with the first line moved there alone."""
    return code, textwrap.indent(textwrap.dedent(code), INDENT), INDENT + code.lstrip()
