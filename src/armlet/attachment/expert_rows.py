"""The rows of a mixture's experts: which token and which expert each row of their activated gate belongs to.

transformers computes experts in several ways, each with its own order of rows. The routing says, for each token, which
experts it goes to; with the way, that determines the order.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(eq=False)
class ExpertRows:
    """The rows of one forward call of the experts, in the order in which their activation gets them."""

    experts: Tensor  # `[rows]` int64, the expert of each row
    positions: Tensor  # `[rows]` int64, the position of each row's token in its sequence
    mask: Tensor | None  # `[rows]` bool, False for rows of padding; None if there is no padding
    done: int = 0  # rows treated so far: some ways call the activation for each expert

    def take(self, count: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Experts, positions and mask of the next `count` rows."""
        rows = slice(self.done, self.done + count)
        self.done += count
        return self.experts[rows], self.positions[rows], None if self.mask is None else self.mask[rows]


def _token_by_token(routing: Tensor) -> tuple[Tensor, Tensor]:
    """Each token's experts one after another (batched_mm)."""
    tokens = torch.arange(routing.shape[0], device=routing.device)
    return tokens[:, None].expand(routing.shape).reshape(-1), routing.reshape(-1)


def _sorted_by_expert(routing: Tensor) -> tuple[Tensor, Tensor]:
    """All rows sorted by expert (grouped_mm, by the same sort, so that rows of one expert have the same order)."""
    experts, order = torch.sort(routing.reshape(-1))
    return order // routing.shape[-1], experts


def _expert_by_expert(routing: Tensor) -> tuple[Tensor, Tensor]:
    """A loop over experts; for each, the tokens of which it is the first choice, the second, and so on (eager)."""
    experts, order = torch.sort(routing.t().reshape(-1), stable=True)
    return order % routing.shape[0], experts


EAGER = "eager"
ROW_ORDERS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    EAGER: _expert_by_expert,
    "batched_mm": _token_by_token,
    "grouped_mm": _sorted_by_expert,
}
"""The implementations of experts in transformers → a function from the routing, `[tokens, choices]` int64, to the token
and the expert of each row, `[rows]` int64 each."""


def every_row(hidden: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token, expert and whether it was routed, `[rows]` each, where all experts run on all tokens (Llama 4).

    The experts' input `hidden` is `[experts · tokens, d_model]`, with zeros for tokens that were not routed there.
    """
    count = hidden.shape[0] // experts
    tokens = torch.arange(count, device=hidden.device).repeat(experts)
    expert = torch.arange(experts, device=hidden.device).repeat_interleave(count)
    return tokens, expert, (hidden != 0).any(-1)
