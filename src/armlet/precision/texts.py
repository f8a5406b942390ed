"""The texts of a run: held-out windows to measure on, and calibration windows to choose settings by."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from armlet.evaluation import exercise
from armlet.precision.measure import CALIBRATION, HELD_OUT
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PASSAGES = Path(__file__).with_name("passages.txt")  # the built-in text: prose written for this purpose
EQUALS = "?"  # the token between a problem of abacus and its answer


def read_text(data: Path) -> str:
    """The text of a file; raises ArgumentError if it cannot be read or is not UTF-8."""
    try:
        return data.read_text(encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"data: {data} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        raise ArgumentError(f"data: {data} is not a UTF-8 text") from None


def cut_text(ids: Sequence[int], windows: int, calibration: int, tokens: int, first: int | None) -> dict[str, Tensor]:
    """Cuts held-out windows from the beginning of a text and calibration windows from its end, without overlap.

    Unless `first` is None, each window begins with that token and loses its last one.

    Raises ArgumentError if the text is too short.
    """
    needed = (windows + calibration) * tokens
    if len(ids) < needed:
        raise ArgumentError(
            f"the text has {len(ids):,} tokens, but {windows} held-out and {calibration} calibration windows need "
            f"{needed:,}: give a longer text, or fewer windows or tokens"
        )
    parts = {HELD_OUT: ids[: windows * tokens], CALIBRATION: ids[len(ids) - calibration * tokens :]}
    texts = {name: torch.tensor(part).view(-1, tokens) for name, part in parts.items()}
    if first is not None:
        texts = {name: functional.pad(rows[:, :-1], (1, 0), value=first) for name, rows in texts.items()}
    return texts


def problem_texts(
    tokenizer: "PreTrainedTokenizerBase", windows: int, calibration: int, tokens: int, equals: int
) -> dict[str, Tensor]:
    """Worked abacus problems, truncated to a window; without problems that are shorter or have no answer left.

    equals: the token id of `EQUALS`.

    Raises ArgumentError if too few problems are left.
    """
    texts = dict[str, Tensor]()
    for name, count in ((HELD_OUT, windows), (CALIBRATION, calibration)):
        split = "test" if name == HELD_OUT else "train"
        problems = (exercise(index, split=split) for index in range(100 * count))
        encoded = (tokenizer(f"{p.question}=?{p.answer}", add_special_tokens=False)["input_ids"] for p in problems)
        usable = (ids[:tokens] for ids in encoded if len(ids) >= tokens > ids.index(equals) + 1)
        rows = list(islice(usable, count))
        if len(rows) < count:
            raise ArgumentError(
                f"tokens: too few abacus problems have {tokens} tokens including part of the answer; try 48"
            )
        texts[name] = torch.tensor(rows)
    return texts
