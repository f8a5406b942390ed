"""ARM in one worker's model: put there at load, and fed before each forward pass."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from armlet.attachment.sites import UnsupportedModelError
from armlet.integrations.vllm.operator import RedistributedAndMul
from armlet.integrations.vllm.settings import request_strength
from armlet.integrations.vllm.sites import find_fused_sites, layer_count
from armlet.redistribution.errors import ArgumentError

ATTRIBUTE = "armlet"
"""Of the model, where its `Serving` is."""

PADDING = 512
"""Tokens that a batch may be padded by beyond the scheduler's limit, for graphs and tensor parallelism."""


class Serving:
    """ARM in the layers of a model that are on this rank.

    Args:
        model: as vLLM's loader gives it, not yet wrapped or compiled.
        arguments: those of `attach`.
        most_tokens: of one forward pass.
        device: of the model.

    Raises:
        UnsupportedModelError: a layer has no gated MLP that can be recognised; nothing is replaced then.
        ArgumentError: a layer that is not there.
    """

    def __init__(self, model: nn.Module, arguments: Mapping[str, Any], most_tokens: int, device: torch.device) -> None:
        self.policy, noise = arguments["policy"], arguments["noise"]
        self.layers = _wanted(arguments["layers"], layer_count(model))
        sites = find_fused_sites(model, self.layers)
        self.positions = torch.zeros(most_tokens + PADDING, dtype=torch.int64, device=device)
        self.strengths = torch.zeros(most_tokens + PADDING, dtype=torch.float32, device=device)
        self.places = {
            site.layer: RedistributedAndMul(
                site.mlp.get_submodule(site.attribute),
                site.activation,
                self.policy,
                noise,
                layer=site.layer,
                width=site.width,
                shard=site.shard,
                shards=site.shards,
                positions=self.positions,
                strengths=self.strengths,
            )
            for site in sites
        }
        self.asked = self.proven = False
        for site in sites:
            setattr(site.mlp, site.attribute, self.places[site.layer])

    def feed(self, positions: Tensor, counts: Sequence[int], extra_args: Sequence[Mapping[str, Any] | None]) -> None:
        """Places each token of the next forward pass.

        Args:
            positions: `[tokens]`, or `[3, tokens]` of a model with positions in three dimensions, padding included.
            counts: tokens of each request, in the batch's order; what is left is padding, and off.
            extra_args: of each request.
        """
        total = positions.shape[-1]
        if positions.dim() == 1:
            self.positions[:total].copy_(positions)
        strength = np.zeros(total, dtype=np.float32)
        strength[: sum(counts)] = np.repeat([self._strength(each) for each in extra_args], counts)
        self.strengths[:total].copy_(torch.from_numpy(strength))
        self.asked = bool(strength.any())

    def prove(self) -> None:
        """After a forward pass, the first with ARM on: every layer saw it. Later passes cost nothing.

        Raises:
            UnsupportedModelError: a layer's MLP does not call its activation, so that ARM in its place does nothing.
        """
        if self.proven or not self.asked:
            return
        silent = [layer for layer, each in self.places.items() if not each.report()["tokens"]]
        if silent:
            raise UnsupportedModelError(
                f"layers {silent}: ARM is in place and no token came through, since the MLP does not call the "
                "activation that ARM replaced (a fused kernel instead?); choose other layers"
            )
        self.proven = True

    def report(self) -> dict[str, Any]:
        """The layers asked for, and for each that is here: calls, tokens, moved, share_moved, passed."""
        return {"asked": self.layers, "layers": {str(layer): each.report() for layer, each in self.places.items()}}

    def _strength(self, extra_args: Mapping[str, Any] | None) -> float:
        asked = request_strength(extra_args)
        return self.policy.strength if asked is None else asked


def _wanted(layers: Any, count: int) -> list[int]:
    wanted = range(count) if layers == "all" else [layers] if isinstance(layers, int) else layers
    beyond = [index for index in wanted if index >= count]
    if beyond:
        raise ArgumentError(f"layers: the model has layers 0 to {count - 1}, found {beyond[0]}")
    return sorted(set(wanted))
