"""lm-eval's model type "armlet": "hf" with ARM attached, which accepts the arguments of "hf" and of `Treated`."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from armlet.attachment.attach import attach
from armlet.attachment.handle import Attachment
from armlet.attachment.sites import ALL_EXPERTS, GATE
from armlet.integrations.treatment import MODEL_TYPE, UNSET_POLICY, IdleError, arm_record, treatment
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.rows import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Treated:
    """Mixin that adds ARM to lm-eval's `HFLM`, which must be the next base class.

    lm-eval splits arguments at commas, so a semicolon takes the place of a comma inside an argument. For
    log-likelihoods, lm-eval pads batches on the right and passes no padding mask. Answers do not depend on that, but
    the report counts padding as tokens, and scopes other than "token" need a batch size of 1.

    Args:
        pretrained: a folder, a hub id or a model.
        policy: a `Policy` or its text, such as "outward:band=0.2;ceiling=0.99"; None or "none" for no ARM.
        layers: the layers for `attach`; as text "0", "0;3", "0-5" or "all".
        scope: the values over which statistics are computed.
        site: "gate", "up" or "product".
        experts: "all", "routed" or "shared", in mixtures of experts.
        noise_seed: seed of the keyed noise.
        config: an armlet.json, which replaces all of the settings above.
        attachment: ARM that is already attached, which replaces all of the settings above; the caller detaches it.
        batch_size: the batch size for `HFLM`; must be 1 if the scope is not "token".
        device: None for cuda if available, otherwise the CPU.
        trust_remote_code: must be false.
        arguments: other arguments of `HFLM`.

    Attributes:
        attachment: ARM as attached, for the lifetime of the model; None without ARM.

    Raises:
        ArgumentError, ConfigError: the policy, layers, scope or file does not exist.
        UnsupportedModelError: `attach` does not support the model.
    """

    def __init__(
        self,
        pretrained: object,
        *,
        policy: str | Policy | None = UNSET_POLICY,
        layers: int | str | Sequence[int] = 0,
        scope: str = "token",
        site: str = GATE,
        experts: str = ALL_EXPERTS,
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
            raise ArgumentError("trust_remote_code: armlet does not run code from checkpoints; leave it out")
        place = {"layers": layers, "scope": scope, "site": site, "experts": experts}
        settings = {"policy": policy, **place, "noise_seed": noise_seed}
        arm = None if attachment else treatment(settings, config)
        if (arm["scope"] if arm else getattr(attachment, "scope", "token")) != "token" and str(batch_size) != "1":
            raise ArgumentError("scope: lm-eval passes no padding mask, so scopes other than token need batch_size 1")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        arguments |= {"batch_size": batch_size, "device": device, "trust_remote_code": False}
        super().__init__(pretrained, **arguments)  # type: ignore[call-arg]
        self.attachment = attach(self.model, **arm) if arm else attachment  # type: ignore[attr-defined]

    def report(self) -> dict[int, dict[str, int | float]]:
        """ARM's report so far, by layer; empty without ARM."""
        return self.attachment.report() if self.attachment else {}

    def get_model_info(self) -> dict[str, Any]:
        """The model information for lm-eval's results, with ARM's settings and report.

        Raises:
            IdleError: ARM was attached, but did not process any tokens.
        """
        info: dict[str, Any] = super().get_model_info()  # type: ignore[misc]
        if not (arm := self.attachment):
            return info | {MODEL_TYPE: None}
        record = arm_record(arm)
        if not all(counts["tokens"] for counts in record["report"].values()):
            raise IdleError(
                "ARM is attached, but did not process any tokens: every answer came from lm-eval's cache of responses, "
                "which is the same with and without ARM; leave use_cache out, or use a separate cache for each run"
            )
        return info | {MODEL_TYPE: record}


@cache
def register() -> type[Any]:
    """Registers the model type "armlet" in lm-eval once, and returns it; raises ArgumentError without lm-eval."""
    try:
        from lm_eval.api.registry import register_model
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise ArgumentError("lm-eval is not installed: pip install 'armlet[lm-eval]'") from error
    return register_model(MODEL_TYPE)(type("ArmletLM", (Treated, HFLM), {"__doc__": Treated.__doc__}))


def from_model(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    attachment: Attachment | None = None,
    **arguments: object,
) -> Any:
    """Makes a model for `simple_evaluate(model=...)` from a model that is already loaded.

    Args:
        model: a Hugging Face model.
        tokenizer: the model's tokenizer.
        attachment: the result of `attach` if ARM is already attached; otherwise `arguments` define how ARM is attached,
            and `attachment.detach()` of the result detaches it.
        arguments: arguments of `Treated` and `HFLM`, such as policy and batch_size.

    Raises:
        ArgumentError: see `Treated` and `register`.
    """
    return register()(pretrained=model, tokenizer=tokenizer, attachment=attachment, **arguments)
