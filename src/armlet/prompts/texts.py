"""Texts to measure a model on: held-out windows, and calibration windows to choose settings by."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional

from armlet.checkpoints.folder import ABACUS
from armlet.checkpoints.given import NamedModel, check_tokens, known_tokens
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PASSAGES = Path(__file__).with_name("passages.txt")  # the built-in text: prose written for this purpose
EQUALS = "?"  # the token between a problem of abacus and its answer
GIVEN_TEXT = "a text"  # in results, in place of the name of a file

HELD_OUT, CALIBRATION = "held-out", "calibration"  # the text to measure on, and the text to choose settings on


class WorkedProblem(Protocol):
    """A problem of abacus, as `armlet.evaluation.exercise` makes it."""

    @property
    def question(self) -> str: ...  # noqa: D102

    @property
    def answer(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class WindowCounts:
    """How a text is cut into windows."""

    windows: int  # number of held-out windows, from the text's beginning
    calibration: int  # number of calibration windows, from its end
    tokens: int  # of a window


def read_text(data: Path) -> str:
    """The text of a file; raises ArgumentError if it cannot be read or is not UTF-8."""
    try:
        return data.read_text(encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"data: {data} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        raise ArgumentError(f"data: {data} is not a UTF-8 text") from None


class GivenText:
    """The text of a plan of measurements: a file (`data`), the text itself, or neither for the built-in one."""

    data: Path | None
    text: str | None

    def check_text(self) -> None:
        """Raises ArgumentError for both a file and a text, a file that is no path, and a text that is none."""
        for name, value, kind in (("data", self.data, Path), ("text", self.text, str)):
            if not isinstance(value, kind | None):
                raise ArgumentError(f"{name}: expected a {kind.__name__}, found {type(value).__name__}")
        if self.data is not None and self.text is not None:
            raise ArgumentError("data, text: expected a file or the text itself, found both")

    def read(self) -> str | None:
        """The given text; None for the built-in one."""
        return self.text if self.data is None else read_text(self.data)

    def origin(self) -> str | None:
        """The text's file, or `GIVEN_TEXT`; None for the built-in one."""
        return str(self.data) if self.data else None if self.text is None else GIVEN_TEXT


def model_windows(
    opened: NamedModel, text: str | None, cut: WindowCounts, exercise: Callable[..., WorkedProblem]
) -> tuple[dict[str, Tensor], int | None]:
    """A text as token ids `[windows, tokens]`, by `HELD_OUT` and `CALIBRATION`, and `after` of `window_losses`.

    Without a text, the built-in one; for abacus its problems, because it was not trained on prose. It was not trained
    to predict questions either, so only tokens after the question mark count.

    exercise: `armlet.evaluation.exercise`.

    Raises ArgumentError if the text is too short, has a token that the model lacks, or a window exceeds its context.
    """
    longest = getattr(opened.model.config.get_text_config(), "max_position_embeddings", None) or cut.tokens
    if cut.tokens > longest:
        raise ArgumentError(f"tokens: expected at most {longest:,}, the model's context, found {cut.tokens:,}")
    tokenizer = opened.tokenizer
    if text is None and opened.name == ABACUS:
        equals = cast(int, tokenizer.convert_tokens_to_ids(EQUALS))
        return problem_texts(tokenizer, cut, equals, exercise), equals
    prose = read_text(PASSAGES) if text is None else text
    ids = tokenizer(prose, add_special_tokens=False, verbose=False)["input_ids"]
    check_tokens(tokenizer, ids, known_tokens(opened.model), "text")
    return cut_text(ids, cut, cast("int | None", tokenizer.bos_token_id)), None


def windows_manifest(
    opened: NamedModel, task: str, given: GivenText, windows: Mapping[str, Tensor], measured: Mapping[str, object]
) -> dict[str, Any]:
    """The manifest of a run on windows of a text; measured: the options that determine what is measured."""
    model = opened.model
    hashes = {name: hashlib.sha256(str(ids.tolist()).encode()).hexdigest() for name, ids in windows.items()}
    identity = {"model": opened.name, "sha256": opened.fingerprint, "device": str(model.device)}
    return {
        "engine": {**identity, "dtype": str(model.dtype).removeprefix("torch.")},
        "tasks": [{"name": task, "data": given.data.name if given.data else given.origin(), "sha256": hashes}],
        **measured,
        "versions": {name: metadata.version(name) for name in ("armlet", "torch", "transformers", "tokenizers")},
    }


def cut_text(ids: Sequence[int], cut: WindowCounts, first: int | None) -> dict[str, Tensor]:
    """Cuts held-out windows from the beginning of a text and calibration windows from its end, without overlap.

    Unless `first` is None, each window begins with that token and loses its last one.

    Raises ArgumentError if the text is too short.
    """
    windows, calibration, tokens = cut.windows, cut.calibration, cut.tokens
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
    tokenizer: "PreTrainedTokenizerBase", cut: WindowCounts, equals: int, exercise: Callable[..., WorkedProblem]
) -> dict[str, Tensor]:
    """Worked abacus problems, truncated to a window; without problems that are shorter or have no answer left.

    equals: the token id of `EQUALS`.

    Raises ArgumentError if too few problems are left.
    """
    texts, tokens = dict[str, Tensor](), cut.tokens
    for name, count in ((HELD_OUT, cut.windows), (CALIBRATION, cut.calibration)):
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
