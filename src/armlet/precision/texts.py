"""The token windows on which a model is measured, and those by which settings are chosen."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from armlet.precision.trials import CALIBRATION, HELD_OUT
from armlet.redistribution.errors import ArgumentError

PASSAGES = Path(__file__).with_name("passages.txt")
"""The built-in text: prose written for this purpose."""

EQUALS = "?"
"""The token between a problem of abacus and its answer."""

ProblemSplit = Literal["train", "test"]

AbacusProblem = Callable[[int, ProblemSplit], str]
"""The problem of abacus with this index in a split, with `EQUALS` and its worked answer."""


def read_text(data: Path) -> str:
    """A text in UTF-8.

    Raises:
        ArgumentError: it cannot be read, or has another encoding.
    """
    try:
        return data.read_text(encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"--data: {data} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        raise ArgumentError(f"--data: {data} is not a text in UTF-8") from None


def cut(ids: Sequence[int], windows: int, calibration: int, tokens: int, first: int | None) -> dict[str, Tensor]:
    """The held-out windows from the beginning of a text, and the calibration windows from its end, without overlap.

    Args:
        ids: the text's tokens.
        windows: number of held-out windows.
        calibration: number of windows to choose by.
        tokens: per window.
        first: the token that begins each window, in place of its last one; None for none.

    Raises:
        ArgumentError: the text is too short.
    """
    needed = (windows + calibration) * tokens
    if len(ids) < needed:
        raise ArgumentError(
            f"the text has {len(ids):,} tokens, and {windows} windows to measure and {calibration} to choose by need "
            f"{needed:,}: give a longer --data, or fewer --windows or --tokens"
        )
    parts = {HELD_OUT: ids[: windows * tokens], CALIBRATION: ids[len(ids) - calibration * tokens :]}
    return {name: _begin(torch.tensor(part).view(-1, tokens), first) for name, part in parts.items()}


def _begin(windows: Tensor, first: int | None) -> Tensor:
    if first is None:
        return windows
    return torch.cat((torch.full_like(windows[:, :1], first), windows[:, :-1]), 1)


def problem_windows(tokenizer: Any, problem: AbacusProblem, count: int, tokens: int, split: ProblemSplit) -> Tensor:
    """`[count, tokens]`: worked problems of abacus, truncated to a window; shorter ones are skipped.

    So are those of which a window would contain nothing of the answer.

    Raises:
        ArgumentError: too few problems are long enough.
    """
    kept: list[list[int]] = []
    equals = tokenizer.convert_tokens_to_ids(EQUALS)
    for index in range(100 * count):
        ids = tokenizer(problem(index, split), add_special_tokens=False)["input_ids"]
        if len(ids) >= tokens > ids.index(equals) + 1:
            kept.append(ids[:tokens])
        if len(kept) == count:
            return torch.tensor(kept)
    raise ArgumentError(
        f"--tokens: too few problems of abacus have {tokens} tokens with some of the answer; 48 suit it"
    )
