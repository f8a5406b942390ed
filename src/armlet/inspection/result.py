"""The result of `inspect`: measures of the gate before, and the effect of each policy."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from armlet.attachment.sites import GATE
from armlet.inspection.records import SITE_NAMES, Effect, GateSample
from armlet.inspection.tables import inspection_table
from armlet.presentation.arguments import required_path
from armlet.presentation.files import write_text
from armlet.presentation.numbers import finite_or_none
from armlet.presentation.result import Result
from armlet.redistribution.near_zero import limited_by_share
from armlet.redistribution.policies import without_effect

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class Inspection(Result):
    """The values at the site of one layer, or of a synthetic sample, and each policy's effect on them."""

    sample: GateSample
    scope: str
    seed: int  # seed of the keyed noise
    tokens: int  # number of measured tokens
    width: int  # values of each token
    passed: int  # tokens not measured because policies do not change scopes that contain NaN or Inf
    before: dict[str, float]  # `shape.measure` of the values before
    effects: list[Effect]  # one for each policy
    interrupted: bool  # whether Ctrl-C left out prompts

    def to_dict(self) -> dict[str, object]:
        """For JSON; numbers that are not finite become None. "site" is there if it is not the gate.

        In a mixture of experts, "experts" is their number, and "tokens" counts a token once in each of its experts.
        If the whole model was read, "reading" says why.
        """
        sample = self.sample
        setting = {"source": sample.source, "layer": sample.layer, "scope": self.scope, "seed": self.seed}
        run = {"prompts": len(sample.gates), "interrupted": self.interrupted}
        size = {"tokens": self.tokens, "width": self.width, "passed": self.passed}
        policies = [effect.to_dict() for effect in self.effects]
        reading: dict[str, object] = {} if sample.site == GATE else {"site": sample.site}
        reading |= {"experts": sample.experts} if sample.experts else {}
        reading |= {"reading": self._reading()} if sample.read_because else {}
        return setting | run | size | reading | {"before": finite_or_none(self.before), "policies": policies}

    def tables(self) -> list[Table]:
        """A row for each measure."""
        return [inspection_table(self.before, self.effects, self._title())]

    def sentences(self) -> list[str]:
        """Why the gates were read from the whole model, if they were, and settings of policies that had no effect."""
        unused = [sentence for effect in self.effects for sentence in without_effect(effect.policy)]
        limits = [limited_by_share(e.policy, e.share_moved, self.width) for e in self.effects if self.scope == "token"]
        return [*self._reading(), *unused, *(sentence for sentence in limits if sentence)]

    def _reading(self) -> list[str]:
        because = self.sample.read_because
        return [f"read from the whole model: {because}"] if because else []

    def _title(self) -> str:
        layer = "" if self.sample.layer is None else f", layer {self.sample.layer}"
        title = f"{SITE_NAMES[self.sample.site]} of {self.sample.source}{layer}, {self._count()}, scope {self.scope}"
        return title + self._left_out()

    def _left_out(self) -> str:
        return f"; {self.passed} tokens with NaN or Inf in their scope left out" if self.passed else ""

    def _count(self) -> str:
        experts = self.sample.experts
        return (
            f"{self.tokens} rows, each a token in one of {experts} routed experts"
            if experts
            else f"{self.tokens} tokens"
        )

    def figure(self) -> "Figure":
        """The layer, and the distribution before and after each policy."""
        from armlet.inspection.figures import draw_inspection

        sample, panels = self.sample, [effect.panel for effect in self.effects]
        title = f"{SITE_NAMES[sample.site].capitalize()} of {Path(sample.source).resolve().name}, {self._count()}"
        place = {"layer": sample.layer, "activation": sample.activation, "axis": sample.axis, "site": sample.site}
        kind = {"experts": sample.experts, "simplified": bool(sample.read_because)}
        return draw_inspection(panels, title=title, **place, **kind)

    def _page_sentences(self) -> list[str]:
        """The size of the sample, the scope, and why the whole model was read."""
        return [f"{self._count()}, scope {self.scope}{self._left_out()}.", *self._reading()]

    def save(self, directory: str | Path, *, html: bool = False) -> list[Path]:
        """Writes inspect.png, inspect.svg and inspect.json; html: also inspect.html, see `save_html`."""
        paths = self._write(directory, "inspect")
        return [*paths, self.save_html(Path(directory) / "inspect.html")] if html else paths

    def save_html(self, path: str | Path) -> Path:
        """Writes one page that needs no network: the figure of each policy with its knobs, on a grid of their values.

        Raises:
            ArgumentError: plotly is not installed (`pip install 'armlet[page]'`), or a policy is not built in.
            WriteError: the file cannot be written.
        """
        from armlet.inspection.page import inspection_page

        file, policies = required_path("path", path), [effect.policy for effect in self.effects]
        run = {"scope": self.scope, "seed": self.seed, "sentences": self._page_sentences()}
        return write_text(file, inspection_page(self.sample, policies, **run))
