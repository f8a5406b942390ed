"""Attaches ARM to a model, detaches it, and reports what it did."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from torch import Tensor, nn

from armlet.attachment.call_tracker import CallTracker
from armlet.attachment.config import ARMLET_FILE, describe
from armlet.attachment.sites import GATE, Site, find_decoder, find_sites
from armlet.attachment.wrappers import ArmWrapper, RedistributedInput, RedistributedOutput, make_arm
from armlet.presentation.files import write_json
from armlet.redistribution.arguments import check_policy
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.noise import Noise, Source, source
from armlet.redistribution.rows import Policy


class AlreadyAttachedError(ArmletError, RuntimeError):
    """ARM is already attached at a site, which can have only one."""


class DetachedError(ArmletError, RuntimeError):
    """A detached attachment was used as a context manager."""


class Attachment:
    """ARM attached to a model; made by `attach`. As a context manager it detaches ARM at the end of the block.

    Other threads may run the model at any time. A forward call that is running when ARM is attached, paused or detached
    finishes in the mode in which it started. ARM's modules and hooks stay in the model until the last call that started
    with ARM has ended; new calls skip them meanwhile.

    Attributes:
        policy, scope, noise: the arguments of `attach`.
        layers: the indices of the layers with ARM attached, ascending.
        site: the site in these layers, "gate" or "product".
    """

    def __init__(self, model: nn.Module, sites: list[Site], policy: Policy, scope: str, noise: Source) -> None:
        self.policy, self.scope, self.noise = policy, scope, noise
        self.layers, self.site = [site.layer for site in sites], sites[0].site
        self._tracker = CallTracker(find_decoder(model)[0], self.layers)
        self._arms = [(site, make_arm(site, policy=policy, scope=scope, noise=noise)) for site in sites]
        self._attached, self._pauses = True, 0
        self._update()

    def _update(self, *, attached: bool = True, pauses: int = 0) -> None:
        with self._tracker.lock:
            self._attached &= attached
            self._pauses += pauses
            self._tracker.set_enabled(self._attached and not self._pauses, self._install)

    def _install(self, undo: ExitStack) -> None:
        """Puts ARM's modules into the model; closing `undo` removes them."""
        wrapper = RedistributedOutput if self.site == GATE else RedistributedInput
        for site, arm in self._arms:
            if isinstance(site.module, ArmWrapper):
                raise AlreadyAttachedError(
                    f"layer {site.layer} already has ARM at the site {site.site}: call detach() on what attach() "
                    "returned, or load the model again"
                )
            undo.callback(setattr, site.mlp, site.attribute, site.module)
            setattr(site.mlp, site.attribute, wrapper(site.module, arm, self._tracker))

    def detach(self) -> None:
        """Removes ARM's modules and hooks; outputs are bit for bit as before. Calling it twice is not an error."""
        self._update(attached=False)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Turns this ARM off inside the block, in all threads. Counters are kept."""
        self._update(pauses=1)
        try:
            yield
        finally:
            self._update(pauses=-1)

    def report(self) -> dict[int, dict[str, int | float]]:
        """Returns each layer's counts so far: calls, tokens, moved, share_moved, passed (see `ARM.report`)."""
        return {site.layer: arm.report() for site, arm in self._arms}

    def save(self, directory: str | Path) -> Path:
        """Writes `armlet.json`, for `load_config`, into `directory`, which is created if needed; returns its path.

        Raises:
            ConfigError: the noise is a tensor or has a generator, which a file cannot store.
            WriteError: the file cannot be written.
        """
        content = describe(self.policy, self.layers, self.scope, self.noise, self.site)
        return write_json(Path(directory) / ARMLET_FILE, content)

    def __enter__(self) -> "Attachment":
        if not self._attached:
            raise DetachedError("this attachment is detached, so the model would run without ARM: call attach() again")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.detach()

    def __repr__(self) -> str:
        state = "attached" if self._attached else "detached"
        location = f"layers={self.layers}, site={self.site!r}"
        return f"Attachment({self.policy}, {location}, scope={self.scope!r}, noise={self.noise}, {state})"


def attach(
    model: nn.Module,
    policy: Policy,
    *,
    layers: int | Iterable[int] | str = 0,
    scope: str = "token",
    noise: Source | Tensor = Noise(0),  # noqa: B008 - frozen
    site: str = GATE,
) -> Attachment:
    """Attaches ARM to a causal LM with gated MLPs, after the gate's activation or after the product with `up`.

    ARM reads the positions and the padding mask from each call, in `generate()` and in a plain forward call. Weights,
    state-dict keys and classes stay unchanged.

    Two calls can attach ARM at both sites of a layer. Keyed noise depends on seed and layer but not on the site: use
    two seeds, or both sites draw the same numbers.

    Args:
        model: any Hugging Face causal LM with gated MLPs.
        policy: `Outward`, `Inward` or `Transport`.
        layers: an index, counted from 0 (Layer 1 of the papers is 0), several indices, a range, or "all".
        scope: "token" (independent of batch, padding, chunks and cache), "sequence" or "call", see `redistribute`.
        noise: `Noise(seed)`, `Noise.fresh()`, `Noise.midpoint()` or a tensor of uniforms shaped as each call's values.
        site: "gate", the output of the activation, or "product", the input of `down`.

    Returns:
        An `Attachment`: `detach()`, `paused()`, `report()`, `save(directory)`; also a context manager.

    Raises:
        UnsupportedModelError: the model or a layer has no gated MLP that can be recognised, or for the site "product"
            no recognisable `down`.
        AlreadyAttachedError: ARM is already attached at one of the sites.
        ArgumentError: not a model, a layer out of range, or an unknown policy, scope, noise or site.

    After any of these errors the model is unchanged.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model: expected a model as returned by from_pretrained(), found {type(model).__name__}")
    check_policy(policy, scope)
    return Attachment(model, find_sites(model, layers, site), policy, scope, source(noise))
