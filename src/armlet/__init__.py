"""armlet: the Activation Redistribution Module inside any open-weight model, exact and measured."""

from armlet.attachment.attach import attach
from armlet.attachment.config import load_config
from armlet.attachment.module import ARM
from armlet.layer.decoder import Layer1
from armlet.redistribution import Inward, Noise, Outward, Transport, presets, redistribute

__all__ = [
    "redistribute",
    "Outward",
    "Inward",
    "Transport",
    "Noise",
    "ARM",
    "attach",
    "load_config",
    "Layer1",
    "presets",
]
