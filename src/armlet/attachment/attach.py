"""Attach ARM to a model, take it off again, and prove that it fired."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from torch import Tensor, nn

from armlet.attachment import config
from armlet.attachment import positions as frame
from armlet.attachment.places import Place, make_arm, make_place
from armlet.attachment.sites import GATE, Site, find_decoder, find_sites
from armlet.redistribution.arguments import check_policy
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.noise import Noise, Source, source
from armlet.redistribution.rows import Policy

_keys = itertools.count()


class AlreadyAttachedError(ArmletError, RuntimeError):
    """A site can hold one ARM."""


class DetachedError(ArmletError, RuntimeError):
    """An attachment that was detached is used as if it were not."""


class Attachment:
    """ARM in a model; made by `attach`. As a context manager it takes ARM off at the end of the block.

    Attributes:
        policy, scope, noise: what was attached.
        layers: the indices of the layers it is in, ascending.
        site: where in them, "gate" or "product".
    """

    def __init__(self, model: nn.Module, sites: list[Site], policy: Policy, scope: str, noise: Source) -> None:
        self.policy, self.scope, self.noise = policy, scope, noise
        self.layers, self.site = [site.layer for site in sites], sites[0].site
        self._decoder = find_decoder(model)[0]
        self._key = f"frame_{next(_keys)}"
        self._watch = frame.Watch(self._decoder, self.layers, self._key)
        self._arms = [(site, make_arm(site, policy=policy, scope=scope, noise=noise)) for site in sites]
        self._installed = ExitStack()
        self._attached, self._pauses = True, 0
        self._install()

    def _install(self) -> None:
        for site, _ in self._arms:
            if isinstance(site.module, Place):
                raise AlreadyAttachedError(
                    f"layer {site.layer} has an ARM already at the site {site.site}: call detach() on what attach() "
                    "returned, or load the model anew"
                )
        installed = self._watch.install(self._decoder)
        for site, arm in self._arms:
            installed.callback(setattr, site.mlp, site.attribute, site.module)
            setattr(site.mlp, site.attribute, make_place(site, arm, self._key))
        self._installed = installed

    def detach(self) -> None:
        """Takes ARM off: the model is bit for bit as before, without a hook or a module left. Twice is no error."""
        self._attached = False
        self._installed.close()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The model without this ARM inside the block, for all threads; then with it again. Counters are kept."""
        self._pauses += 1
        self._installed.close()
        try:
            yield
        finally:
            self._pauses -= 1
            if self._attached and not self._pauses:
                self._install()

    def report(self) -> dict[int, dict[str, int | float]]:
        """What happened so far, for each layer: calls, tokens, moved, share_moved, passed (see `ARM.report`)."""
        return {site.layer: arm.report() for site, arm in self._arms}

    def save(self, directory: str | Path) -> Path:
        """Writes `armlet.json` into `directory` (made if need be), for `load_config`; returns its path.

        Raises:
            ConfigError: the noise is a tensor or holds a generator, which a file cannot keep.
        """
        return config.save_config(directory, self.policy, self.layers, self.scope, self.noise, self.site)

    def __enter__(self) -> "Attachment":
        if not self._attached:
            raise DetachedError("this attachment was detached, and the model would run untreated: call attach() again")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.detach()

    def __repr__(self) -> str:
        state = "attached" if self._attached else "detached"
        where = f"layers={self.layers}, site={self.site!r}"
        return f"Attachment({self.policy}, {where}, scope={self.scope!r}, noise={self.noise}, {state})"


def attach(
    model: nn.Module,
    policy: Policy,
    *,
    layers: int | Iterable[int] | str = 0,
    scope: str = "token",
    noise: Source | Tensor = Noise(0),  # noqa: B008 - frozen
    site: str = GATE,
) -> Attachment:
    """Puts ARM into a causal LM with gated MLPs, behind the gate's activation or behind the product with up.

    Positions and padding reach ARM by themselves, under `generate()` as in a plain forward call. No weight, no key of
    the state dict and no class is touched.

    A layer may have an ARM at each site, by two calls. Keyed noise depends on seed and layer, not on the site: give
    each its own seed, or both draw the same numbers.

    Args:
        model: any Hugging Face causal LM with gated MLPs.
        policy: `Outward`, `Inward` or `Transport`.
        layers: an index from 0 (the papers' Layer 1 is 0), several, a range, or "all".
        scope: "token" (does not depend on batch, padding, chunks or cache), "sequence" or "call", see `redistribute`.
        noise: `Noise(seed)`, `Noise.fresh()`, `Noise.midpoint()` or a tensor of uniforms of the shape of each call.
        site: "gate", the output of the activation, or "product", the input of down: the product with up.

    Returns:
        An `Attachment`: `detach()`, `paused()`, `report()`, `save(directory)`; also a context manager.

    Raises:
        UnsupportedModelError: the model or a layer has no gated MLP that can be recognised, or no down at the site
            "product".
        AlreadyAttachedError: one of the sites has an ARM. Nothing is attached then.
        ArgumentError: no model, a layer out of range, or a policy, scope, noise or site that does not exist.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model: expected a model, as from_pretrained() gives it, found {type(model).__name__}")
    check_policy(policy, scope)
    return Attachment(model, find_sites(model, layers, site), policy, scope, source(noise))
