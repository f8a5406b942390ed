"""Measures how filler tokens change attention and the gate (arXiv 2510.01032, Sections 2, 3 and 6).

The tokens after the filler are compared with the same tokens of the prompt without filler.
"""

from dataclasses import dataclass
from math import nan

import numpy as np
import torch
from torch import Tensor

from armlet.attachment.module import ARM
from armlet.attachment.sites import UnsupportedModelError
from armlet.layer.capture import Trace, routed_rows
from armlet.prompts.fillers import Prompt
from armlet.statistics import FloatArray
from armlet.statistics.shape import token_measures

ATTENTION_QUANTITIES: dict[str, str] = {
    "mass": "attention weight left to the prompt's own tokens, mean over heads (1 without filler)",
    "lambda": "λ of the affine fit A′ = λ·A + Σ of the attention output over a prompt's tokens (1 without filler)",
    "shift": "‖Σ‖ of that fit over the mean ‖A‖ (0 without filler)",
    "shift_consistency": "mean cosine between a token's own shift A′ − λ·A and Σ (1: all in the same direction)",
    "r2": "share of the variance of A′ over a prompt's tokens that the fit explains",
    "r2_heads": "r2 with a separate λ for each head",
}
"""Effects of filler. A and A′ are the attention output before its projection, without and with filler."""

GATE_QUANTITIES: dict[str, str] = {
    "gate_variance": "variance of the gate before its activation over a prompt's tokens, mean over the width",
    "near_zero": "share of the activated gate nearer to zero than the token's near-zero half-width without filler",
    "l1": "sum of |a| over a token",
    "l2": "Euclidean norm of a token",
    "gini": "Gini coefficient of |a| in a token",
}
"""Quantities of a token that are defined with or without filler."""

QUANTITIES = ATTENTION_QUANTITIES | GATE_QUANTITIES

CLAIMS: dict[str, int] = {"gate_variance": 1, "near_zero": -1, "l1": 1, "l2": 1, "gini": -1}
"""Direction in which filler moves a quantity of layer 0, as claimed in the paper's Section 3: 1 up, −1 down."""

MIXTURE_GATE = (
    "a token's activated gate is those of its routed experts, one after another in the order of experts, without "
    "shared experts; gate_variance is not defined, because tokens go to different experts"
)
UNEVEN = "tokens go to different numbers of routed experts, so their gates have no common width"


@dataclass(frozen=True)
class View:
    """One layer: a prompt of s tokens, n ≥ 0 filler tokens and T tokens after these; float64, on the CPU."""

    received: Tensor  # [s + n], mean attention from later tokens of the prompt; nan if there are none
    mass: Tensor  # [T], the attention weight left to the prompt's own tokens
    attention: Tensor  # [T, heads · head_dim], the attention output before its projection
    gate: Tensor  # [T, width], before the activation function; in a mixture of experts [T, 1], NaN, see `MIXTURE_GATE`
    activated: Tensor  # [T, width], after the activation function; in a mixture [T, k · width of an expert]
    experts: Tensor | None  # [T, k], the routed experts of each token, ascending; None in a dense layer


@dataclass(frozen=True)
class Affine:
    """The least-squares fit A′ = λ·A + Σ of a prompt's attention outputs."""

    scale: float  # λ, the same for all tokens and directions
    shift: Tensor  # Σ, [heads · head_dim]
    relative: float  # ‖Σ‖ over the mean ‖A‖
    consistency: float  # mean cosine between each token's own A′ − λ·A and Σ
    r2: float  # explained share of the variance of A′
    r2_heads: float  # r2 with one λ for each head


def view(trace: Trace, prompt: Prompt, count: int) -> View:
    """Extracts the view from a trace of one text, with `count` filler tokens at `prompt.insert_at`.

    trace: of `Layer1`, or by `capturing`. Raises UnsupportedModelError if tokens go to different numbers of experts.
    """
    weights = trace["Attention_weights"][0].double().mean(0).cpu()
    after = slice(prompt.insert_at + count, None)
    in_prompt = torch.ones(len(weights), dtype=torch.bool)
    in_prompt[prompt.insert_at : prompt.insert_at + count] = False
    if "experts" in trace:
        activated, experts = (tensor[after].cpu() for tensor in _by_token(trace, len(weights)))
        gate = torch.full((len(activated), 1), nan)
    else:
        gate, activated, experts = trace["gate"][0, after].cpu(), trace["activation"][0, after].cpu(), None
    attention = trace["Attention"][0, after].double().cpu()
    # The mean of each column below the diagonal, over the rows of the prompt's own tokens.
    later_counts = in_prompt.flip(0).cumsum(0).flip(0) - in_prompt.long()
    received = weights.tril(-1)[in_prompt].sum(0) / later_counts
    mass = weights[after][:, in_prompt].sum(1)
    return View(received, mass, attention, gate.double(), activated.double(), experts)


def _by_token(trace: Trace, tokens: int) -> tuple[Tensor, Tensor]:
    """The activated gates of each token's k routed experts `[tokens, k · f]`, in the order of experts `[tokens, k]`."""
    rows, positions, experts = routed_rows(trace, "activation")
    if not torch.equal(positions.cpu(), torch.arange(tokens).repeat_interleave(len(rows) // tokens)):
        raise UnsupportedModelError(UNEVEN)
    return rows.view(tokens, -1), experts.view(tokens, -1)


def fit_affine(before: Tensor, after: Tensor, heads: int = 1) -> Affine:
    """Fits one λ and one Σ to the attention outputs A without and A′ with filler, equation 2 of the paper.

    Undefined results are nan: λ and everything that depends on it if all A are equal, as with a single token; the
    consistency if a token does not shift; R² if all A′ are equal.
    """
    centred, target = before - before.mean(0), after - after.mean(0)
    scale, r2 = _scale(centred[:, None], target[:, None])
    _, r2_heads = _scale(centred.unflatten(1, (heads, -1)), target.unflatten(1, (heads, -1)))
    token_shifts = after - scale * before
    shift = token_shifts.mean(0)
    cosine = (token_shifts @ shift) / (token_shifts.norm(dim=1) * shift.norm())
    relative = shift.norm() / before.norm(dim=1).mean()
    return Affine(scale.item(), shift, relative.item(), cosine.mean().item(), r2, r2_heads)


def _scale(centred: Tensor, target: Tensor) -> tuple[Tensor, float]:
    """The n least-squares scales from `centred` to `target`, both `[T, n, h]`, and the share of squares explained."""
    scale = (centred * target).sum((0, 2)) / centred.square().sum((0, 2))
    residual = (target - scale[:, None] * centred).square().sum()
    return scale, (1 - residual / target.square().sum()).item()


def measure_filler(without: View, filled: View, halfwidth: Tensor, heads: int) -> dict[str, FloatArray]:
    """Each of `QUANTITIES` with filler, `[T]`; quantities of the whole prompt are repeated for each of its tokens.

    halfwidth: `[T, 1]`, `near_zero_halfwidth` of the activated gate without filler.
    """
    fit = fit_affine(without.attention, filled.attention, heads)
    prompt_values = (fit.scale, fit.relative, fit.consistency, fit.r2, fit.r2_heads)
    attention = (filled.mass.numpy(), *(np.full(len(filled.mass), value) for value in prompt_values))
    return dict(zip(ATTENTION_QUANTITIES, attention, strict=True)) | measure_gate(filled, halfwidth)


def measure_gate(layer_view: View, halfwidth: Tensor) -> dict[str, FloatArray]:
    """Each of `GATE_QUANTITIES`, `[T]`; the variance is each token's squared distance from the prompt's mean."""
    distance = (layer_view.gate - layer_view.gate.mean(0)).square().mean(1)
    return {"gate_variance": distance.numpy()} | token_measures(layer_view.activated, halfwidth=halfwidth)


def near_zero_after(layer_view: View, halfwidth: Tensor, arm: ARM, start: int) -> FloatArray:
    """Near-zero share of each token after ARM, `[T]`, with the half-width before ARM; start: first token's position.

    arm: in a mixture of experts an `ExpertsArm`, whose rows are one token in one expert.
    """
    activated, experts = layer_view.activated.float(), layer_view.experts
    positions = start + torch.arange(len(activated))
    if experts is None:
        after = arm(activated, positions)
    else:
        rows, positions = activated.view(-1, arm.width), positions.repeat_interleave(experts.shape[1])
        after = arm(rows, positions, experts=experts.flatten()).view(activated.shape)
    return token_measures(after, halfwidth=halfwidth)["near_zero"]
