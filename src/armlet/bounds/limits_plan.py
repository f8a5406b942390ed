"""The plan of a run of `limits`: its options, the loaded model with its two texts, and its manifest."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import torch
from typer import Option

from armlet.attachment.attached import refuse_attached
from armlet.bounds.limits_choice import Target
from armlet.bounds.limits_measure import LimitBench
from armlet.checkpoints.given import Model, NamedModel, load_or_use
from armlet.checkpoints.pretrained import Dtype, parse_dtype
from armlet.evaluation import exercise
from armlet.presentation.options import OptionGroup, SeedOption
from armlet.prompts.texts import GivenText, WindowCounts, model_windows, windows_manifest
from armlet.runs.folder import Record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LimitFormat: TypeAlias = Literal["e4m3", "e5m2", "float16", "bfloat16", "nvfp4", "q8_1"]
LimitSite: TypeAlias = Literal["gate", "product"]
LimitCurve: TypeAlias = Literal["clip", "log"]

SMALLEST_HEADROOM = 2.0**-20


@dataclass(frozen=True)
class LimitsOptions(OptionGroup):
    """The text, the format that values must fit, and the limits that may be used."""

    data: Annotated[Path | None, Option(help="A text in UTF-8; a small built-in one by default.")] = None
    windows: Annotated[int, Option(min=2, help="Number of held-out windows, from the text's beginning.")] = 24
    tokens: Annotated[int, Option(min=2, help="Number of tokens of a window.")] = 48
    calibration: Annotated[int, Option(min=1, help="Number of windows to choose limits by, from the text's end.")] = 8
    format: Annotated[
        LimitFormat, Option(help="Format whose largest number, without a scale, the product must not exceed.")
    ] = "e4m3"
    headroom: Annotated[
        float, Option(min=SMALLEST_HEADROOM, help="The format's largest number over the largest product, at least.")
    ] = 1.0
    margin: Annotated[
        float, Option(min=1, help="How much larger than on calibration text the values of other texts may be.")
    ] = 2.0
    site: Annotated[
        LimitSite | None, Option(help="Limit only at gate or only at product (down's input); at either by default.")
    ] = None
    curve: Annotated[LimitCurve | None, Option(help="Limit only by clip or only by log; by either by default.")] = None
    max_cost: Annotated[
        float, Option(min=0, help="Maximum cost of the recommended limits, as a share of the perplexity.")
    ] = 0.01

    def measured(self) -> dict[str, object]:
        """The options that determine what is measured, for the manifest and the result."""
        names = ("windows", "tokens", "calibration", "format", "headroom", "margin", "site", "curve", "max_cost")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class LimitsPlan(LimitsOptions, GivenText):
    """The options of a run, with a text that is no file, and the seed of the bootstrap."""

    text: str | None = None
    seed: SeedOption = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_text()

    def target(self, dtype: torch.dtype) -> Target:
        """What the product of a model in this dtype must not exceed."""
        return Target.of(self.format, self.headroom, self.margin, dtype, self.site, self.curve)


@dataclass(frozen=True)
class LimitsRun:
    """A model that is ready to run trials."""

    plan: LimitsPlan
    opened: NamedModel
    bench: LimitBench
    target: Target
    manifest: Record

    def token(self, text: str, window: int, position: int) -> str:
        """The decoded token of a window of one of the texts."""
        return str(self.opened.tokenizer.decode([int(self.bench.texts[text][window, position])]))


def open_run(
    plan: LimitsPlan, model: Model, tokenizer: "PreTrainedTokenizerBase | None", *, dtype: Dtype, device: str | None
) -> LimitsRun:
    """Loads the model and cuts the texts. The manifest has everything that affects the limits and losses.

    Raises the errors of `armlet.bounds.limits` about its arguments and the model.
    """
    text = plan.read()  # before anything slow
    parse_dtype(dtype)
    opened = load_or_use(model, tokenizer, dtype=dtype, device=device)
    refuse_attached(opened.model, "limits")
    texts, after = model_windows(opened, text, WindowCounts(plan.windows, plan.calibration, plan.tokens), exercise)
    target = plan.target(opened.model.dtype)
    windows = {name: ids.to(opened.model.device) for name, ids in texts.items()}
    bench = LimitBench(opened.model, windows, target.gate_bound, after)
    manifest = windows_manifest(opened, "limits", plan, texts, plan.measured())
    return LimitsRun(plan, opened, bench, target, manifest)
