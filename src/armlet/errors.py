"""The errors that armlet raises on purpose; catching `ArmletError` catches all of them."""

from armlet.attachment.call_tracker import NotFiredError
from armlet.attachment.config import ConfigError
from armlet.attachment.handle import AlreadyAttachedError, DetachedError
from armlet.attachment.module import ReadOnlyError
from armlet.attachment.sites import UnsupportedModelError
from armlet.checkpoints.folder import CheckpointError, MissingFileError
from armlet.checkpoints.hub_requests import UnreachableError
from armlet.evaluation.engines.endpoint import EndpointError
from armlet.integrations.treatment import IdleError
from armlet.integrations.vllm.offline import EngineError
from armlet.layer.reading import ChangedModelError
from armlet.presentation.files import WriteError
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.runs.folder import RunError

__all__ = [
    "ArmletError",
    "ArgumentError",
    "UnsupportedModelError",
    "ChangedModelError",
    "AlreadyAttachedError",
    "DetachedError",
    "ReadOnlyError",
    "NotFiredError",
    "ConfigError",
    "CheckpointError",
    "MissingFileError",
    "UnreachableError",
    "RunError",
    "WriteError",
    "EndpointError",
    "EngineError",
    "IdleError",
]
