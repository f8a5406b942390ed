"""lm-eval's model type "armlet": "hf" with ARM attached, which takes all arguments of "hf" and those of `Treated`."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from armlet.attachment.attach import Attachment, attach
from armlet.attachment.config import ConfigError, describe, load_config, parse_layers
from armlet.attachment.sites import GATE, check_site
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.noise import Noise
from armlet.redistribution.policies import parse_policy
from armlet.redistribution.rows import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MODEL_TYPE = "armlet"
NOT_GIVEN = ""
DEFAULTS = {"policy": NOT_GIVEN, "layers": 0, "scope": "token", "site": GATE, "noise_seed": 0}  # how ARM is attached


class IdleError(ArmletError, RuntimeError):
    """ARM was attached, and no token went through it."""


class Treated:
    """What "armlet" adds to lm-eval's `HFLM`: a mixin, named before it among the bases.

    lm-eval splits arguments at commas, so inside one of them a semicolon stands for a comma. For log-likelihoods it
    pads a batch on the right and passes no padding mask: no answer depends on that, but the report counts padding as
    tokens, and scopes other than "token" need batches of one.

    Args:
        pretrained: a folder, a hub id or a model.
        policy: a `Policy`, or its spelling, such as "outward:band=0.2;ceiling=0.99"; None or "none" leaves ARM out.
        layers: as of `attach`; as text "0", "0;3", "0-5" or "all".
        scope: over which values statistics are taken.
        site: "gate" or "product".
        noise_seed: of the keyed noise.
        config: an armlet.json, in place of all of these.
        attachment: ARM that is already in the model, in place of all of these; the caller detaches it.
        batch_size: as of `HFLM`; 1 where the scope is not "token".
        device: None for cuda where there is one, or else the CPU.
        trust_remote_code: is refused.
        arguments: of `HFLM`.

    Attributes:
        attachment: ARM in the model, for as long as the model lives; None where there is none.

    Raises:
        ArgumentError, ConfigError: a policy, layers, a scope or a file that does not exist.
        UnsupportedModelError: as `attach`.
    """

    def __init__(
        self,
        pretrained: object,
        *,
        policy: str | Policy | None = NOT_GIVEN,
        layers: int | str | Sequence[int] = 0,
        scope: str = "token",
        site: str = GATE,
        noise_seed: int = 0,
        config: str | None = None,
        attachment: Attachment | None = None,
        batch_size: int | str | None = 1,
        device: str | None = None,
        trust_remote_code: bool | None = False,
        **arguments: object,
    ) -> None:
        import torch

        if trust_remote_code:
            raise ArgumentError("armlet runs no code of a checkpoint's: leave trust_remote_code out")
        given = {"policy": policy, "layers": layers, "scope": scope, "site": site, "noise_seed": noise_seed}
        how = None if attachment else treatment(given, config)
        if (how["scope"] if how else getattr(attachment, "scope", "token")) != "token" and str(batch_size) != "1":
            raise ArgumentError("scope: lm-eval passes no padding mask, so other scopes than token need batch_size 1")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        arguments |= {"batch_size": batch_size, "device": device, "trust_remote_code": False}
        super().__init__(pretrained, **arguments)  # type: ignore[call-arg]
        self.attachment = attach(self.model, **how) if how else attachment  # type: ignore[attr-defined]

    def report(self) -> dict[int, dict[str, int | float]]:
        """What ARM did so far, layer by layer; empty where it is left out."""
        return self.attachment.report() if self.attachment else {}

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes into its results, with how ARM was attached and what it did.

        Raises:
            IdleError: ARM was attached and saw no token.
        """
        info: dict[str, Any] = super().get_model_info()  # type: ignore[misc]
        if not (arm := self.attachment):
            return info | {MODEL_TYPE: None}
        report = {str(layer): counts for layer, counts in arm.report().items()}
        if not all(counts["tokens"] for counts in report.values()):
            raise IdleError(
                "ARM is attached and saw no token: every answer came from lm-eval's cache of responses, which does not "
                "distinguish treated ones from others; leave use_cache out, or give each run its own"
            )
        try:
            attached = describe(arm.policy, arm.layers, arm.scope, arm.noise, arm.site)
        except ConfigError:  # noise that a file cannot store
            attached = repr(arm)
        return info | {MODEL_TYPE: {"attached": attached, "report": report}}


def treatment(given: dict[str, Any], config: str | None) -> dict[str, Any] | None:
    """The arguments of `attach`, from those of `Treated` by name or from an armlet.json; None without ARM.

    Raises:
        ArgumentError, ConfigError: nothing or both given, or what is given does not exist.
    """
    policy, layers = given["policy"], given["layers"]
    if config is not None:
        if given != DEFAULTS:
            raise ArgumentError("config: says all of policy, layers, scope, site and noise; give the one or the others")
        return dict(load_config(config))
    if policy == NOT_GIVEN:
        raise ArgumentError(
            f"the model type {MODEL_TYPE} needs policy=outward (or inward, transport), config=FILE, or policy=none for "
            "the baseline"
        )
    if policy in (None, "none"):  # lm-eval reads "none" as None
        return None
    check_site(given["site"])
    return {
        "policy": parse_policy(policy.replace(";", ",")) if isinstance(policy, str) else policy,
        "layers": parse_layers(layers.replace(";", ",")) if isinstance(layers, str) else layers,
        "scope": given["scope"],
        "site": given["site"],
        "noise": Noise(given["noise_seed"]),
    }


@cache
def register() -> type[Any]:
    """Makes "armlet" a model type of lm-eval, once, and returns its class; ArgumentError where lm-eval is missing."""
    try:
        from lm_eval.api.registry import register_model
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise ArgumentError("lm-eval is another package: pip install 'armlet[lm-eval]'") from error
    return register_model(MODEL_TYPE)(type("ArmletLM", (Treated, HFLM), {"__doc__": Treated.__doc__}))


def from_model(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    attachment: Attachment | None = None,
    **arguments: object,
) -> Any:
    """A model for `simple_evaluate(model=...)` out of one that is loaded.

    Args:
        model: of Hugging Face.
        tokenizer: the model's.
        attachment: of `attach`, where ARM is in the model already; otherwise `arguments` say how it is attached, and
            `attachment.detach()` of the result removes it.
        arguments: of `Treated` and `HFLM`, such as policy and batch_size.

    Raises:
        ArgumentError: as `Treated` and `register`.
    """
    return register()(pretrained=model, tokenizer=tokenizer, attachment=attachment, **arguments)
