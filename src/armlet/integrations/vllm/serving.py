"""Installs ARM in a worker's model at load time, and sets positions and strengths before each forward pass."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from armlet.attachment.config import AttachArguments
from armlet.attachment.sites import ALL_EXPERTS, GATE, UnsupportedModelError
from armlet.integrations.vllm.mixture_arm import MixtureArm
from armlet.integrations.vllm.offline import LayerCounts
from armlet.integrations.vllm.operator import RedistributedAndMul
from armlet.integrations.vllm.requests import CONFIGURED, ExtraArgs, read_request
from armlet.integrations.vllm.settings import Served
from armlet.integrations.vllm.sites import FusedSite, MixtureLayer, decoder_layers, find_fused_sites
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise

ARM_ATTRIBUTE = "armlet"  # attribute of the model that stores its `WorkerArm`
ALIGNED = 16  # a buffer's rows begin at multiples of it, as kernels like
PADDING = 512  # most tokens of padding beyond the scheduler's limit, for graphs and tensor parallelism


class WorkerArm:
    """ARM in this rank's layers of a model as loaded by vLLM, before it is wrapped or compiled.

    `max_tokens` is the most tokens in one forward pass.

    Raises:
        UnsupportedModelError: a layer has no gated MLP that can be recognised; the model is then unchanged.
        ArgumentError: a layer out of range, noise that is not keyed, or two placements of a setting at one site.
    """

    def __init__(self, model: nn.Module, engine: Served, max_tokens: int, device: torch.device) -> None:
        count = len(decoder_layers(model))
        placed = [
            (name, placement, _layer_indices(placement["layers"], count))
            for name, placements in engine.settings.items()
            for placement in placements
        ]
        self.engine, self.layers = engine, sorted({layer for *_, layers in placed for layer in layers})
        sites = self._find_sites(model, self.layers)
        size = -(-(max_tokens + PADDING) // ALIGNED) * ALIGNED
        self.positions = torch.zeros(size, dtype=torch.int64, device=device)
        self._strengths = torch.zeros((len(engine.settings), size), dtype=torch.float32, device=device)
        self.modules = {site.layer: self._layer_arm(site) for site in sites}
        rows = dict(zip(engine.settings, self._strengths, strict=True))
        for name, placement, layers in placed:
            self._add(name, rows[name], placement, layers)
        self._active, self._verified = set[tuple[str, bool]](), set[tuple[str, bool]]()
        self.put_in()

    def _find_sites(self, model: nn.Module, layers: list[int]) -> "Sequence[FusedSite | MixtureLayer]":
        return find_fused_sites(model, layers)

    def _layer_arm(self, site: FusedSite | MixtureLayer) -> MixtureArm | RedistributedAndMul:
        positions = self.positions
        return MixtureArm(site, positions) if isinstance(site, MixtureLayer) else RedistributedAndMul(site, positions)

    def _add(self, name: str, strengths: Tensor, placement: AttachArguments, layers: Sequence[int]) -> None:
        noise = placement["noise"]
        if not isinstance(noise, Noise):
            raise ArgumentError(f"vLLM needs keyed noise, found {noise.kind} noise")
        for layer in layers:
            if layer in self.modules:  # on this rank
                where = placement.get("site", GATE), placement["policy"], noise
                self.modules[layer].add(name, strengths, *where, placement.get("experts", ALL_EXPERTS))

    def put_in(self) -> None:
        """Puts ARM into the model."""
        for module in self.modules.values():
            module.put_in()

    def take_out(self) -> None:
        """Puts vLLM's own activations back; not in compiled or captured code, which keeps ARM."""
        for module in self.modules.values():
            module.take_out()

    def set_inputs(self, positions: Tensor, counts: Sequence[int], extra_args: Sequence[ExtraArgs]) -> None:
        """Stores the position and the strengths of each token of the next forward pass.

        Args:
            positions: `[tokens]`, with padding. `[3, tokens]` (M-RoPE) is not stored: `check_config` rejects noise.
            counts: number of tokens of each request, in the batch's order; later tokens are padding, at strength 0.
            extra_args: `extra_args` of each request.
        """
        for module in self.modules.values():
            if isinstance(module, MixtureArm):
                module.check_in_place()
        total = positions.shape[-1]
        if positions.dim() == 1:
            self.positions[:total].copy_(positions)
        asked = [read_request(request, self.engine) for request in extra_args]
        strengths = np.zeros((len(self._strengths), total), dtype=np.float32)
        for row, name in zip(strengths, self.engine.settings, strict=True):
            row[: sum(counts)] = np.repeat([a.strength if a.name == name else 0.0 for a in asked], counts)
        host = torch.from_numpy(strengths)
        if self._strengths.is_cuda:  # so that the copy does not wait for the steps before it
            host = host.pin_memory()
        self._strengths[:, :total].copy_(host, non_blocking=True)
        self._active = {(a.name, a.strength == CONFIGURED) for a in asked if a.name}

    def turn_off(self) -> None:
        """Turns ARM off for the next forward pass."""
        self._strengths.zero_()

    def check_fired(self) -> None:
        """Checks after a setting's first forward pass that it acted in all its layers. Later passes are not checked.

        The first pass at its own strengths is one, and the first at a strength that a request names is another.

        Raises UnsupportedModelError if a layer's MLP does not call its activation, which ARM replaced.
        """
        for active in self._active - self._verified:
            if unused := [layer for layer, tokens in self.acting_tokens(*active).items() if not tokens]:
                raise UnsupportedModelError(
                    f"layers {unused}: ARM is installed but received no tokens; the MLP does not call the activation "
                    "that ARM replaced (fused kernel?). Choose other layers"
                )
            self._verified.add(active)

    def acting_tokens(self, name: str, own: bool) -> dict[int, int]:
        """How many tokens each layer got in which a setting acts; `own`: at its policies' own strengths."""
        counts = {layer: module.tokens(name, own=own) for layer, module in self.modules.items()}
        return {layer: tokens for layer, tokens in counts.items() if tokens is not None}

    def report(self) -> dict[str, dict[str, LayerCounts]]:
        """Returns the counts of each setting in its layers on this rank."""
        return {name: self._reported(name) for name in self.engine.settings}

    def _reported(self, name: str) -> dict[str, LayerCounts]:
        reports = {str(layer): module.report(name) for layer, module in self.modules.items()}
        return {layer: counts for layer, counts in reports.items() if counts is not None}


def joined_counts(settings: Mapping[str, Mapping[str, LayerCounts]]) -> dict[str, LayerCounts]:
    """Joins `WorkerArm.report`: the counts of each layer, of all settings together. A pass counts once per setting.

    Where several settings have ARM, there is no share moved: they may have it at sites of other widths.
    """
    joined: dict[str, LayerCounts] = {}
    for layers in settings.values():
        for layer, counts in layers.items():
            others = joined.get(layer)
            summed = ("calls", "tokens", "moved", "passed")
            joined[layer] = counts if others is None else {name: others[name] + counts[name] for name in summed}
    return joined


def _layer_indices(layers: int | list[int] | str, count: int) -> list[int]:
    indices = range(count) if isinstance(layers, str) else [layers] if isinstance(layers, int) else layers
    missing = [index for index in indices if index >= count]
    if missing:
        raise ArgumentError(f"layers: the model has layers 0 to {count - 1}, found {missing[0]}")
    return sorted(set(indices))
