"""Q, K and V: linear maps of a token, or of the short vectors of latent attention; decoder.py connects them."""

from collections import OrderedDict
from dataclasses import replace

import torch
from torch import Tensor, nn

from armlet.layer.options import Latent, Options
from armlet.layer.parts import Norm

LATENT_EPS = 1e-6
"""The eps of the norms of latent attention, whatever the configuration says."""


class LatentKey(nn.Module):
    """K of latent attention: each head has its own values, and those for RoPE that all heads share."""

    def __init__(self, o: Options, latent: Latent) -> None:
        super().__init__()
        self.rank, self.rotated, self.heads = latent.rank, latent.rotated, o.heads
        self.down = nn.Linear(o.d_model, latent.rank + latent.rotated, bias=latent.bias)
        self.norm = Norm(replace(o, eps=LATENT_EPS), latent.rank)
        self.up = nn.Linear(latent.rank, o.heads * (o.head_dim - latent.rotated), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `[b, s, d]` to `[b, s, n·h]`."""
        vector, shared = self.down(x).split((self.rank, self.rotated), dim=-1)
        of_heads = self.up(self.norm(vector)).unflatten(-1, (self.heads, -1))
        shared = shared[:, :, None].expand(*of_heads.shape[:3], -1)
        return torch.cat((of_heads, shared), dim=-1).flatten(-2)


def make_query(o: Options) -> nn.Module:
    """Creates Q."""
    if o.latent and o.latent.query_rank:
        return _through_vector(o, o.latent.query_rank, o.heads * o.head_dim, o.latent.bias)
    return nn.Linear(o.d_model, o.heads * o.head_dim, bias=o.qkv_bias)


def make_key(o: Options) -> nn.Module:
    """Creates K."""
    return LatentKey(o, o.latent) if o.latent else nn.Linear(o.d_model, o.kv_heads * o.head_dim, bias=o.qkv_bias)


def make_value(o: Options) -> nn.Module:
    """Creates V."""
    if o.latent:
        return _through_vector(o, o.latent.rank, o.heads * o.value_dim, o.latent.bias)
    return nn.Linear(o.d_model, o.kv_heads * o.head_dim, bias=o.qkv_bias)


def _through_vector(o: Options, rank: int, outputs: int, bias: bool) -> nn.Module:
    parts = {
        "down": nn.Linear(o.d_model, rank, bias=bias),
        "norm": Norm(replace(o, eps=LATENT_EPS), rank),
        "up": nn.Linear(rank, outputs, bias=False),
    }
    return nn.Sequential(OrderedDict(parts))
