"""ARM inside the kernel that computes the routed experts of one layer in vLLM."""

# pyright: reportMissingImports=false

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from armlet.attachment.sites import GATE, PRODUCT, UP
from armlet.integrations.vllm.expert_cpu import NO_EXPERT, linear_by_expert, unpacked_weights, weighted_sum
from armlet.integrations.vllm.expert_operator import (
    RowsArm,
    redistribute_gated_rows,
    redistribute_part_rows,
)
from armlet.integrations.vllm.expert_sites import RoutedSite, current_kernel
from armlet.integrations.vllm.operator import FUSED_ACTIVATIONS, own_or_requested
from armlet.integrations.vllm.settings import SETTING_KEY
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.noise import Noise
from armlet.redistribution.rows import Policy


class RoutedArm(nn.Module):
    """ARM at some sites of the routed experts of a layer: `add` puts it at a site, `put_in` into the kernel.

    `positions` is the buffer of `WorkerArm`. Raises UnsupportedModelError for weights that vLLM packed in another way.
    """

    positions: Tensor

    def __init__(self, place: RoutedSite, positions: Tensor) -> None:
        super().__init__()
        self.place = place
        weights = unpacked_weights(place) if place.on_cpu else {}
        self._copied = _state(place) if place.on_cpu else {}
        for name, buffer in {"positions": positions, **weights}.items():
            self.register_buffer(name, buffer, persistent=False)
        self.arms = nn.ModuleList()
        self._topk_ids: Tensor | None = None

    def add(self, setting: str, strengths: Tensor, site: str, policy: Policy, noise: Noise) -> None:
        """Puts a setting's ARM at a site, for the tokens to which the buffer gives a strength.

        Raises ArgumentError if the setting has ARM there already.
        """
        place = self.place
        if any(arm.setting == setting for arm in self._at(site)):
            raise ArgumentError(f"{SETTING_KEY}: two placements are both at the site {site} of layer {place.layer}")
        where = {"site": site, "layer": place.layer, "experts": place.experts, "width": place.width}
        self.arms.append(RowsArm(setting, strengths, policy, noise, **where))

    def _at(self, site: str) -> list[RowsArm]:
        return [arm for arm in cast("Iterable[RowsArm]", self.arms) if arm.site == site]

    def put_in(self) -> None:
        """Puts ARM into the kernel, whose `apply` and `activation` are then methods of this module."""
        methods: dict[str, Any] = vars(self.place.kernel)
        if self.place.on_cpu:
            methods["apply"] = self.run_on_cpu
        else:
            methods["apply"], methods["activation"] = self.run, self.activate
        self.place.routed.add_module(SETTING_KEY, self)  # so that it follows the model to another device

    def take_out(self) -> None:
        """Gives the kernel its own methods back."""
        for method in ("apply", "activation"):
            vars(self.place.kernel).pop(method, None)
        delattr(self.place.routed, SETTING_KEY)

    def check_in_place(self) -> None:
        """Raises ArmletError if vLLM has replaced the kernel, or weights of which ARM has a copy, as a reload may."""
        reloaded = self._copied and self._copied != _state(self.place)
        if reloaded or current_kernel(self.place.routed) is not self.place.kernel:
            raise ArmletError(
                f"{self.place.label}: vLLM has made a new kernel for the experts, without ARM, or changed their "
                "weights (loaded again?); restart the engine"
            )

    def reports(self, setting: str) -> list[dict[str, int | float]]:
        """Returns the counts of a setting's ARM at each site."""
        return [arm.report() for arm in cast("Iterable[RowsArm]", self.arms) if arm.setting == setting]

    def tokens(self, setting: str, *, own: bool) -> int | None:
        """As `RedistributedAndMul.tokens`, a token in several experts counted in each."""
        arms = cast("Iterable[RowsArm]", self.arms)
        acting = [arm for arm in arms if arm.setting == setting and (arm.policy.strength or not own)]
        return sum(int(arm.report()["tokens"]) for arm in acting) if acting else None

    def run(self, **arguments: Any) -> Any:
        """In place of the kernel's `apply`: remembers the routing until the kernel calls `activation`."""
        kernel = self.place.kernel
        self._topk_ids = arguments["topk_ids"]
        try:
            return type(kernel).apply(kernel, **arguments)
        finally:
            self._topk_ids = None

    def activate(self, activation: Any, output: Tensor, input: Tensor, **options: Any) -> None:
        """In place of the kernel's `activation`: writes the product of `input`, the rows of gate and up."""
        kernel, topk_ids = self.place.kernel, self._topk_ids
        if topk_ids is None or input.dim() != 2 or len(input) != topk_ids.numel():
            raise ArmletError(
                f"{self.place.label}: {type(kernel).__name__} activates {list(input.shape)} values, which are not the "
                "rows of the routing, so ARM does not know their tokens; use another --moe-backend"
            )
        gate_up = self._with_up(input, topk_ids)
        type(kernel).activation(kernel, activation, output, gate_up, **options)
        output.copy_(self._with_gate_and_product(gate_up, output, topk_ids))

    def run_on_cpu(self, **arguments: Any) -> None:
        """In place of the kernel's `apply`, one operator: computes the tokens with ARM again, in plain PyTorch."""
        kernel, output, choices = self.place.kernel, arguments["output"], arguments["topk_ids"].shape[1]
        type(kernel).apply(kernel, **arguments)
        active = self._active(output.shape[0])[:, None]
        topk_ids = torch.where(active, arguments["topk_ids"], NO_EXPERT)
        buffers: dict[str, Any] = self._buffers
        hidden = arguments["hidden_states"].repeat_interleave(choices, 0)
        gate_up = self._with_up(
            linear_by_expert(hidden, buffers["gate_up"], buffers["gate_up_bias"], topk_ids), topk_ids
        )
        gate, up = gate_up.chunk(2, -1)
        product = FUSED_ACTIVATIONS[self.place.activation](gate) * up
        product = self._with_gate_and_product(gate_up, product, topk_ids)
        rows = linear_by_expert(product, buffers["down"], buffers["down_bias"], topk_ids)
        weights = None if arguments["apply_router_weight_on_input"] else arguments["topk_weights"]
        output.copy_(torch.where(active, weighted_sum(rows, topk_ids, weights), output))

    def _with_up(self, gate_up: Tensor, topk_ids: Tensor) -> Tensor:
        """The rows of gate and up, `[rows, 2·width/shards]`, with ARM on up."""
        if not self._at(UP):
            return gate_up
        gate, up = gate_up.chunk(2, -1)
        for arm in self._at(UP):
            up = redistribute_part_rows(up, *self._operands(arm, topk_ids))
        return torch.cat((gate, up), -1)

    def _with_gate_and_product(self, gate_up: Tensor, product: Tensor, topk_ids: Tensor) -> Tensor:
        """The rows of the product, `[rows, width/shards]`, with ARM on gate and product; `product` has none."""
        for arm in self._at(GATE):
            product = redistribute_gated_rows(gate_up, product, *self._operands(arm, topk_ids), self.place.activation)
        for arm in self._at(PRODUCT):
            product = redistribute_part_rows(product, *self._operands(arm, topk_ids))
        return product

    def _operands(self, arm: RowsArm, topk_ids: Tensor) -> tuple[Any, ...]:
        buffers = topk_ids, self.positions, arm.strengths, arm.keys, arm.totals
        return *buffers, *arm.constants, self.place.shard, self.place.shards

    def _active(self, tokens: int) -> Tensor:
        """Which of the first tokens have ARM at any site, `[tokens]` bool."""
        arms = cast("Iterable[RowsArm]", self.arms)
        strengths = [own_or_requested(arm.strengths[:tokens], arm.policy) for arm in arms]
        return torch.stack([strength > 0 for strength in strengths]).any(0)


def _state(place: RoutedSite) -> dict[str, tuple[int, int]]:
    """Where the experts' weights are, and how often they were changed in place."""
    weights = dict(place.routed.named_parameters(recurse=False))
    return {name: (weight.data_ptr(), weight._version) for name, weight in weights.items()}
