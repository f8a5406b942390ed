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
    """ARM in one layer; `add` puts it at a site of some experts, `put_in` into the model.

    `positions` and `strengths` are the buffers of `WorkerArm`.
    """

    def __init__(self, place: MixtureLayer, positions: Tensor, strengths: Tensor) -> None:
        self.place, self._buffers = place, (positions, strengths)
        self.routed: RoutedArm | None = None
        self.shared: list[RedistributedAndMul] = []

    def add(self, site: str, policy: Policy, noise: Noise, experts: str = ALL_EXPERTS) -> None:
        """Puts ARM at a site of the routed experts, of the shared ones, or of all, as `attach` does.

        Raises:
            UnsupportedModelError: some of these experts cannot be reached, or do not exist.
            ArgumentError: ARM is there already.
        """
        if experts != SHARED:
            positions, strengths = self._buffers
            self.routed = self.routed or RoutedArm(routed_site(self.place), positions)
            self.routed.add(site, policy, noise, strengths)
        if experts != ROUTED:
            self.shared = self.shared or [
                RedistributedAndMul(part, *self._buffers) for part in shared_sites(self.place)
            ]
            if experts == SHARED and not self.shared:
                raise UnsupportedModelError(f"{self.place.label}: has no shared experts; use experts={ROUTED!r}")
            for part in self.shared:
                part.add(site, policy, noise)

    def put_in(self) -> None:
        """Puts ARM into the model."""
        if self.routed:
            self.routed.put_in()
        for part in self.shared:
            part.put_in()

    def check_in_place(self) -> None:
        """Raises ArmletError if vLLM has taken ARM out again."""
        if self.routed:
            self.routed.check_in_place()

    def report(self) -> dict[str, int | float]:
        """Returns the counts so far, as in `Attachment.report`: those of all experts and sites together."""
        widths_and_reports = [(part.site.width, part.report()) for part in self.shared]
        if self.routed:
            widths_and_reports += [(self.routed.place.width, report) for report in self.routed.reports()]
        total = {name: sum(report[name] for _, report in widths_and_reports) for name in ("tokens", "moved", "passed")}
        values = sum(width * report["tokens"] for width, report in widths_and_reports)
        calls = max(report["calls"] for _, report in widths_and_reports)
        return {"calls": calls} | total | {"share_moved": total["moved"] / values if values else 0.0}

    def unused(self) -> bool:
        """Whether no token has come through the routed experts, or through a shared one, with ARM."""
        routed = [self.routed.reports()] if self.routed else []
        parts = [*routed, *([part.report()] for part in self.shared)]
        return not all(any(report["tokens"] for report in reports) for reports in parts)
