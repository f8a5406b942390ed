"""The plan of a run of `armlet quantize`: its options, the loaded model with its two texts, and its manifest."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional

from armlet.checkpoints.folder import ABACUS
from armlet.checkpoints.identity import fingerprint, model_folder
from armlet.checkpoints.pretrained import load, parse_dtype
from armlet.precision.measure import CALIBRATION, HELD_OUT, Bench
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PASSAGES = Path(__file__).with_name("passages.txt")  # the built-in text: prose written for this purpose
EQUALS = "?"  # the token between a problem of abacus and its answer

AbacusProblem = Callable[[int, Literal["train", "test"]], str]
"""Returns the abacus problem with this index in a split, followed by `EQUALS` and its worked answer."""


@dataclass(frozen=True)
class PrecisionPlan:
    """The options of a run.

    `limit` is the fraction by which a contraction may raise the unrounded model's perplexity on calibration text.
    """

    model: str  # a folder, a hub id, or abacus
    data: Path | None  # a UTF-8 text file; None for the built-in text, or for problems if the model is abacus
    windows: int  # number of held-out windows
    tokens: int  # tokens per window
    calibration: int  # number of calibration windows
    limit: float
    site: str | None  # the only site allowed for a contraction; None for either
    seed: int  # seed of the bootstrap
    dtype: str  # dtype of the weights, or auto
    device: str | None  # None for the CPU

    def options(self) -> dict[str, object]:
        """The options that determine what is measured, for the manifest and the result."""
        return {name: getattr(self, name) for name in ("windows", "tokens", "calibration", "limit", "site")}


def load_bench(plan: PrecisionPlan, problem: AbacusProblem) -> tuple[Bench, dict[str, object]]:
    """Returns the model with its texts, and the manifest, which has everything that affects the settings and losses.

    Abacus is measured on problems because it was not trained on prose.

    Raises:
        ArgumentError: the text, the dtype or the number of tokens is not suitable.
        CheckpointError: the model cannot be loaded.
    """
    uses_problems = plan.model == ABACUS and plan.data is None
    text = "" if uses_problems else _read_text(plan.data or PASSAGES)
    parse_dtype(plan.dtype)
    folder = model_folder(plan.model)
    model, tokenizer = load(str(folder), dtype=plan.dtype, device=plan.device)
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None) or plan.tokens
    if plan.tokens > longest:
        raise ArgumentError(f"--tokens: expected at most {longest:,}, the model's context, found {plan.tokens:,}")
    # Abacus was not trained to predict questions, so only tokens after the question mark count.
    after = cast(int, tokenizer.convert_tokens_to_ids(EQUALS)) if uses_problems else None
    if after is not None:
        texts = _problem_texts(plan, tokenizer, problem, after)
    else:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        texts = cut(ids, plan.windows, plan.calibration, plan.tokens, cast("int | None", tokenizer.bos_token_id))
    bench = Bench(model, {name: ids.to(model.device) for name, ids in texts.items()}, after)
    hashes = {name: hashlib.sha256(str(ids.tolist()).encode()).hexdigest() for name, ids in texts.items()}
    engine = {"model": plan.model, "sha256": fingerprint(folder), "device": str(model.device), "dtype": bench.dtype}
    return bench, {
        "engine": engine,
        "tasks": [{"name": "quantize", "data": plan.data and plan.data.name, "sha256": hashes}],
        **plan.options(),
        "versions": {name: metadata.version(name) for name in ("armlet", "torch", "transformers", "tokenizers")},
    }


def _read_text(data: Path) -> str:
    try:
        return data.read_text(encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"--data: {data} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        raise ArgumentError(f"--data: {data} is not a UTF-8 text") from None


def cut(ids: Sequence[int], windows: int, calibration: int, tokens: int, first: int | None) -> dict[str, Tensor]:
    """Cuts held-out windows from the beginning of a text and calibration windows from its end, without overlap.

    Unless `first` is None, each window begins with that token and loses its last one.

    Raises ArgumentError if the text is too short.
    """
    needed = (windows + calibration) * tokens
    if len(ids) < needed:
        raise ArgumentError(
            f"the text has {len(ids):,} tokens, but {windows} held-out and {calibration} calibration windows need "
            f"{needed:,}: give a longer --data, or fewer --windows or --tokens"
        )
    parts = {HELD_OUT: ids[: windows * tokens], CALIBRATION: ids[len(ids) - calibration * tokens :]}
    texts = {name: torch.tensor(part).view(-1, tokens) for name, part in parts.items()}
    if first is not None:
        texts = {name: functional.pad(rows[:, :-1], (1, 0), value=first) for name, rows in texts.items()}
    return texts


def _problem_texts(
    plan: PrecisionPlan, tokenizer: "PreTrainedTokenizerBase", problem: AbacusProblem, equals: int
) -> dict[str, Tensor]:
    """Worked abacus problems, truncated to a window; without problems that are shorter or have no answer left."""
    texts, counts = dict[str, Tensor](), {HELD_OUT: plan.windows, CALIBRATION: plan.calibration}
    for name, count in counts.items():
        split = "test" if name == HELD_OUT else "train"
        encoded = (tokenizer(problem(n, split), add_special_tokens=False)["input_ids"] for n in range(100 * count))
        usable = (ids[: plan.tokens] for ids in encoded if len(ids) >= plan.tokens > ids.index(equals) + 1)
        windows = list(islice(usable, count))
        if len(windows) < count:
            raise ArgumentError(
                f"--tokens: too few abacus problems have {plan.tokens} tokens including part of the answer; try 48"
            )
        texts[name] = torch.tensor(windows)
    return texts
