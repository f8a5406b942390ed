"""The parts of a layer with experts in place of one MLP; decoder.py connects them."""

import torch
from torch import Tensor, nn

from armlet.attachment.module import ARM
from armlet.layer.options import Mixture, Options
from armlet.layer.parts import Multiply, make_activation
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Explicit, Noise


class Router(nn.Module):
    """Scores every expert for each token, chooses the k with the highest scores, and weights them."""

    def __init__(self, d_model: int, mixture: Mixture) -> None:
        super().__init__()
        self.mixture = mixture
        self.weight = nn.Parameter(torch.empty(mixture.experts, d_model))
        self.bias = nn.Parameter(torch.empty(mixture.experts)) if mixture.bias else None
        if mixture.score == "sigmoid":  # added to the scores for the choice only
            self.e_score_correction_bias = nn.Parameter(torch.empty(mixture.experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps `[b, s, d]` to scores `[b, s, e]` of all experts, and to indices and weights `[b, s, k]` of the chosen.

        Scores and weights are in float32.
        """
        m = self.mixture
        if m.score == "sigmoid":
            scores = nn.functional.linear(x.float(), self.weight.float()).sigmoid()
            chosen = self._in_best_groups(scores + self.e_score_correction_bias.float()).topk(m.per_token).indices
            weights = scores.gather(-1, chosen)
        else:
            scores = nn.functional.linear(x, self.weight, self.bias).softmax(-1, dtype=torch.float32)
            weights, chosen = scores.topk(m.per_token)
        # 1e-20, as in DeepSeek: sigmoids of low logits can all be 0.
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20) if m.normalized else weights
        return scores, chosen, weights * m.scale

    def _in_best_groups(self, scores: Tensor) -> Tensor:
        """Sets the scores `[b, s, e]` to −∞ outside the groups whose two best experts have the highest sums."""
        m = self.mixture
        grouped = scores.unflatten(-1, (m.groups, -1))  # [b, s, groups, e / groups]
        best = grouped.topk(2).values.sum(-1).topk(m.groups_per_token).indices
        kept = torch.zeros(grouped.shape[:-1], dtype=torch.bool, device=scores.device).scatter(-1, best, True)
        return grouped.masked_fill(~kept[..., None], -torch.inf).flatten(-2)


class ExpertLinear(nn.ModuleList):
    """A linear map for each expert; each row is mapped by the expert that it goes to."""

    def __init__(self, experts: int, inputs: int, outputs: int, bias: bool) -> None:
        super().__init__(nn.Linear(inputs, outputs, bias=bias) for _ in range(experts))
        self.outputs = outputs

    def forward(self, x: Tensor, chosen: Tensor) -> Tensor:
        """Maps x `[b, s, inputs]`, or `[b, s, k, inputs]`, and the indices `[b, s, k]` to `[b, s, k, outputs]`."""
        rows = x if x.dim() == 4 else x[:, :, None].expand(*chosen.shape, -1)
        result = x.new_empty(*chosen.shape, self.outputs)
        for expert in chosen.unique().tolist():
            result[chosen == expert] = self[expert](rows[chosen == expert])
        return result


class SharedExpert(nn.Module):
    """The gated MLP that every token passes through; its parts have the names of the figure."""

    def __init__(self, o: Options) -> None:
        super().__init__()
        width = o.mixture.shared_width if o.mixture else o.width
        self.gate = nn.Linear(o.d_model, width, bias=o.mlp_bias)
        self.activation = make_activation(o)
        self.ARM: nn.Module = nn.Identity()
        self.up = nn.Linear(o.d_model, width, bias=o.mlp_bias)
        self.multiply = Multiply(o)
        self.down = nn.Linear(width, o.d_model, bias=o.mlp_bias)


def redistribute_experts(
    arm: ARM, a: Tensor, chosen: Tensor, experts: int, positions: Tensor, valid: Tensor | None
) -> Tensor:
    """ARM on the activated gates `[b, s, k, f]` of the chosen experts: a row is one token in one expert.

    Keyed noise has the token's position, and channel expert · f + j of the noise of width experts · f.

    Args:
        arm: of width f and scope "token".
        a: the activated gates.
        chosen: `[b, s, k]`, the expert of each row.
        experts: the number of experts in the layer.
        positions: `[b or 1, s]`, each token's position.
        valid: `[b, s]`, False for padding; None if there is none.

    Raises:
        ArgumentError: the scope is not "token", or the width is not f.
    """
    if arm.scope != "token":
        problem = f"scope {arm.scope!r} has no meaning in a mixture of experts"
        raise ArgumentError(f"ARM: {problem}, where a row is one token in one expert; use scope 'token'")
    rows, noise = a.flatten(1, 2), arm.noise
    if isinstance(noise, Noise):
        keys = noise.keys(experts * a.shape[-1], arm.layer).to(a.device).view(3, experts, -1)
        tokens = positions[..., None].expand(chosen.shape)
        noise = Explicit(noise.uniforms(a.shape, tokens, keys[:, chosen]).flatten(1, 2))
    mask = None if valid is None else valid[..., None].expand(chosen.shape).flatten(1, 2)
    return arm(rows, mask=mask, noise=noise).view(a.shape)
