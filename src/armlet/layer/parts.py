"""The parts of the figure for which PyTorch has no module; decoder.py connects them."""

import torch
from torch import Tensor, nn

from armlet.layer.options import Options


class Norm(nn.Module):
    """RMSNorm, or LayerNorm if `centered`, in float32, over groups of `shape[-1]` values: d, or h of each head."""

    def __init__(self, options: Options, *shape: int, bias: bool = False) -> None:
        super().__init__()
        self.eps, self.centered, self.offset = options.eps, options.centered, options.norm_offset
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(shape)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[..., groups · shape[-1]]` to the same shape and dtype."""
        v = x.float().unflatten(-1, (-1, self.weight.shape[-1]))
        v = v - v.mean(-1, keepdim=True) if self.centered else v
        v = v * torch.rsqrt(v.pow(2).mean(-1, keepdim=True) + self.eps)
        v = v * (self.weight.float() + self.offset)
        v = v if self.bias is None else v + self.bias.float()
        return v.flatten(-2).to(x.dtype)


class RoPE(nn.Module):
    """Rotates the i-th pair of each head by the angle position · ωᵢ; values outside the pairs are unchanged.

    The pairs come first in a head; in latent attention they come last.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        # A tuple, not a buffer, so that frequencies stay exact if the layer is converted to bfloat16.
        self.frequencies, self.scale, self.interleaved = options.frequencies, options.rope_scale, options.interleaved
        self.last = options.latent is not None

    def forward(self, heads: Tensor, positions: Tensor) -> Tensor:
        """Maps `heads [b, n, s, h]` and `positions [b or 1, s]` to `[b, n, s, h]`."""
        angles = positions[:, None, :, None].float() * torch.tensor(self.frequencies, device=heads.device)
        cos, sin = angles.cos() * self.scale, angles.sin() * self.scale
        count = 2 * len(self.frequencies)
        first, second = heads.tensor_split([heads.shape[-1] - count if self.last else count], dim=-1)
        rotating, passing = (second, first) if self.last else (first, second)
        a, b = (rotating[..., ::2], rotating[..., 1::2]) if self.interleaved else rotating.chunk(2, dim=-1)
        rotated = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1 if self.interleaved else -2)
        rotated = rotated.flatten(-2)
        return torch.cat((passing, rotated) if self.last else (rotated, passing), dim=-1).to(heads.dtype)


class Attention(nn.Module):
    """Computes softmax(Q Kᵀ · scale) V over the visible tokens."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.scale, self.softcap, self.heads = options.attention_scale, options.softcap, options.heads
        self.sinks = nn.Parameter(torch.empty(options.heads)) if options.sinks else None

    def forward(self, q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """Maps `q [b, n, s, h]`, `k` and `v [b, g, S, h]` to weights `[b, n, s, S]` and attention `[b, s, n·h]`."""
        k, v = (heads.repeat_interleave(self.heads // heads.shape[1], dim=1) for heads in (k, v))
        scores = q @ k.mT * self.scale
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        # The lowest number, not −∞: a row of padding sees no token, and must not become NaN.
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
        if self.sinks is not None:  # one more column, which attends to nothing
            sinks = self.sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
            scores = torch.cat((scores, sinks), dim=-1)
        weights = scores.softmax(-1, dtype=torch.float32).to(v.dtype)[..., : k.shape[-2]]
        return weights, (weights @ v).transpose(1, 2).flatten(-2)


class KVCache:
    """Keys (after RoPE) and values `[b, g, S, h]` of the tokens so far; each layer and text needs its own cache."""

    def __init__(self) -> None:
        self.K: Tensor | None = None
        self.V: Tensor | None = None

    @property
    def length(self) -> int:
        """S, the number of cached tokens."""
        return 0 if self.K is None else self.K.shape[-2]

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Adds the new tokens' keys and values `[b, g, s, h]`; returns keys and values of all tokens."""
        self.K = k if self.K is None else torch.cat((self.K, k), dim=-2)
        self.V = v if self.V is None else torch.cat((self.V, v), dim=-2)
        return self.K, self.V


class Add(nn.Module):
    """⊕: adds the output of a block to the residual stream."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.scale = options.residual_scale

    def forward(self, x: Tensor, block: Tensor) -> Tensor:
        """Adds two tensors `[b, s, d]`."""
        return x + block * self.scale


class SwiGLU(nn.Module):
    """The activation of gpt-oss: gate · σ(α · gate), with the gate clamped from above."""

    def __init__(self, alpha: float, limit: float) -> None:
        super().__init__()
        self.alpha, self.limit = alpha, limit

    def forward(self, gate: Tensor) -> Tensor:
        """Maps a tensor to another of the same shape."""
        gate = gate.clamp(max=self.limit)
        return gate * torch.sigmoid(gate * self.alpha)


class Multiply(nn.Module):
    """⊗: the gate scales `up`, value by value; in gpt-oss it scales `up` + 1, with `up` clamped on both sides."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.limit = None if options.swiglu is None else options.swiglu[1]

    def forward(self, gate: Tensor, up: Tensor) -> Tensor:
        """Multiplies two tensors `[b, s, f]`."""
        return gate * up if self.limit is None else gate * (up.clamp(-self.limit, self.limit) + 1)


def make_activation(options: Options) -> nn.Module:
    """Creates the activation of the gate."""
    if options.swiglu:
        return SwiGLU(*options.swiglu)
    return nn.SiLU() if options.activation == "SiLU" else nn.GELU(approximate="tanh")


def make_norm(options: Options, enabled: bool) -> nn.Module:
    """Creates the norm of all d values, or the identity if the layer has none."""
    return Norm(options, options.d_model, bias=options.norm_bias) if enabled else nn.Identity()


def make_qk_norm(options: Options, heads: int) -> nn.Module:
    """Creates the norm of Q or K with this number of heads, or the identity if the layer has none."""
    h = options.head_dim
    shapes = {"head": (h,), "heads": (heads, h), "projection": (heads * h,)}
    return Norm(options, *shapes[options.qk_norm]) if options.qk_norm in shapes else nn.Identity()
