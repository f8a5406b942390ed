"""Attach ARM to a model, take it off again, and prove that it fired."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor, nn

from armlet.layer import config, frame
from armlet.layer.module import ARM
from armlet.layer.sites import Site, find_decoder, find_sites
from armlet.redistribution.entry import check_policy
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.noise import Noise, Source, source
from armlet.redistribution.rows import Policy

_keys = itertools.count()


class AlreadyAttachedError(ArmletError, RuntimeError):
    """A site can hold one ARM."""


class DetachedError(ArmletError, RuntimeError):
    """An attachment that was detached is used as if it were not."""


class Redistributed(nn.Module):
    """The activation module and ARM behind it, in the place of the activation module.

    A module of its own rather than a hook: a model that was compiled before sees the other type and compiles anew,
    while it does not look at hooks; and an activation that two layers share stays as it is in the other one.
    """

    def __init__(self, activation: nn.Module, arm: ARM, key: int) -> None:
        super().__init__()
        self.activation, self.arm, self.key = activation, arm, key
        self.train(activation.training)

    def forward(self, gate: Tensor) -> Tensor:
        """`[batch, seq, width]`, or `[batch · seq, width]` where the model flattens its tokens."""
        a = self.activation(gate)
        call = frame.current(self.key)
        if call is None:  # the layer runs outside its decoder: positions count from 0
            return self.arm(a)
        call.fired.add(self.arm.layer)
        shaped = a.view(*call.tokens(), -1) if a.dim() == 2 else a
        return self.arm(shaped, call.positions, call.mask).view(a.shape)


class Attachment:
    """ARM in a model; made by `attach`. As a context manager it takes ARM off at the end of the block.

    Attributes:
        policy, scope, noise: what was attached.
        layers: the indices of the layers it is in, ascending.
    """

    def __init__(self, model: nn.Module, sites: list[Site], policy: Policy, scope: str, noise: Source) -> None:
        self.policy, self.scope, self.noise = policy, scope, noise
        self.layers = [site.layer for site in sites]
        self._decoder = find_decoder(model)[0]
        self._key = next(_keys)
        self._watch = frame.Watch(self._decoder, self.layers, self._key)
        self._places = [(site, self._place(site)) for site in sites]
        self._installed = ExitStack()
        self._attached, self._pauses = True, 0
        self._install()

    def _place(self, site: Site) -> Redistributed:
        # Counters must be ordinary tensors even where the caller is in inference mode.
        with torch.inference_mode(False):
            arm = ARM(self.policy, width=site.width, layer=site.layer, scope=self.scope, noise=self.noise)
        device = next((p.device for p in site.mlp.parameters() if p.device.type != "meta"), torch.device("cpu"))
        return Redistributed(site.activation, arm.to(device), self._key)

    def _install(self) -> None:
        for site, _ in self._places:
            if isinstance(site.activation, Redistributed):
                raise AlreadyAttachedError(
                    f"layer {site.layer} has an ARM already: call detach() on what attach() returned, "
                    "or load the model anew"
                )
        installed = self._watch.install(self._decoder)
        for site, place in self._places:
            setattr(site.mlp, site.attribute, place)
            installed.callback(setattr, site.mlp, site.attribute, place.activation)
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
        return {site.layer: place.arm.report() for site, place in self._places}

    def save(self, directory: str | Path) -> Path:
        """Writes `armlet.json` into `directory` (made if need be), for `load_config`; returns its path.

        Raises:
            ConfigError: the noise is a tensor or holds a generator, which a file cannot keep.
        """
        return config.save_config(directory, self.policy, self.layers, self.scope, self.noise)

    def __enter__(self) -> "Attachment":
        if not self._attached:
            raise DetachedError("this attachment was detached, and the model would run untreated: call attach() again")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.detach()

    def __repr__(self) -> str:
        state = "attached" if self._attached else "detached"
        return f"Attachment({self.policy}, layers={self.layers}, scope={self.scope!r}, noise={self.noise}, {state})"


def attach(
    model: nn.Module,
    policy: Policy,
    *,
    layers: int | Iterable[int] | str = 0,
    scope: str = "token",
    noise: Source | Tensor = Noise(0),  # noqa: B008 - frozen
) -> Attachment:
    """Puts ARM into a causal LM with gated MLPs, between the gate's activation and the product with up.

    Positions and padding reach ARM by themselves, under `generate()` as in a plain forward call. No weight, no key of
    the state dict and no class is touched.

    Args:
        model: any Hugging Face causal LM with gated MLPs.
        policy: `Outward`, `Inward` or `Transport`.
        layers: an index from 0 (the papers' Layer 1 is 0), several, a range, or "all".
        scope: "token" (does not depend on batch, padding, chunks or cache), "sequence" or "call", see `redistribute`.
        noise: `Noise(seed)`, `Noise.fresh()`, `Noise.midpoint()` or a tensor of uniforms of the shape of each call.

    Returns:
        An `Attachment`: `detach()`, `paused()`, `report()`, `save(directory)`; also a context manager.

    Raises:
        UnsupportedModelError: the model or a layer has no gated MLP that can be recognised.
        AlreadyAttachedError: one of the sites has an ARM. Nothing is attached then.
        ArgumentError: no model, a layer out of range, or a policy, scope or noise that does not exist.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model: expected a model, as from_pretrained() gives it, found {type(model).__name__}")
    check_policy(policy, scope)
    return Attachment(model, find_sites(model, layers), policy, scope, source(noise))
