"""Registers the model provider "armlet"; Inspect imports this file through the entry point group `inspect_ai`."""

from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="armlet")
def armlet() -> type[ModelAPI]:
    """The class of the provider, imported together with transformers when a model is first requested."""
    from armlet.integrations.inspect_ai.model import ArmletAPI

    return ArmletAPI
