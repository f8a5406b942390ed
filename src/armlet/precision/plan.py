"""The plan of a run of `quantize`: its options, the loaded model with its two texts, and its manifest."""

import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from typer import Option

from armlet.attachment.attached import refuse_attached
from armlet.checkpoints.given import Model, load_or_use
from armlet.checkpoints.pretrained import Dtype, parse_dtype
from armlet.evaluation import exercise
from armlet.precision.measure import Bench
from armlet.presentation.options import OptionGroup, SeedOption
from armlet.prompts.texts import Cut, check_given, model_windows, read_text, text_origin
from armlet.runs.folder import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ContractionSite: TypeAlias = Literal["gate", "product"]


@dataclass(frozen=True)
class PrecisionOptions(OptionGroup):
    """The text, and the cost and the site that are allowed for contracting."""

    data: Annotated[Path | None, Option(help="A text in UTF-8; a small built-in one by default.")] = None
    windows: Annotated[int, Option(min=2, help="Number of held-out windows, from the text's beginning.")] = 24
    tokens: Annotated[int, Option(min=2, help="Number of tokens of a window.")] = 48
    calibration: Annotated[int, Option(min=1, help="Number of windows to choose settings by, from the text's end.")] = 4
    limit: Annotated[
        float,
        Option(
            min=0,
            max=1,
            help="Maximum cost of contracting without rounding, as a share of the perplexity on calibration text.",
        ),
    ] = 0.01
    site: Annotated[
        ContractionSite | None,
        Option(help="Contract only at gate or only at product (down's input); at either by default."),
    ] = None

    def measured(self) -> dict[str, object]:
        """The options that determine what is measured, for the manifest and the result."""
        return {name: getattr(self, name) for name in ("windows", "tokens", "calibration", "limit", "site")}


@dataclass(frozen=True)
class PrecisionPlan(PrecisionOptions):
    """The options of a run, with a text that is no file, and the seed of the bootstrap."""

    text: str | None = None
    seed: SeedOption = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_given(self.data, self.text)

    def read(self) -> str | None:
        """The given text; None for the built-in one."""
        return self.text if self.data is None else read_text(self.data)

    def origin(self) -> str | None:
        """The text's file, or `GIVEN_TEXT`; None for the built-in one."""
        return text_origin(self.data, self.text)


def load_bench(
    plan: PrecisionPlan, model: Model, tokenizer: "PreTrainedTokenizerBase | None", *, dtype: Dtype, device: str | None
) -> tuple[Bench, Record]:
    """Returns the model with its texts, and the manifest, which has everything that affects the settings and losses.

    Raises the errors of `armlet.precision.quantize` about its arguments and the model.
    """
    text = plan.read()  # before anything slow
    parse_dtype(dtype)
    opened = load_or_use(model, tokenizer, dtype=dtype, device=device)
    refuse_attached(opened.model, "quantize")
    texts, after = model_windows(opened, text, Cut(plan.windows, plan.calibration, plan.tokens), exercise)
    bench = Bench(opened.model, {name: ids.to(opened.model.device) for name, ids in texts.items()}, after)
    identity = opened.fingerprint
    hashes = {name: hashlib.sha256(str(ids.tolist()).encode()).hexdigest() for name, ids in texts.items()}
    data = plan.data.name if plan.data else plan.origin()
    return bench, {
        "engine": {"model": opened.name, "sha256": identity, "device": str(opened.model.device), "dtype": bench.dtype},
        "tasks": [{"name": "quantize", "data": data, "sha256": hashes}],
        **plan.measured(),
        "versions": {name: metadata.version(name) for name in ("armlet", "torch", "transformers", "tokenizers")},
    }
