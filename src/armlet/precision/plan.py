"""What a run of `armlet quantize` measures: its options, the loaded model with its two texts, and its manifest."""

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, cast

from torch import Tensor

from armlet.checkpoints.identity import ABACUS, fingerprint, model_folder
from armlet.checkpoints.pretrained import load, parse_dtype
from armlet.precision.choice import REFERENCES
from armlet.precision.measure import Bench
from armlet.precision.texts import EQUALS, PASSAGES, AbacusProblem, cut, problem_windows, read_text
from armlet.precision.trials import CALIBRATION, HELD_OUT
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class PrecisionPlan:
    """The options of a run.

    Args:
        model: a folder, a hub id, or abacus.
        data: a text in UTF-8; None for the built-in one, and for problems where the model is abacus.
        windows: number of held-out windows.
        tokens: per window.
        calibration: number of windows to choose by.
        limit: by how much a contraction may raise the unrounded model's perplexity on calibration text, as a fraction.
        site: the only site at which a contraction may be; None for either.
        seed: of the bootstrap.
        dtype: of the weights, or auto.
        device: None for the CPU.
    """

    model: str
    data: Path | None = None
    windows: int = 24
    tokens: int = 48
    calibration: int = 4
    limit: float = 0.01
    site: str | None = None
    seed: int = 0
    dtype: str = "auto"
    device: str | None = None

    def options(self) -> dict[str, object]:
        """Those that decide what is measured, for the manifest and the result."""
        return {name: getattr(self, name) for name in ("windows", "tokens", "calibration", "limit", "site")}


@dataclass(frozen=True)
class Subject:
    """What a plan measures, loaded.

    Attributes:
        bench: the model with its texts.
        dtype: of its weights.
        manifest: everything that decides which settings are chosen, and the losses.
    """

    bench: Bench
    dtype: str
    manifest: dict[str, object]


def load_subject(plan: PrecisionPlan, problem: AbacusProblem) -> Subject:
    """Reads the text, loads the model and cuts the windows.

    Args:
        plan: the options.
        problem: of abacus, which is measured on problems because it was not trained on prose.

    Raises:
        ArgumentError: a text, dtype or number of tokens that does not fit.
        CheckpointError: the model cannot be loaded.
    """
    solves = plan.model == ABACUS and plan.data is None
    text = None if solves else read_text(plan.data or PASSAGES)
    parse_dtype(plan.dtype)
    folder = model_folder(plan.model)
    model, tokenizer = load(str(folder), dtype=plan.dtype, device=plan.device)
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None) or plan.tokens
    if plan.tokens > longest:
        raise ArgumentError(f"--tokens: the model reads {longest:,} at a time, found {plan.tokens:,}")
    texts = _windows(plan, tokenizer, text, problem)
    # Abacus was not trained to guess questions: only what follows the question mark counts.
    after = cast(int, tokenizer.convert_tokens_to_ids(EQUALS)) if solves else None
    bench = Bench(model, {name: ids.to(model.device) for name, ids in texts.items()}, REFERENCES, after)
    dtype = str(model.dtype).removeprefix("torch.")
    engine = {"model": plan.model, "sha256": fingerprint(folder), "device": str(model.device), "dtype": dtype}
    return Subject(bench, dtype, _describe_run(plan, engine, texts))


def _windows(
    plan: PrecisionPlan, tokenizer: "PreTrainedTokenizerBase", text: str | None, problem: AbacusProblem
) -> dict[str, Tensor]:
    if text is None:
        held_out = problem_windows(tokenizer, problem, plan.windows, plan.tokens, "test")
        return {
            HELD_OUT: held_out,
            CALIBRATION: problem_windows(tokenizer, problem, plan.calibration, plan.tokens, "train"),
        }
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return cut(ids, plan.windows, plan.calibration, plan.tokens, cast("int | None", tokenizer.bos_token_id))


def _describe_run(plan: PrecisionPlan, engine: dict[str, str], texts: dict[str, Tensor]) -> dict[str, object]:
    hashes = {name: hashlib.sha256(str(ids.tolist()).encode()).hexdigest() for name, ids in texts.items()}
    return {
        "engine": engine,
        "tasks": [{"name": "quantize", "data": plan.data.name if plan.data else None, "sha256": hashes}],
        **plan.options(),
        "versions": {name: metadata.version(name) for name in ("armlet", "torch", "transformers", "tokenizers")},
    }
