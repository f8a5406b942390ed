"""The plan of a run of `quantize`: its options, the loaded model with its two texts, and its manifest."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from typer import Option

from armlet.attachment.attached import refuse_attached
from armlet.checkpoints.given import Model, load_or_use
from armlet.checkpoints.pretrained import Dtype, parse_dtype
from armlet.evaluation import exercise
from armlet.precision.measure import Bench
from armlet.presentation.options import OptionGroup, SeedOption
from armlet.prompts.texts import GivenText, WindowCounts, model_windows, windows_manifest
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
class PrecisionPlan(PrecisionOptions, GivenText):
    """The options of a run, with a text that is no file, and the seed of the bootstrap."""

    text: str | None = None
    seed: SeedOption = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_text()


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
    texts, after = model_windows(opened, text, WindowCounts(plan.windows, plan.calibration, plan.tokens), exercise)
    bench = Bench(opened.model, {name: ids.to(opened.model.device) for name, ids in texts.items()}, after)
    return bench, windows_manifest(opened, "quantize", plan, texts, plan.measured())
