"""ARM in a layer that is a mixture of experts: in the routed experts, and in the dense MLPs beside them."""

from torch import Tensor

from armlet.attachment.sites import ALL_EXPERTS, ROUTED, SHARED, UnsupportedModelError
from armlet.integrations.vllm.expert_sites import routed_site, shared_sites
from armlet.integrations.vllm.operator import RedistributedAndMul
from armlet.integrations.vllm.routed_arm import RoutedArm
from armlet.integrations.vllm.sites import MixtureLayer
from armlet.redistribution.noise import Noise
from armlet.redistribution.rows import Policy


class MixtureArm:
    """ARM in one layer; `add` puts a setting's at a site of some experts, `put_in` all of it into the model.

    `positions` is the buffer of `WorkerArm`.
    """

    def __init__(self, place: MixtureLayer, positions: Tensor) -> None:
        self.place, self._positions = place, positions
        self.routed: RoutedArm | None = None
        self.shared: list[RedistributedAndMul] = []

    def add(
        self, setting: str, strengths: Tensor, site: str, policy: Policy, noise: Noise, experts: str = ALL_EXPERTS
    ) -> None:
        """Puts a setting's ARM at a site of the routed experts, of the shared ones, or of all, as `attach` does.

        Raises:
            UnsupportedModelError: some of these experts cannot be reached, or do not exist.
            ArgumentError: the setting has ARM there already.
        """
        if experts != SHARED:
            self.routed = self.routed or RoutedArm(routed_site(self.place), self._positions)
            self.routed.add(setting, strengths, site, policy, noise)
        if experts != ROUTED:
            parts = shared_sites(self.place) if not self.shared else []
            self.shared = self.shared or [RedistributedAndMul(part, self._positions) for part in parts]
            if experts == SHARED and not self.shared:
                raise UnsupportedModelError(f"{self.place.label}: has no shared experts; use experts={ROUTED!r}")
            for part in self.shared:
                part.add(setting, strengths, site, policy, noise)

    def put_in(self) -> None:
        """Puts ARM into the model."""
        for part in self._parts():
            part.put_in()

    def take_out(self) -> None:
        """Puts vLLM's own methods and modules back."""
        for part in self._parts():
            part.take_out()

    def _parts(self) -> list[RoutedArm | RedistributedAndMul]:
        return [*([self.routed] if self.routed else []), *self.shared]

    def check_in_place(self) -> None:
        """Raises ArmletError if vLLM has taken ARM out again."""
        if self.routed:
            self.routed.check_in_place()

    def report(self, setting: str) -> dict[str, int | float] | None:
        """Returns a setting's counts so far, as in `Attachment.report`: of all experts and sites; None without."""
        widths_and_reports = [(part.site.width, report) for part in self.shared if (report := part.report(setting))]
        if self.routed:
            widths_and_reports += [(self.routed.place.width, report) for report in self.routed.reports(setting)]
        if not widths_and_reports:
            return None
        total = {name: sum(report[name] for _, report in widths_and_reports) for name in ("tokens", "moved", "passed")}
        values = sum(width * report["tokens"] for width, report in widths_and_reports)
        calls = max(report["calls"] for _, report in widths_and_reports)
        return {"calls": calls} | total | {"share_moved": total["moved"] / values if values else 0.0}

    def tokens(self, setting: str, *, own: bool) -> int | None:
        """As `RedistributedAndMul.tokens`, of the part that got fewest."""
        counts = [count for part in self._parts() if (count := part.tokens(setting, own=own)) is not None]
        return min(counts, default=None)
