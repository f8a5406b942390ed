"""Inspect's model provider "armlet": its provider "hf" with ARM attached to the model. Imports Inspect."""

import json
from typing import Any

from inspect_ai._util.error import PrerequisiteError
from inspect_ai.model import GenerateConfig, ModelOutput
from inspect_ai.model._providers.hf import HuggingFaceAPI

from armlet.attachment.attach import attach
from armlet.attachment.handle import Attachment
from armlet.checkpoints.folder import named_folder
from armlet.integrations.treatment import DEFAULTS, MODEL_TYPE, arm_record, treatment
from armlet.redistribution.errors import ArgumentError, ArmletError

CONFIG = "arm_config"  # names an armlet.json; `config` is Inspect's own argument
LISTED = ("policy", "layers")  # Inspect's command line splits their texts at commas into lists


class ArmletAPI(HuggingFaceAPI):
    """Any model of Inspect's provider "hf", and "abacus", with ARM attached.

    Each output records, under the key "armlet" of its metadata, how ARM was attached, and ARM's report since the model
    was loaded; None without ARM. The report counts as tokens the padding after answers that ended before others of
    their batch.

    Args:
        model_name: a folder, a hub id or "abacus".
        base_url: ignored, as by "hf".
        api_key: the hub's token.
        config: Inspect's settings of generation.
        model_args: `DEFAULTS`, or `CONFIG` instead of them; and the arguments of "hf".

    Attributes:
        attachment: ARM as attached; None without ARM.

    Raises:
        PrerequisiteError: the folder, policy, layers, scope, file or another argument does not exist, or `attach` does
            not support the model. Inspect shows it as one line.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - as "hf" has it
        **model_args: Any,
    ) -> None:
        try:
            arm = _attach_arguments(model_args, config)
            others = {name: value for name, value in model_args.items() if name not in (*DEFAULTS, CONFIG)}
            if folder := named_folder(model_name):
                others.setdefault("model_path", str(folder))
            super().__init__(model_name, base_url, api_key, config, **others)
            self.attachment: Attachment | None = attach(self.model, **arm) if arm else None
        except ArmletError as error:
            raise PrerequisiteError(f"armlet: {error}") from error
        except TypeError as error:  # transformers passes arguments that it does not know to the model's class
            raise PrerequisiteError(f"armlet: {error}; ARM's own are {', '.join((*DEFAULTS, CONFIG))}") from error
        # The keys of Inspect's cache of outputs contain the base URL, but no model arguments: without the settings
        # of ARM in it, a run with ARM would read the answers of a run without ARM.
        self.base_url = json.dumps(arm_record(self.attachment)["attached"]) if self.attachment else None

    async def generate(self, *arguments: Any, **named: Any) -> ModelOutput:
        """The output of "hf" with ARM's record; raises NotFiredError if ARM did not run."""
        output = await super().generate(*arguments, **named)
        record = arm_record(self.attachment) if self.attachment else None
        output.metadata = {**(output.metadata or {}), MODEL_TYPE: record}
        return output


def _attach_arguments(model_args: dict[str, Any], config: GenerateConfig) -> dict[str, Any] | None:
    """The arguments of `attach`; None without ARM. Raises ArgumentError or ConfigError for invalid ones."""
    if model_args.get("trust_remote_code"):
        raise ArgumentError("trust_remote_code: armlet does not run code from checkpoints; leave it out")
    given = {name: model_args[name] for name in DEFAULTS if name in model_args}
    given |= {name: ",".join(map(str, given[name])) for name in LISTED if isinstance(given.get(name), list | tuple)}
    arm = treatment({**DEFAULTS, **given}, model_args.get(CONFIG), CONFIG)
    if arm and arm["scope"] == "call" and config.max_connections != 1:
        raise ArgumentError("scope: of call, answers depend on their batch, so it needs --max-connections 1")
    return arm
