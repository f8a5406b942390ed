"""Every task of lm-eval with ARM attached: the model type "armlet", which is "hf" and ARM in it.

```python
from armlet.integrations import lm_eval as integration
integration.register()
lm_eval.simple_evaluate(model="armlet", model_args="pretrained=FOLDER,policy=outward:band=0.2;ceiling=0.99", tasks=...)
```

It takes all arguments of "hf", and those of `Treated`. lm-eval parts arguments at commas, so inside one of them a
semicolon stands for a comma: `policy=outward:band=0.2;ceiling=0.99`, `layers=0;3`.

For log-likelihoods lm-eval pads a batch on the right and says nothing of it. A token's own statistics do not see that,
and its answer does not depend on it; but the report counts padding as tokens, and other scopes need batches of one.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from armlet.attachment.attach import Attachment, attach
from armlet.attachment.config import ConfigError, describe, load_config, parse_layers
from armlet.attachment.sites import GATE, check_site
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.noise import Noise
from armlet.redistribution.rows import Policy
from armlet.redistribution.spelling import parse_policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NAME = "armlet"
"""The model type: `--model armlet`."""

UNTREATED = (None, "none")
"""Policies that leave ARM out; lm-eval reads "none" as None."""

UNSAID = ""

HOW = f"policy=outward (or inward, transport), config=FILE, or policy={UNTREATED[1]} for the baseline"


class IdleError(ArmletError, RuntimeError):
    """ARM was attached, and nothing went through it."""


class Treated:
    """What "armlet" has on top of lm-eval's `HFLM`, before which it stands among the bases.

    Args:
        pretrained: a folder, a hub id or a model.
        policy: a `Policy`, or one as on the command line with ";" for ","; None or "none" leaves ARM out.
        layers: as of `attach`; as text "0", "0;3", "0-5" or "all".
        scope: over which values statistics are taken.
        site: "gate" or "product".
        noise_seed: of the keyed noise.
        config: an armlet.json, in place of all of these.
        attachment: ARM in the model already, in place of all of these; whoever attached it takes it off.
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
        pretrained: Any,
        *,
        policy: str | Policy | None = UNSAID,
        layers: int | str | Sequence[int] = 0,
        scope: str = "token",
        site: str = GATE,
        noise_seed: int = 0,
        config: str | None = None,
        attachment: Attachment | None = None,
        batch_size: int | str | None = 1,
        device: str | None = None,
        trust_remote_code: bool | None = False,
        **arguments: Any,
    ) -> None:
        import torch

        if trust_remote_code:
            raise ArgumentError("armlet runs no code of a checkpoint's: leave trust_remote_code out")
        given = {"policy": policy, "layers": layers, "scope": scope, "site": site, "noise_seed": noise_seed}
        how = None if attachment else treatment(given, config)
        if (how["scope"] if how else getattr(attachment, "scope", "token")) != "token" and str(batch_size) != "1":
            raise ArgumentError("scope: lm-eval hides its padding, which other scopes than token take in: batch_size 1")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        arguments |= {"batch_size": batch_size, "device": device, "trust_remote_code": False}
        super().__init__(pretrained, **arguments)  # type: ignore[call-arg]
        own: Any = self
        self.attachment = attach(own.model, **how) if how else attachment

    def report(self) -> dict[int, dict[str, int | float]]:
        """What ARM did so far, layer by layer; empty where it is left out."""
        return self.attachment.report() if self.attachment else {}

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes into its results, and how ARM was attached and what it did.

        Raises:
            IdleError: ARM was attached and saw no token.
        """
        found: dict[str, Any] = super().get_model_info()  # type: ignore[misc]
        if not self.attachment:
            return found | {NAME: None}
        report = {str(layer): own for layer, own in self.report().items()}
        if not all(own["tokens"] for own in report.values()):
            raise IdleError(
                "ARM is attached and saw no token: every answer came from lm-eval's cache of responses, which does not "
                "tell treated ones from others; leave use_cache out, or give each run its own"
            )
        return found | {NAME: {"attached": _described(self.attachment), "report": report}}


def treatment(given: dict[str, Any], config: str | None) -> dict[str, Any] | None:
    """The arguments of `attach`; None where ARM is left out.

    Args:
        given: policy, layers, scope, site and noise_seed of `Treated`.
        config: an armlet.json.

    Raises:
        ArgumentError, ConfigError: nothing or both given, or what is given does not exist.
    """
    policy, layers = given["policy"], given["layers"]
    if config is not None:
        if given != {"policy": UNSAID, "layers": 0, "scope": "token", "site": GATE, "noise_seed": 0}:
            raise ArgumentError("config: says all of policy, layers, scope, site and noise; give the one or the others")
        return dict(load_config(config))
    if policy == UNSAID:
        raise ArgumentError(f"the model type {NAME} needs {HOW}")
    if policy in UNTREATED:
        return None
    if isinstance(policy, str):
        policy = parse_policy(policy.replace(";", ","))
    layers = parse_layers(layers.replace(";", ",")) if isinstance(layers, str) else layers
    check_site(given["site"])
    place = {"layers": layers, "scope": given["scope"], "site": given["site"]}
    return {"policy": policy, **place, "noise": Noise(given["noise_seed"])}


@cache
def register() -> type[Any]:
    """Makes "armlet" a model type of lm-eval in this process; returns its class. A second call does nothing.

    Raises:
        ArgumentError: lm-eval is not installed.
    """
    try:
        from lm_eval.api.registry import register_model
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise ArgumentError("lm-eval is another package: pip install 'armlet[lm-eval]'") from error
    made = type("ArmletLM", (Treated, HFLM), {"__doc__": Treated.__doc__, "__module__": __name__})
    return register_model(NAME)(made)


def from_model(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    attachment: Attachment | None = None,
    **arguments: Any,
) -> Any:
    """A model for `simple_evaluate(model=...)` out of one that is loaded.

    Args:
        model: of Hugging Face.
        tokenizer: the model's.
        attachment: of `attach`, where ARM is in the model already; otherwise `arguments` say how it is attached, and
            `attachment.detach()` of the result takes it off.
        arguments: of `Treated` and `HFLM`, such as policy and batch_size.

    Raises:
        ArgumentError: as `Treated` and `register`.
    """
    return register()(pretrained=model, tokenizer=tokenizer, attachment=attachment, **arguments)


def _described(attachment: Attachment) -> Any:
    with suppress(ConfigError):  # noise that a file cannot keep
        return describe(attachment.policy, attachment.layers, attachment.scope, attachment.noise, attachment.site)
    return repr(attachment)
