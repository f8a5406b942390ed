"""What `attach` does to each class of transformers, tried on a tiny model, and the table of it.

`python tests/sweeping.py NAME ...` prints the lines of these model types or classes; without names, it writes all.
"""

import csv
import itertools
import re
import sys
from contextlib import suppress
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from torch import nn
from transformers.models.auto import modeling_auto

from armlet import Outward, attach
from armlet.attachment.sites import ALL_EXPERTS, EXPERTS, ROUTED, SHARED, SITES, UP, UnsupportedModelError
from armlet.redistribution.errors import ArgumentError
from operations import Operations, gated_products
from shrinking import tiny_model
from shrinking_exceptions import NEEDS
from sweep_checks import Runner, anatomy, check, check_implementations, prompts

TABLE = Path(__file__).parents[1] / "docs" / "reference" / "models.csv"
MAPPINGS = ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM")

REASONS = {
    r"expected one gated MLP.*found 0": "no gated MLP",
    r"expected one gated MLP.*found [1-9]": "several gated MLPs in a layer",
    r"no list of decoder layers": "no list of decoder layers",
    r"has no argument (.*?), from which": r"its decoder's forward has no argument \1",
    r"expected the routed experts in one module": "routed experts without fused weights",
    r"computes its experts in a way": "experts whose rows cannot be told apart",
    r"runs beside the experts, and is no gated MLP": "an MLP beside the experts whose activation is no module",
    r"names do not show which is down": "two linears that could be down",
    r"does not show which linear is up": "no linear whose output is up",
    r"computes its activation inside its forward": "an activation inside the MLP's forward",
    r"have layers of their own": "several towers, of which none is known to be the text decoder",
    r"its only attention is": "layers that run only for an image",
}
"""A pattern in a refusal → what the table says."""

FAULTS: dict[str, tuple[str, str]] = {}
"""Faults that are known, by model type: a pattern of what a check says of each, and what the table says."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    model_type: str
    class_name: str
    gate: str = "no"  # "yes", "some layers", "routed experts only", "no", "not run", "not built" or "fault"
    up: str = "no"
    product: str = "no"
    experts: str = ""  # which can be reached at one of the sites: "routed and shared", "routed", "shared" or "no"
    reason: str = ""  # why not all of it

    @property
    def line(self) -> str:
        """As it stands in the table."""
        return ",".join(f'"{cell}"' if "," in cell else cell for cell in astuple(self))

    @property
    def works(self) -> bool:
        """Whether ARM can be attached at one of the sites, and the model was run with it."""
        return not {self.gate, self.up, self.product} <= {"no", "not run", "not built", "fault"}


def read_table() -> dict[tuple[str, str], Row]:
    """The rows of the table, by model type and class."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = [Row(*cells) for cells in csv.reader(file)][1:]
    return {(row.model_type, row.class_name): row for row in rows}


def all_classes() -> list[tuple[str, str]]:
    """All pairs of model type and class in the mappings of transformers, each once."""
    pairs: list[tuple[str, str]] = []
    for mapping in MAPPINGS:
        for model_type, classes in getattr(modeling_auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES", {}).items():
            pairs += [(model_type, name) for name in ((classes,) if isinstance(classes, str) else classes)]
    return sorted(set(pairs), key=lambda pair: (pair[0].lower(), pair[1]))


def table_row(model_type: str, class_name: str) -> tuple[Row, list[str]]:
    """A class's line in the table, and what is wrong beside the known fault that it may have."""
    row, problems = try_class(model_type, class_name)
    if model_type not in FAULTS:
        return row, problems
    pattern, reason = FAULTS[model_type]
    known = [problem for problem in problems if re.search(pattern, problem)]
    others = [problem for problem in problems if problem not in known]
    gone = [] if known else [f"is no longer so: {reason}; remove it from FAULTS in tests/sweeping.py"]
    return Row(model_type, class_name, "fault", "fault", "fault", row.experts, reason), others + gone


def try_class(model_type: str, class_name: str) -> tuple[Row, list[str]]:
    """What can be attached where, and all that is wrong with it."""
    try:
        model = tiny_model(model_type, class_name)
    except Exception as error:
        reason, problems = _why_not(model_type, f"{type(error).__name__}: {error}")
        return Row(model_type, class_name, "not built", "not built", "not built", reason=reason), problems
    run = Runner(model, model_type)
    trial = Trial(model, class_name)
    problems = trial.problems
    gate, up, product = (trial.cell(site) for site in SITES)
    if run.error:
        gate, up, product = ("no" if cell == "no" else "not run" for cell in (gate, up, product))
        if "not run" in (gate, up, product):
            reason, unknown = _why_not(model_type, run.error)
        else:
            reason, unknown = NEEDS.get(model_type) or trial.reason(None), []
        return Row(model_type, class_name, gate, up, product, trial.experts, reason), problems + unknown
    run.try_generate()
    before, baseline = anatomy(model), run(*prompts())
    for site in SITES:
        experts, layers = trial.chosen[site]
        if layers:
            arguments = {"site": site, "layers": layers, "experts": experts}
            problems += [f"{site}: {problem}" for problem in check(model, run, arguments, baseline)]
            if trial.experts and experts != SHARED:
                problems += [f"{site}, {problem}" for problem in check_implementations(model, run, arguments)]
    if anatomy(model) != before:
        problems.append("something is left in the model after detach()")
    return Row(model_type, class_name, gate, up, product, trial.experts, trial.reason(run)), problems


def _why_not(model_type: str, error: str) -> tuple[str, list[str]]:
    """Why a model cannot be built or run, and a problem if `NEEDS` does not say: then it was built wrongly."""
    if model_type in NEEDS:
        return NEEDS[model_type], []
    return "?", [f"does not run ({' '.join(error.split())[:300]}): mend tests/shrinking_exceptions.py, or say why"]


class Trial:
    """To which layers of a model ARM can be attached; refusals must name the class and the layer."""

    def __init__(self, model: nn.Module, class_name: str) -> None:
        self.model, self.class_name = model, class_name
        self.problems: list[str] = []
        self.refusals: list[str] = []
        self.number = self._number()
        names = [name for name, _ in model.named_parameters()]
        self.dense = not any("expert" in name for name in names)
        tried: dict[tuple[str, str], list[int]] = {}
        for kind, site in itertools.product(EXPERTS, SITES):
            # Where the default reaches up, the other sites say of which experts that is.
            tried[kind, site] = [] if site == UP and tried.get((ALL_EXPERTS, UP)) else self._layers(site, kind)
        reached = [kind for kind in (ROUTED, SHARED) if any(tried[kind, site] for site in SITES)]
        has_experts = any(re.search(r"layers\.\d+\..*experts", name) for name in names)
        self.experts = (" and ".join(reached) or "no") if has_experts else ""
        # What `attach` does by default, or else for some of the experts.
        self.chosen = {
            site: next(((kind, tried[kind, site]) for kind in EXPERTS if tried[kind, site]), (ALL_EXPERTS, []))
            for site in SITES
        }

    def _number(self) -> int:
        """The number of layers, which the error for a layer that no model has says."""
        with suppress(UnsupportedModelError):
            try:
                attach(self.model, Outward(), layers=10**6)
            except ArgumentError as error:
                return int(re.findall(r"layers 0 to (\d+)", str(error))[0]) + 1
        return 1

    def _layers(self, site: str, experts: str) -> list[int]:
        number = self.number if experts == ALL_EXPERTS or not self.dense else 1  # all layers refuse alike
        return [layer for layer in range(number) if self._attaches(layer, site, experts)]

    def _attaches(self, layer: int, site: str, experts: str) -> bool:
        try:
            attach(self.model, Outward(), layers=layer, site=site, experts=experts).detach()
        except UnsupportedModelError as error:
            self.refusals += [str(error)] if experts == ALL_EXPERTS else []
            if self.class_name not in str(error) or f"layer {layer}" not in str(error):
                self.problems.append(f"a refusal without class or layer: {error}")
            return False
        except Exception as error:
            self.problems.append(f"attach raised {type(error).__name__}: {error}")
            return False
        return True

    def cell(self, site: str) -> str:
        """What the table says of a site."""
        experts, layers = self.chosen[site]
        if layers and experts != ALL_EXPERTS:
            return f"{experts} experts only"
        return "no" if not layers else "yes" if len(layers) == self.number else "some layers"

    def reason(self, run: Runner | None) -> str:
        """The kinds of refusals; a refusal of another kind is a problem."""
        reasons: list[str] = []
        for refusal in self.refusals:
            kinds = [match.expand(text) for pattern, text in REASONS.items() if (match := re.search(pattern, refusal))]
            if not kinds:
                self.problems.append(f"a refusal of a kind that tests/sweeping.py does not know: {refusal}")
            reasons += kinds
        if "no gated MLP" in reasons and run and not any(layers for _, layers in self.chosen.values()):
            with Operations(self.model) as operations:
                run(*prompts())
            if any(gated_products(operations.steps)):
                reasons = [kind.replace("no gated MLP", "a gated MLP of another structure") for kind in reasons]
        return "; ".join(dict.fromkeys(reasons))


def main(names: set[str]) -> None:
    """Prints the lines of some model types or classes; without names, writes all into the table."""
    lines = [",".join(field.name for field in fields(Row))]
    for pair in all_classes():
        if not names or names & set(pair):
            row, problems = table_row(*pair)
            lines.append(row.line)
            print(row.line, *(f"    {problem}" for problem in dict.fromkeys(problems)), sep="\n", flush=True)
    if unknown := names - {name for pair in all_classes() for name in pair}:
        sys.exit(f"transformers has no model type or class {', '.join(sorted(unknown))}")
    if not names:
        TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(set(sys.argv[1:]))
