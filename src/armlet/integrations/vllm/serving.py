"""ARM in one worker's model: installed at load, and given positions and strengths before each forward pass."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from armlet.attachment.config import AttachArguments
from armlet.attachment.sites import UnsupportedModelError
from armlet.integrations.vllm.offline import LayerCounts
from armlet.integrations.vllm.operator import RedistributedAndMul
from armlet.integrations.vllm.settings import ExtraArgs, request_strength
from armlet.integrations.vllm.sites import decoder_layers, find_fused_sites
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise

SERVING_ATTRIBUTE = "armlet"  # of the model: its `Serving`
PADDING = 512  # tokens that a batch may be padded by beyond the scheduler's limit, for graphs and tensor parallelism


class Serving:
    """ARM in the layers that are on this rank, of a model as vLLM's loader gives it: not yet wrapped or compiled.

    `arguments` are those of `attach`, `most_tokens` those of one forward pass.

    Raises:
        UnsupportedModelError: a layer has no gated MLP that can be recognised; nothing is replaced then.
        ArgumentError: a layer out of range, or noise that is not keyed.
    """

    def __init__(self, model: nn.Module, arguments: AttachArguments, most_tokens: int, device: torch.device) -> None:
        self.policy, noise = arguments["policy"], arguments["noise"]
        if not isinstance(noise, Noise):
            raise ArgumentError(f"vLLM needs keyed noise, found {noise.kind} noise")
        self.layers = _layer_indices(arguments["layers"], len(decoder_layers(model)))
        sites = find_fused_sites(model, self.layers)
        self.positions = torch.zeros(most_tokens + PADDING, dtype=torch.int64, device=device)
        self.strengths = torch.zeros(most_tokens + PADDING, dtype=torch.float32, device=device)
        buffers = self.positions, self.strengths
        self.places = {site.layer: RedistributedAndMul(site, self.policy, noise, *buffers) for site in sites}
        self._asked = self._proven = False
        for site in sites:
            setattr(site.mlp, site.attribute, self.places[site.layer])

    def feed(self, positions: Tensor, counts: Sequence[int], extra_args: Sequence[ExtraArgs]) -> None:
        """Stores the position and the strength of each token of the next forward pass.

        Args:
            positions: `[tokens]`, or `[3, tokens]` of a model with positions in three dimensions, padding included.
            counts: tokens of each request, in the batch's order; further tokens are padding, at strength 0.
            extra_args: of each request.
        """
        total = positions.shape[-1]
        if positions.dim() == 1:
            self.positions[:total].copy_(positions)
        asked = [request_strength(request) for request in extra_args]
        strength = np.zeros(total, dtype=np.float32)
        strength[: sum(counts)] = np.repeat([self.policy.strength if s is None else s for s in asked], counts)
        self.strengths[:total].copy_(torch.from_numpy(strength))
        self._asked = bool(strength.any())

    def prove(self) -> None:
        """After the first forward pass with ARM on: every layer saw it. Later passes are not checked.

        Raises:
            UnsupportedModelError: a layer's MLP does not call its activation, so that ARM in its place does nothing.
        """
        if self._proven or not self._asked:
            return
        silent = [layer for layer, place in self.places.items() if not place.report()["tokens"]]
        if silent:
            raise UnsupportedModelError(
                f"layers {silent}: ARM is in place and no token came through, since the MLP does not call the "
                "activation that ARM replaced (a fused kernel instead?); choose other layers"
            )
        self._proven = True

    def report(self) -> dict[str, LayerCounts]:
        """The counts of the layers that are on this rank."""
        return {str(layer): place.report() for layer, place in self.places.items()}


def _layer_indices(layers: int | list[int] | str, count: int) -> list[int]:
    indices = range(count) if isinstance(layers, str) else [layers] if isinstance(layers, int) else layers
    beyond = [index for index in indices if index >= count]
    if beyond:
        raise ArgumentError(f"layers: the model has layers 0 to {count - 1}, found {beyond[0]}")
    return sorted(set(indices))
