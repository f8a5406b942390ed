"""Installs ARM in the model of an SGLang rank, and sets positions and strengths before each forward pass."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from armlet.attachment.sites import UnsupportedModelError
from armlet.integrations.sglang.sites import find_gated_sites
from armlet.integrations.vllm.operator import RedistributedAndMul
from armlet.integrations.vllm.requests import ExtraArgs
from armlet.integrations.vllm.serving import WorkerArm
from armlet.integrations.vllm.settings import Served
from armlet.integrations.vllm.sites import FusedSite
from armlet.redistribution.errors import ArmletError


class GatheredAndMul(RedistributedAndMul):
    """`RedistributedAndMul` of the whole width on each rank: gate and up are gathered, and this rank's part is kept."""

    def __init__(self, site: FusedSite, positions: Tensor, group: Any) -> None:
        super().__init__(replace(site, shard=0, shards=1), positions)
        self.shard, self.shards, self.group = site.shard, site.shards, group

    def put_in(self) -> None:
        """Puts this module in place of SGLang's, and turns off the kernel that computes small batches without it."""
        super().put_in()
        if hasattr(self.site.mlp, "dual_gemm"):
            self.site.mlp.dual_gemm.mode = None  # type: ignore[union-attr] - SGLang's `DualGemm`, no module

    def forward(self, gate_up: Tensor) -> Tensor:
        """Maps `[tokens, 2·width/shards]` to `[tokens, width/shards]`."""
        if self.shards == 1:
            return super().forward(gate_up)
        parts = [self.group.all_gather(part.contiguous(), dim=-1) for part in gate_up.chunk(2, -1)]
        width = self.site.width // self.shards
        return super().forward(torch.cat(parts, -1)).narrow(-1, self.shard * width, width).contiguous()


class RunnerArm(WorkerArm):
    """ARM in this rank's layers of a model as loaded by SGLang, before graphs are captured.

    `max_tokens` is the most tokens in one forward pass.

    Raises:
        UnsupportedModelError: a layer has no gated MLP that can be recognised; the model is then unchanged.
        ArgumentError: a layer out of range, or two placements of a setting at one site.
    """

    def __init__(self, model: nn.Module, engine: Served, max_tokens: int, device: torch.device) -> None:
        super().__init__(model, engine, max_tokens, device)
        self._acted = set[tuple[tuple[str, bool], str]]()
        self._filled = 0  # the tokens of the last pass; those after them have strength 0

    def _find_sites(self, model: nn.Module, layers: list[int]) -> Sequence[FusedSite]:
        return find_gated_sites(model, layers)

    def _layer_arm(self, site: FusedSite) -> RedistributedAndMul:  # pyright: ignore[reportIncompatibleMethodOverride]
        return GatheredAndMul(site, self.positions, _group(site))

    def run(
        self, call: Callable[[], Any], positions: Tensor, counts: Sequence[int], params: Sequence[ExtraArgs], phase: str
    ) -> Any:
        """Calls a forward pass of the model with ARM.

        Args:
            call: the forward pass.
            positions: `[tokens]`, of each token in its sequence.
            counts: number of tokens of each request, in the batch's order.
            params: `custom_params` of each request.
            phase: "prefill" or "decode"; ARM is checked to act in the first pass of each.
        """
        if sum(counts) != len(positions) or len(counts) != len(params) or len(positions) > len(self.positions):
            raise ArmletError(
                f"SGLang runs {len(positions)} tokens, found {sum(counts)} in {len(counts)} parts of {len(params)} "
                f"requests, and room for {len(self.positions)}"
            )
        self._strengths[:, len(positions) : self._filled] = 0  # graphs are padded with what follows these tokens
        self._filled = len(positions)
        self.set_inputs(positions, counts, params)
        unverified = [active for active in sorted(self._active) if (active, phase) not in self._acted]
        before = {active: self.acting_tokens(*active) for active in unverified}
        output = call()
        for active in unverified:
            after = self.acting_tokens(*active)
            if unused := [layer for layer, tokens in after.items() if tokens == before[active][layer]]:
                raise UnsupportedModelError(
                    f"layers {unused}: ARM is installed but received no tokens in {phase}; the MLP does not call the "
                    "activation that ARM replaced (fused kernel?). Choose other layers"
                )
            self._acted.add((active, phase))
        return output


def _group(site: FusedSite) -> Any:
    """The ranks over which a site's width is split."""
    merged = [child.tp_group for child in site.mlp.children() if hasattr(child, "output_sizes")]
    return merged[0]
