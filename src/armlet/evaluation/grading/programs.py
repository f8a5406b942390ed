"""HumanEval: combines a row and a model's completion into a program."""

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence

from armlet.evaluation.grading.needed import implements, needed_part
from armlet.evaluation.grading.thoughts import after_thought

FENCE = re.compile(r"^[ \t]*(?:```+|~~~+)[ \t]*(\w*)[^\n]*$", re.MULTILINE)
FUTURE = re.compile(r"^from __future__ import [^\n]*\n?", re.MULTILINE)
CODE_START = re.compile(r"^(?:def|class|import|from|async def|try:|@\w|\w+ *=)", re.MULTILINE)
BODY_START = re.compile(r"\s*^[ \t]+\S", re.MULTILINE)  # the first line of text is indented
INDENT = "    "
MAX_CUTS = 100  # number of an answer's last lines before which the code may end
MAX_DRAFTS = 3  # number of an answer's last whole functions that are tried


def humaneval_program(prompt: str, completion: str, test: str, entry_point: str) -> str:
    """The program that runs a completion against the tests of its row, which define `check`.

    The row's prompt contains imports, helpers and the beginning of the function `entry_point`. The completion is the
    rest of the function or all of it, with or without a fence. The last of several blocks with all of it is used, with
    what it needs of the others; a thought before the answer is not read. Of the code, only what the function needs is
    run (see `needed_part`): the tests of the row decide, not those that the model wrote.
    """
    code = _extract_code(after_thought(completion)[0], entry_point)
    whole = implements(code, entry_point)  # if so, the body in the prompt is `pass`, but its imports and helpers remain
    solution = f"{prompt.rstrip()}\n{INDENT}pass\n\n{code}" if whole else prompt + _as_body(code)
    solution = needed_part(solution, entry_point, test=test, continued=not whole)
    program = f"{solution}\n\n{test}\n\ncheck({entry_point})\n"
    # Code under `if __name__ == "__main__"` must not run: it may wait for input.
    return "".join(FUTURE.findall(program)) + '__name__ = "solution"\n' + FUTURE.sub("", program)


def _extract_code(completion: str, entry_point: str) -> str:
    """The code with the last whole function in fences, else in the text; else the rest of the function.

    Other fenced blocks come before the one with the function: its names replace theirs.
    """
    fences = list(FENCE.finditer(completion))
    blocks = _fenced_blocks(completion, fences)
    dedented = [_program(textwrap.dedent(block), entry_point) for block in blocks]  # blocks in a list are indented
    if whole := [block for block in dedented if implements(block, entry_point)]:
        return "\n\n".join((*(block for block in dedented if block is not whole[-1] and _parses(block)), whole[-1]))
    # A docstring may contain fences.
    everything = completion[fences[0].end() + 1 : fences[-1].start()] if len(fences) > 2 else ""
    continued = completion[: fences[0].start()] if fences else completion
    if BODY_START.match(continued) and _returns(continued):
        return continued
    programs = (code for code in (everything, _program(completion, entry_point)) if implements(code, entry_point))
    return next(programs, blocks[0] if blocks else completion)


def _fenced_blocks(completion: str, fences: Sequence[re.Match[str]]) -> list[str]:
    """The fenced blocks. The last one may have no closing fence, and a single fence after text ends that text."""
    if len(fences) == 1 and not fences[0][1] and completion[: fences[0].start()].strip():
        return [completion[: fences[0].start()]]
    ends = [*(fence.start() for fence in fences[1::2]), len(completion)]
    return [completion[opening.end() + 1 : end] for opening, end in zip(fences[::2], ends, strict=False)]


def _program(text: str, entry_point: str) -> str:
    """The part of a text that is a program with the whole function, without prose around it; else the text.

    Prose may begin with a word of Python, and follow the program or be between two drafts, of which the last counts.
    """
    if implements(text, entry_point):
        return text
    name = re.escape(entry_point)
    definition = re.compile(rf"^(?:(?:async )?def {name}\b|{name}\s*[:=])", re.MULTILINE)
    places = [match.start() for match in definition.finditer(text)]
    starts = [match.start() for match in CODE_START.finditer(text)]
    for place in reversed(places[-MAX_DRAFTS:]):
        before = [start for start in starts if start < place][-MAX_CUTS:]
        start = next((start for start in before if _parses(f"{text[start:place]}def _(): pass")), place)
        heads = (head for head in _beginnings(text[start:]) if len(head) > place - start)
        if head := next((head for head in heads if implements(head, entry_point)), ""):
            return head
    return text


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
    return next((body for body in bodies if body[:1].isspace() and _parsed_function(body)), spaced)


def _returns(code: str) -> bool:
    """Whether a text is the rest of a function that returns something, not a sentence that happens to be Python."""
    lines = [_parsed_function(_as_body(code))]
    while lines:
        line = lines.pop()
        if isinstance(line, ast.Return):
            return True
        lines += [node for node in ast.iter_child_nodes(line) if not isinstance(node, ast.FunctionDef)] if line else []
    return False


def _parsed_function(body: str) -> ast.AST | None:
    """A function with this body; None if the body is not Python."""
    try:
        return ast.parse(f"def _():\n{INDENT}pass\n{body}").body[0]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
