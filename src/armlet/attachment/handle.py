"""The handle of ARM attached to a model: turns it off and on, changes its policy, and reports what it did."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from threading import Lock
from time import time_ns
from typing import Any
from weakref import WeakSet

from torch import nn

from armlet.attachment.call_tracker import CallTracker, Undo
from armlet.attachment.config import ARMLET_FILE, AttachArguments, ConfigError, storing_problem
from armlet.attachment.module import ARM, ReadOnlyError, joint_report, set_policy
from armlet.attachment.origin import policy_origin
from armlet.attachment.placement import has_arm, make_arm, put_arm
from armlet.attachment.placements import Placement, placements_content
from armlet.attachment.sites import ALL_EXPERTS, Site, find_decoder
from armlet.presentation.arguments import required_path, whole_number
from armlet.presentation.files import write_json
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.noise import Source
from armlet.redistribution.policies import as_policy, changed_policy
from armlet.redistribution.rows import Policy

_attachments: "WeakSet[Attachment]" = WeakSet()  # all that exist; a model with ARM keeps its own alive
_attachments_lock = Lock()
_order = count(time_ns())  # larger than in the process that pickled a model


class AlreadyAttachedError(ArmletError, RuntimeError):
    """ARM is already attached at a site, which can have only one.

    Detach what is there, `armlet.detach(model)` if its handle is lost, or change it with `Attachment.update`.
    """


class DetachedError(ArmletError, RuntimeError):
    """A detached attachment was used as a context manager or updated.

    Call `attach` again.
    """


class Attachment:
    """ARM attached to a model; made by `attach`. As a context manager it detaches ARM at the end of the block.

    Other threads may run the model at any time. A forward call that is running when ARM is attached, paused or detached
    finishes in the mode in which it started. ARM's modules and hooks stay in the model until the last call that started
    with ARM has ended; new calls skip them meanwhile. Its attributes are read-only.
    """

    def __init__(self, model: nn.Module, placements: Sequence[Placement], sites: Sequence[Sequence[Site]]) -> None:
        self._decoder = find_decoder(model)[0]
        self._placements = tuple(
            replace(placement, layers=sorted({site.layer for site in group}))
            for placement, group in zip(placements, sites, strict=True)
        )
        self._arms = [(site, _arm_of(site, placements)) for group in sites for site in group]
        policies = [placement.policy for placement in placements]
        self._tracker = CallTracker(model, self._decoder, [site.key for site, _ in self._arms], policies)
        self._attached, self._pauses, self._number = True, 0, next(_order)
        self._switch()
        _remember(self)

    @property
    def placements(self) -> list[AttachArguments]:
        """Each policy and where it is: a list for `attach`; a copy."""
        return [placement.arguments() for placement in self._placements]

    @property
    def policy(self) -> Policy:
        """How values move; `update` changes it."""
        return self._shared("policy")

    @property
    def layers(self) -> list[int]:
        """The indices of the layers with ARM attached, ascending; a copy."""
        return sorted({site.layer for site, _ in self._arms})

    @property
    def scope(self) -> str:
        """Over which values statistics are taken."""
        return self._shared("scope")

    @property
    def noise(self) -> Source:
        """Where the uniform draws come from."""
        return self._shared("noise")

    @property
    def site(self) -> str:
        """The site in these layers, "gate", "up" or "product"."""
        return self._shared("site")

    @property
    def experts(self) -> str:
        """Which experts of layers that are mixtures: "all", "routed" or "shared"."""
        return self._shared("experts")

    def _shared(self, name: str) -> Any:
        """What all placements have; raises ArgumentError if they differ."""
        values = [getattr(placement, name) for placement in self._placements]
        if any(value != values[0] for value in values):
            raise ArgumentError(f"Attachment: its {len(values)} placements differ in {name}; see `placements`")
        return values[0]

    @property
    def state(self) -> str:
        """Whether new calls use ARM: "attached", "paused" or "detached"."""
        return "detached" if not self._attached else "paused" if self._pauses else "attached"

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_"):
            raise ReadOnlyError(
                f"Attachment: {name} cannot be set: arm.update(...) changes the policy or its settings; for other "
                "layers or another scope, noise or site, detach() and attach() again"
            )
        super().__setattr__(name, value)

    def _switch(self, *, attached: bool = True, pauses: int = 0) -> None:
        with self._tracker.lock:
            self._attached &= attached
            self._pauses += pauses
            try:
                self._tracker.set_enabled(self._attached and not self._pauses, self._install)
            except BaseException:
                self._attached = False  # nothing was installed, and a handle does not claim that it was
                raise

    def has_part_in(self, modules: set[nn.Module]) -> bool:
        """Whether the decoder, a treated MLP, which another model may share, or an ARM is among these modules."""
        return not modules.isdisjoint({self._decoder, *(part for site, arm in self._arms for part in (site.mlp, arm))})

    def _install(self, undo: Undo) -> None:
        """Puts ARM's modules into the model; the steps added to `undo` remove them."""
        for site, arm in self._arms:
            if has_arm(site):
                raise AlreadyAttachedError(
                    f"layer {site.layer} already has ARM at the site {site.site}: remove it by armlet.detach(model) "
                    "or change it by update() of what armlet.attached(model) lists"
                )
            put_arm(site, arm, self._tracker, undo)
        undo.append(partial(setattr, self._tracker, "owner", None))
        self._tracker.owner = self

    def update(self, policy: Policy | str | None = None, *, placement: int | None = None, **settings: object) -> None:
        """Replaces the policy, changes some of its settings, or both, in all layers, also while paused.

        Calls that are running finish with the policy with which they started. Counters are kept: see `reset`.

        Args:
            policy: a policy, or text as on the command line, such as "inward:knee=0.9"; by default the present one.
            placement: the index in `placements` of the only one to change; all by default.
            **settings: settings of this policy, such as `strength=0.5`.

        Raises:
            ArgumentError: nothing to change, no policy, a setting that is unknown or out of range, or no such
                placement; nothing changed.
            DetachedError: this attachment is detached.
        """
        if fixed := [name for name in ("layers", "scope", "noise", "site", "experts") if name in settings]:
            raise ArgumentError(f"update: {', '.join(fixed)} cannot change: detach(), and attach() again")
        if policy is None and not settings:
            raise ArgumentError("update: expected a policy or settings, such as update(strength=0.5), found neither")
        numbers = self._numbers(placement)
        with self._tracker.lock:
            if not self._attached:
                raise DetachedError("this attachment is detached, so there is nothing to update: call attach() again")
            changed = [
                _changed(known, policy, settings) if number in numbers else known
                for number, known in enumerate(self._placements)
            ]
            for number in numbers:
                set_policy((arm for site, arm in self._arms if site.placement == number), changed[number].policy)
            self._placements = tuple(changed)
            self._tracker.policies = tuple(known.policy for known in changed)

    def _numbers(self, placement: int | None) -> Sequence[int]:
        """The index of one placement, checked, or those of all."""
        count = len(self._placements)
        return range(count) if placement is None else [whole_number("placement", placement, 0, count - 1)]

    def detach(self) -> None:
        """Removes ARM's modules and hooks; outputs are bit for bit as before. Calling it twice is not an error."""
        self._switch(attached=False)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Turns this ARM off inside the block, in all threads. Counters are kept."""
        self._switch(pauses=1)
        try:
            yield
        finally:
            self._switch(pauses=-1)

    def report(self, placement: int | None = None) -> dict[int, dict[str, int | float]]:
        """Returns each layer's counts so far: calls, tokens, moved, share_moved, passed (see `ARM.report`).

        placement: the index in `placements` of the one to count; by default all count, and a token once at each site.

        In a mixture of experts, calls are those of the layer; a token counts once in each expert that it goes through,
        routed or shared, if ARM is there; passed counts such rows, too.

        Raises ArgumentError for a placement that does not exist.
        """
        numbers = self._numbers(placement)
        arms = [(site.layer, arm) for site, arm in self._arms if site.placement in numbers]
        layers = sorted({layer for layer, _ in arms})
        return {layer: joint_report([arm for index, arm in arms if index == layer]) for layer in layers}

    def reset(self) -> None:
        """Sets the counts of all layers to 0."""
        for _, arm in self._arms:
            arm.reset()

    def save(self, path: str | Path) -> Path:
        """Writes the arguments of `attach` to a file for `load_config`; returns the file's path.

        If the policy was attached as the text "published:MODEL/TASK", the file says that this setting was chosen there.

        Args:
            path: a file, if it ends in .json, otherwise a directory for `armlet.json`; created if needed.

        Raises:
            ArgumentError: not a path.
            ConfigError: a file cannot store this noise (a tensor, a generator) or policy (a class of this session).
            WriteError: the file cannot be written.
        """
        content, path = self.content(), required_path("path", path)
        if problem := storing_problem(content):
            raise ConfigError(problem)
        return write_json(path if path.suffix.lower() == ".json" else path / ARMLET_FILE, content)

    def content(self) -> dict[str, object]:
        """Returns what `save` writes; raises ConfigError for noise that a file cannot store."""
        return placements_content(self._placements)

    def __getstate__(self) -> dict[str, object]:
        # A copy of a paused attachment is detached: no block's end would turn it on again.
        return {**self.__dict__, "_attached": self.state == "attached", "_pauses": 0}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        _remember(self)

    def __copy__(self) -> "Attachment":
        return self  # ARM is once in the model, and two handles with a state each would contradict each other

    def __deepcopy__(self, memo: dict[int, object]) -> "Attachment":
        if not memo:  # nothing around it is copied, so the copy would contain a model that nobody else has
            raise ArgumentError("Attachment: copy the model, and find its own attachment by armlet.attached(the copy)")
        twin = memo[id(self)] = Attachment.__new__(Attachment)
        twin.__setstate__(deepcopy(self.__getstate__(), memo))
        return twin

    def __enter__(self) -> "Attachment":
        if not self._attached:
            raise DetachedError("this attachment is detached, so the model would run without ARM: call attach() again")
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def __repr__(self) -> str:
        return f"Attachment({'; '.join(map(_describe, self._placements))}, {self.state})"


def _arm_of(site: Site, placements: Sequence[Placement]) -> ARM:
    place = placements[site.placement]
    return make_arm(site, policy=place.policy, scope=place.scope, noise=place.noise)


def _changed(placement: Placement, policy: Policy | str | None, settings: Mapping[str, object]) -> Placement:
    """The placement with another policy, other settings, or both."""
    base = placement.policy if policy is None else as_policy(policy)
    origin = None if settings else policy_origin(policy)
    return placement.with_policy(changed_policy(base, settings), origin)


def _describe(placement: Placement) -> str:
    experts = "" if placement.experts == ALL_EXPERTS else f", experts={placement.experts!r}"
    place = f"layers={placement.layers}, site={placement.site!r}{experts}"
    return f"{placement.policy}, {place}, scope={placement.scope!r}, noise={placement.noise}"


def _remember(attachment: Attachment) -> None:
    with _attachments_lock:
        _attachments.add(attachment)


def all_attachments() -> list[Attachment]:
    """All attachments that exist, also detached ones, in the order of attaching."""
    with _attachments_lock:
        return sorted(_attachments, key=lambda attachment: attachment._number)
