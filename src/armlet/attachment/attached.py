"""What is attached to a model, for those who have lost the `Attachment`, as when a notebook's cell ran twice."""

from torch import nn

from armlet.attachment.handle import AlreadyAttachedError, Attachment, all_attachments
from armlet.redistribution.errors import ArgumentError, description


def attached(model: nn.Module) -> list[Attachment]:
    """Returns what is attached to a model, paused or not, in the order of attaching.

    Finds the same from the model, its decoder and a module around them, and from a layer or another model that has a
    treated layer in it: detaching there detaches everywhere. A deep or unpickled copy of a model or of a layer has
    attachments of its own, which act on the copy; what was paused when it was copied is detached in the copy.

    Raises:
        ArgumentError: not a model.
    """
    return [attachment for attachment in _with_parts_in(model) if attachment.state != "detached"]


def detach(model: nn.Module) -> int:
    """Detaches everything that is attached to a model, paused or not; returns how many attachments that were.

    Outputs are bit for bit as before, and no hook or module of ARM is left.

    Raises:
        ArgumentError: not a model.
    """
    count = len(attached(model))
    for attachment in _with_parts_in(model):  # in a copy, detached ones may have left their modules
        attachment.detach()
    return count


def refuse_attached(model: nn.Module, action: str) -> None:
    """Raises AlreadyAttachedError if ARM acts in a model, whose baseline `action` (as in "evaluate") would measure."""
    acting = [attachment for attachment in attached(model) if attachment.state == "attached"]
    if acting:
        there = ", ".join(f"{placed['policy']} in layers {placed['layers']}" for placed in acting[0].placements)
        raise AlreadyAttachedError(
            f"{action}: this model already has ARM attached ({there}), "
            "so its baseline would be treated: call armlet.detach(model) first"
        )


def _with_parts_in(model: nn.Module) -> list[Attachment]:
    """The attachments with any part in `model`, in order, also paused and detached ones."""
    check_model(model)
    modules = set(model.modules())
    return [attachment for attachment in all_attachments() if attachment.has_part_in(modules)]


def check_model(model: object) -> None:
    """Raises ArgumentError for anything but a module."""
    if not isinstance(model, nn.Module):
        raise ArgumentError(
            f"model: expected a model, found {description(model)}; load it first, with from_pretrained()"
        )
