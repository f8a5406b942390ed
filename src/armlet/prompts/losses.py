"""The loss of a model on windows of a text."""

import torch
from torch import Tensor, nn

BATCH_TOKENS = 512  # tokens per batch of windows


@torch.no_grad()
def window_losses(model: nn.Module, windows: Tensor, after: int | None = None) -> list[float]:
    """Mean negative log-likelihood in nats of each window's tokens except the first.

    windows: int64 `[windows, tokens]`; after: a token id; the loss covers only tokens after it.
    """
    losses: list[float] = []
    for batch in windows.split(max(1, BATCH_TOKENS // windows.shape[1])):
        targets, logits = batch[:, 1:], model(batch, use_cache=False).logits[:, :-1].float()
        # Flattened, because torch takes three times as long if the classes are not the last dimension.
        flat = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        token_losses = flat.view_as(targets).double()
        counted = torch.ones_like(targets) if after is None else (batch[:, :-1] == after).cumsum(1).clamp(max=1)
        losses += ((token_losses * counted).sum(1) / counted.sum(1)).tolist()
    return losses
