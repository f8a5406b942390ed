"""The two forms of `make gpu`: the full one on a GPU, and a small one on the CPU, whose times mean nothing."""

from dataclasses import dataclass

import torch

SECTIONS = ("suite", "times", "models", "sanitizer")


@dataclass(frozen=True)
class Form:
    """What is run.

    Args:
        device: "cuda" or "cpu".
        seconds: the budget of each section.
        widths, tokens: of the operations that are timed, the most important first.
        turns: how often each is measured.
        prefill: the tokens of a model's prefill.
        prompt: the tokens in the cache at the first decoded step.
        steps: the decoded tokens of one measurement.
        batches: the batch sizes of decoding.
        examples: the most examples of a property's test.
    """

    device: str
    seconds: dict[str, float]
    widths: tuple[int, ...]
    tokens: tuple[int, ...]
    turns: int
    prefill: int
    prompt: int
    steps: int
    batches: tuple[int, ...]
    examples: int

    @property
    def is_small(self) -> bool:
        """Whether this runs on the CPU, under Triton's interpreter."""
        return self.device == "cpu"


FULL = Form(
    device="cuda",
    seconds={"suite": 150, "times": 120, "models": 120, "sanitizer": 40},
    widths=(14_336, 8_960, 18_944),
    tokens=(1, 64, 8_192, 8, 1_024),
    turns=15,
    prefill=4_096,
    prompt=512,
    steps=16,
    batches=(1, 64),
    examples=40,
)

SMALL = Form(
    device="cpu",
    seconds={"suite": 600, "times": 300, "models": 300, "sanitizer": 120},
    widths=(48,),
    tokens=(1, 3),
    turns=2,
    prefill=3,
    prompt=3,
    steps=1,
    batches=(1, 2),
    examples=4,
)

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
