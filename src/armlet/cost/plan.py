"""What a run measures, checked before anything slow."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from armlet.checkpoints.given import Model, check_loaded, check_running_device, model_name
from armlet.checkpoints.pretrained import dtype_name, parse_dtype
from armlet.cost.measure import Shapes
from armlet.presentation.arguments import LARGEST_SEED, text_list, whole_number_or_none
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.rows import Policy

MODEL_DTYPE = "float32"  # by default, of the weights


@dataclass(frozen=True)
class CostPlan:
    """The options of a run. Raises ArgumentError if one is out of range or cannot be used."""

    policy: Policy
    shapes: Shapes | None  # shapes of the function's tensors; None to leave the function out
    model: Model | None  # None to leave the model out
    turns: int = 20  # turns of the function, for each shape
    model_turns: int = 9  # turns of generation and of prefill
    threads: int | None = None  # torch's threads; None to leave them
    dtype: str = MODEL_DTYPE  # dtype of the model's weights
    device: str | None = None  # None for the CPU, or where a loaded model is
    seed: int = 0  # seed of values, prompts and noise

    def __post_init__(self) -> None:
        limits = {"turns": (2, None), "model_turns": (2, None), "threads": (1, None), "seed": (0, LARGEST_SEED)}
        for name, (low, high) in limits.items():
            object.__setattr__(self, name, whole_number_or_none(name, getattr(self, name), low, high))
        check_running_device(self.device)
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        if isinstance(self.model, nn.Module):
            check_loaded(self.model, None if self.dtype == MODEL_DTYPE else self.dtype, self.device)
        elif self.model is not None:
            model_name(self.model)

    @property
    def place(self) -> torch.device:
        """The device of all tensors."""
        on_model = self.model.device if isinstance(self.model, nn.Module) else "cpu"
        return torch.device(self.device or on_model)


def parse_shapes(
    widths: str | int | Iterable[int], tokens: str | int | Iterable[int], dtypes: str | Iterable[str]
) -> Shapes:
    """Shapes from numbers and names, or from text such as "1536,8960"; raises ArgumentError if one is invalid."""
    names = dtypes.split(",") if isinstance(dtypes, str) else text_list("dtypes", dtypes)
    parsed = [parse_dtype(name.strip()) for name in names]
    if None in parsed or not parsed:
        raise ArgumentError("dtypes: auto is not supported; name dtypes such as float32,bfloat16")
    return Shapes(_numbers("widths", widths), _numbers("tokens", tokens), [dtype for dtype in parsed if dtype])


def _numbers(name: str, numbers: str | int | Iterable[int]) -> list[int]:
    several = numbers.split(",") if isinstance(numbers, str) else numbers
    parts = [str(number) for number in (several if isinstance(several, Iterable) else [several])]
    if not parts or not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ArgumentError(f"{name}: expected whole numbers from 1 such as 1536,8960, found {numbers!r}")
    return [int(part) for part in parts]
