"""What a run measures, checked before anything slow."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import torch
from torch import nn
from typer import Option

from armlet.checkpoints.given import Model, check_loaded, check_running_device, model_name
from armlet.checkpoints.pretrained import WEIGHT_DTYPES, Dtype, dtype_name
from armlet.cost.measure import Shapes
from armlet.presentation.arguments import several, whole_numbers
from armlet.presentation.options import OptionGroup
from armlet.redistribution.errors import ArgumentError, description
from armlet.redistribution.rows import Policy

MODEL_DTYPE = "float32"  # of the weights, by default
LARGEST_SIZE = 2**31 - 1  # a width or number of tokens too large for any memory

Half: TypeAlias = Literal["function", "model"]


@dataclass(frozen=True)
class ShapeOptions:
    """The shapes at which the function is timed, as the text that `parse_shapes` reads."""

    widths: Annotated[str, Option(help="MLP widths at which the function is timed.")] = "1536,8960,14336,18944"
    tokens: Annotated[str, Option(help="Numbers of tokens in one call.")] = "1,32,1024"
    dtypes: Annotated[str, Option(help="Dtypes in which the function is timed.")] = "float32,bfloat16"


@dataclass(frozen=True)
class TimingOptions(OptionGroup):
    """How often function and model are timed, and which of them."""

    turns: Annotated[int, Option(min=2, help="Number of timings of the function and of what it is compared with.")] = 20
    # Fewer than for the function: a turn takes seconds (three runs for generation and three for prefill).
    model_turns: Annotated[int, Option(min=2, help="Number of timings of the model, with and without ARM.")] = 9
    threads: Annotated[int | None, Option(min=1, help="torch's threads; torch's own choice by default.")] = None
    only: Annotated[Half | None, Option(help="Run only one half of the measurement; both by default.")] = None


@dataclass(frozen=True)
class CostPlan:
    """The options of a run. Raises ArgumentError if one cannot be used."""

    policy: Policy
    shapes: Shapes | None  # shapes of the function's tensors; None to leave the function out
    model: Model | None  # None to leave the model out
    timing: TimingOptions
    seed: int  # seed of values, prompts and noise
    dtype: Dtype | None  # dtype of the model's weights; None for MODEL_DTYPE, or a loaded model's
    device: str | None  # None for the CPU, or where a loaded model is

    def __post_init__(self) -> None:
        check_running_device(self.device)
        object.__setattr__(self, "dtype", self.dtype and dtype_name(self.dtype))
        if isinstance(self.model, nn.Module):
            if self.dtype is not None:
                kept = f"the model is loaded and keeps its own, {str(self.model.dtype).removeprefix('torch.')}"
                raise ArgumentError(f"dtype: {kept}; leave it out, or pass a path (the function's are in dtypes)")
            check_loaded(self.model, device=self.device)
        elif self.model is not None:
            model_name(self.model)

    @property
    def weights_dtype(self) -> Dtype:
        """The dtype in which a model is loaded."""
        return MODEL_DTYPE if self.dtype is None else self.dtype

    @property
    def place(self) -> torch.device:
        """The device of all tensors."""
        on_model = self.model.device if isinstance(self.model, nn.Module) else "cpu"
        return torch.device(self.device or on_model)


def parse_shapes(
    widths: str | int | Iterable[int],
    tokens: str | int | Iterable[int],
    dtypes: str | torch.dtype | Iterable[str | torch.dtype],
) -> Shapes:
    """Shapes from numbers and names, or from text such as "1536,8960"; raises ArgumentError if one is invalid."""
    given = dtypes.split(",") if isinstance(dtypes, str) else several(dtypes)
    names = [str(dtype).strip().removeprefix("torch.") for dtype in given]
    if not names or not set(names) <= set(WEIGHT_DTYPES):
        raise ArgumentError(
            f"dtypes: expected one or several of {', '.join(WEIGHT_DTYPES)}, found {description(dtypes)}"
        )
    sizes = (
        whole_numbers("widths", widths, 1, LARGEST_SIZE, "1536,8960"),
        whole_numbers("tokens", tokens, 1, LARGEST_SIZE, "1,32"),
    )
    return Shapes(*sizes, [getattr(torch, name) for name in names])
