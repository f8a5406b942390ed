"""What is attached to a model."""

from torch import nn

from armlet.attachment.attach import AlreadyAttachedError
from armlet.attachment.wrappers import ArmWrapper


def refuse_attached(model: nn.Module, action: str) -> None:
    """Raises AlreadyAttachedError if ARM acts in a model, whose baseline `action` (as in "evaluate") would measure."""
    children = (child for module in model.modules() for child in module.children())  # `modules` leaves out some places
    if any(isinstance(child, ArmWrapper) for child in children):
        raise AlreadyAttachedError(f"{action}: this model already has ARM attached, so its baseline would be treated")
