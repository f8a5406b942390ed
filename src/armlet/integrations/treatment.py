"""ARM as other tools' model arguments name it: how it is attached, and what their results record of it."""

from collections.abc import Mapping
from typing import Any

from armlet.attachment.config import ConfigError, layer_indices, load_config
from armlet.attachment.handle import Attachment
from armlet.attachment.sites import ALL_EXPERTS, GATE, check_experts, check_site
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.noise import Noise
from armlet.redistribution.policies import parse_policy

MODEL_TYPE = "armlet"
"""The name of the model type in other tools, and the key of ARM's record in their results."""

UNSET_POLICY = ""
DEFAULTS: Mapping[str, Any] = {
    "policy": UNSET_POLICY,
    "layers": 0,
    "scope": "token",
    "site": GATE,
    "experts": ALL_EXPERTS,
    "noise_seed": 0,
}
"""The arguments that say how ARM is attached; an armlet.json replaces all of them."""


class IdleError(ArmletError, RuntimeError):
    """ARM was attached, but did not process any tokens.

    Use no cache of answers, or one for each setting of ARM, and check that the task asks the model anything.
    """


def treatment(settings: Mapping[str, Any], config: str | None, config_name: str = "config") -> dict[str, Any] | None:
    """The arguments of `attach`, from a tool's arguments as in `DEFAULTS` or from an armlet.json; None without ARM.

    In texts, a semicolon may take the place of a comma, at which these tools split arguments.

    config_name: the tool's argument that names the armlet.json.

    Raises:
        ArgumentError, ConfigError: neither or both are given, or a setting or the file does not exist.
    """
    policy, layers = settings["policy"], settings["layers"]
    if config is not None:
        if settings != DEFAULTS:
            raise ArgumentError(
                f"{config_name}: contains policy, layers, scope, site, experts and noise; pass either it or these"
            )
        return dict(load_config(config))
    if policy == UNSET_POLICY:
        raise ArgumentError(
            f"the model type {MODEL_TYPE} needs policy=outward (or inward, transport, cut), {config_name}=FILE, or "
            "policy=none for the baseline"
        )
    if policy in (None, "none"):  # lm-eval reads "none" as None
        return None
    check_site(settings["site"])
    check_experts(settings["experts"])
    return {
        "policy": parse_policy(policy.replace(";", ",")) if isinstance(policy, str) else policy,
        "layers": layer_indices(layers.replace(";", ",") if isinstance(layers, str) else layers),
        "scope": settings["scope"],
        "site": settings["site"],
        "experts": settings["experts"],
        "noise": Noise(settings["noise_seed"]),
    }


def arm_record(arm: Attachment) -> dict[str, Any]:
    """What a tool's results record: the content of an armlet.json, and ARM's report by layer."""
    try:
        attached = arm.content()
    except ConfigError:  # noise that a file cannot store
        attached = repr(arm)
    return {"attached": attached, "report": {str(layer): counts for layer, counts in arm.report().items()}}
