"""Installs ARM in a worker's model at load time, and sets positions and strengths before each forward pass."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from armlet.attachment.config import AttachArguments
from armlet.attachment.sites import ALL_EXPERTS, GATE, UnsupportedModelError
from armlet.integrations.vllm.mixture_arm import MixtureArm
from armlet.integrations.vllm.offline import LayerCounts
from armlet.integrations.vllm.operator import RedistributedAndMul
from armlet.integrations.vllm.settings import CONFIGURED, ExtraArgs, request_strength
from armlet.integrations.vllm.sites import FusedSite, MixtureLayer, decoder_layers, find_fused_sites
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise

ARM_ATTRIBUTE = "armlet"  # attribute of the model that stores its `WorkerArm`
PADDING = 512  # most tokens of padding beyond the scheduler's limit, for graphs and tensor parallelism


class WorkerArm:
    """ARM in this rank's layers of a model as loaded by vLLM, before it is wrapped or compiled.

    `placements` are arguments of `attach`. `max_tokens` is the most tokens in one forward pass.

    Raises:
        UnsupportedModelError: a layer has no gated MLP that can be recognised; the model is then unchanged.
        ArgumentError: a layer out of range, noise that is not keyed, or two placements at one site.
    """

    def __init__(
        self, model: nn.Module, placements: Sequence[AttachArguments], max_tokens: int, device: torch.device
    ) -> None:
        count = len(decoder_layers(model))
        layers = [_layer_indices(placement["layers"], count) for placement in placements]
        self.layers = sorted({layer for group in layers for layer in group})
        sites = find_fused_sites(model, self.layers)
        self.positions = torch.zeros(max_tokens + PADDING, dtype=torch.int64, device=device)
        self.strengths = torch.zeros(max_tokens + PADDING, dtype=torch.float32, device=device)
        buffers = self.positions, self.strengths
        self.modules = {site.layer: _layer_arm(site, *buffers) for site in sites}
        for placement, group in zip(placements, layers, strict=True):
            self._add(placement, group)
        self._configured = max(placement["policy"].strength for placement in placements)
        self._active = self._verified = False
        for module in self.modules.values():
            module.put_in()

    def _add(self, placement: AttachArguments, layers: Sequence[int]) -> None:
        noise = placement["noise"]
        if not isinstance(noise, Noise):
            raise ArgumentError(f"vLLM needs keyed noise, found {noise.kind} noise")
        for layer in layers:
            if layer in self.modules:  # on this rank
                where = placement.get("site", GATE), placement["policy"], noise
                self.modules[layer].add(*where, placement.get("experts", ALL_EXPERTS))

    def set_inputs(self, positions: Tensor, counts: Sequence[int], extra_args: Sequence[ExtraArgs]) -> None:
        """Stores the position and the strength of each token of the next forward pass.

        Args:
            positions: `[tokens]`, with padding. `[3, tokens]` (M-RoPE) is not stored: `check_config` rejects `Outward`.
            counts: number of tokens of each request, in the batch's order; later tokens are padding, at strength 0.
            extra_args: `extra_args` of each request.
        """
        for module in self.modules.values():
            if isinstance(module, MixtureArm):
                module.check_in_place()
        total = positions.shape[-1]
        if positions.dim() == 1:
            self.positions[:total].copy_(positions)
        requested = [request_strength(request) for request in extra_args]
        strength = np.zeros(total, dtype=np.float32)
        strength[: sum(counts)] = np.repeat([CONFIGURED if s is None else s for s in requested], counts)
        self.strengths[:total].copy_(torch.from_numpy(strength))
        self._active = any((self._configured if s is None else s) > 0 for s in requested)

    def check_fired(self) -> None:
        """Checks after the first forward pass with ARM on that it ran in every layer. Later passes are not checked.

        Raises UnsupportedModelError if a layer's MLP does not call its activation, which ARM replaced.
        """
        if self._verified or not self._active:
            return
        unused = [layer for layer, module in self.modules.items() if module.unused()]
        if unused:
            raise UnsupportedModelError(
                f"layers {unused}: ARM is installed but received no tokens; the MLP does not call the activation that "
                "ARM replaced (fused kernel?). Choose other layers"
            )
        self._verified = True

    def report(self) -> dict[str, LayerCounts]:
        """Returns the counts of the layers on this rank."""
        return {str(layer): module.report() for layer, module in self.modules.items()}


def _layer_arm(site: FusedSite | MixtureLayer, *buffers: Tensor) -> MixtureArm | RedistributedAndMul:
    return MixtureArm(site, *buffers) if isinstance(site, MixtureLayer) else RedistributedAndMul(site, *buffers)


def _layer_indices(layers: int | list[int] | str, count: int) -> list[int]:
    indices = range(count) if isinstance(layers, str) else [layers] if isinstance(layers, int) else layers
    missing = [index for index in indices if index >= count]
    if missing:
        raise ArgumentError(f"layers: the model has layers 0 to {count - 1}, found {missing[0]}")
    return sorted(set(indices))
