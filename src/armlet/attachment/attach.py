"""Attach ARM to a model, detach it again, and prove that it fired."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from torch import Tensor, nn

from armlet.attachment.config import ARMLET_FILE, describe
from armlet.attachment.places import ArmPlace, RedistributedInput, RedistributedOutput, make_arm
from armlet.attachment.sites import GATE, Site, find_decoder, find_sites
from armlet.attachment.watch import Watch
from armlet.presentation.files import write_json
from armlet.redistribution.arguments import check_policy
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.noise import Noise, Source, source
from armlet.redistribution.rows import Policy


class AlreadyAttachedError(ArmletError, RuntimeError):
    """A site has an ARM already; it takes one."""


class DetachedError(ArmletError, RuntimeError):
    """A detached attachment was used as if it were attached."""


class Attachment:
    """ARM in a model; made by `attach`. As a context manager it detaches ARM at the end of the block.

    Threads may run the model meanwhile: a forward call that is running when ARM is attached, paused or detached
    finishes as it began, with ARM or without. Until the last one with ARM has ended, modules and hooks stay in the
    model, and calls that begin meanwhile pass by them unchanged.

    Attributes:
        policy, scope, noise: what was attached.
        layers: the indices of its layers, ascending.
        site: where in them, "gate" or "product".
    """

    def __init__(self, model: nn.Module, sites: list[Site], policy: Policy, scope: str, noise: Source) -> None:
        self.policy, self.scope, self.noise = policy, scope, noise
        self.layers, self.site = [site.layer for site in sites], sites[0].site
        self._watch = Watch(find_decoder(model)[0], self.layers)
        self._arms = [(site, make_arm(site, policy=policy, scope=scope, noise=noise)) for site in sites]
        self._attached, self._pauses = True, 0
        self._switch()

    def _switch(self, *, attached: bool = True, pauses: int = 0) -> None:
        with self._watch.lock:
            self._attached &= attached
            self._pauses += pauses
            self._watch.switch(self._attached and not self._pauses, self._install)

    def _install(self, undo: ExitStack) -> None:
        """Puts ARM's modules into the model; closing `undo` takes them out."""
        place = RedistributedOutput if self.site == GATE else RedistributedInput
        for site, arm in self._arms:
            if isinstance(site.module, ArmPlace):
                raise AlreadyAttachedError(
                    f"layer {site.layer} has an ARM already at the site {site.site}: call detach() on what attach() "
                    "returned, or load the model anew"
                )
            undo.callback(setattr, site.mlp, site.attribute, site.module)
            setattr(site.mlp, site.attribute, place(site.module, arm, self._watch))

    def detach(self) -> None:
        """Takes ARM out: the model is bit for bit as before, without a hook or a module left. Twice is no error."""
        self._switch(attached=False)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The model without this ARM inside the block, in all threads; then with it again. Counters are kept."""
        self._switch(pauses=1)
        try:
            yield
        finally:
            self._switch(pauses=-1)

    def report(self) -> dict[int, dict[str, int | float]]:
        """What happened so far, by layer: calls, tokens, moved, share_moved, passed (see `ARM.report`)."""
        return {site.layer: arm.report() for site, arm in self._arms}

    def save(self, directory: str | Path) -> Path:
        """Writes `armlet.json` into `directory`, which is made if needed, for `load_config`; returns its path.

        Raises:
            ConfigError: the noise is a tensor or has a generator, which a file cannot store.
            WriteError: the file cannot be written.
        """
        content = describe(self.policy, self.layers, self.scope, self.noise, self.site)
        return write_json(Path(directory) / ARMLET_FILE, content)

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
    """Puts ARM into a causal LM with gated MLPs, after the gate's activation or after the product with up.

    Positions and padding reach ARM by themselves, under `generate()` as in a plain forward call. No weight, no key of
    the state dict and no class is touched.

    Two calls give a layer an ARM at each site. Keyed noise depends on seed and layer, not on the site: use two seeds,
    or both draw the same numbers.

    Args:
        model: any Hugging Face causal LM with gated MLPs.
        policy: `Outward`, `Inward` or `Transport`.
        layers: an index from 0 (Layer 1 of the papers is 0), several, a range, or "all".
        scope: "token" (does not depend on batch, padding, chunks or cache), "sequence" or "call", see `redistribute`.
        noise: `Noise(seed)`, `Noise.fresh()`, `Noise.midpoint()` or a tensor of uniforms of the shape of each call.
        site: "gate", the output of the activation, or "product", the input of down: the product with up.

    Returns:
        An `Attachment`: `detach()`, `paused()`, `report()`, `save(directory)`; also a context manager.

    Raises:
        UnsupportedModelError: the model or a layer has no gated MLP that can be recognised, or no down at the site
            "product".
        AlreadyAttachedError: one of the sites has an ARM.
        ArgumentError: no model, a layer out of range, or a policy, scope, noise or site that does not exist.

    Whatever is raised, the model is left as it was.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model: expected a model, as from_pretrained() returns it, found {type(model).__name__}")
    check_policy(policy, scope)
    return Attachment(model, find_sites(model, layers, site), policy, scope, source(noise))
