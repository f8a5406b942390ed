"""What `attach` does to one class of transformers: tried on a tiny model, checked without the product's own code.

`python tests/sweeping.py` prints the lines of docs/models.csv for the classes named, or for all.
"""

import csv
import inspect
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.auto import modeling_auto

from armlet import ARM, Outward, attach
from armlet.attachment.sites import ALL_EXPERTS, EXPERTS, GATE, ROUTED, SHARED, SITES, UnsupportedModelError
from armlet.redistribution.errors import ArgumentError
from captures import Captures, check_calls
from operations import FEED_FORWARD, Operations, gated_products, placement_problem, untreated
from shrinking import VOCABULARY, tiny_model
from shrinking_exceptions import INPUTS, NEEDS

TABLE = Path(__file__).parents[1] / "docs" / "models.csv"
MAPPINGS = ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM")
LENGTH, SHORT, STEPS = 9, 6, 3
TOWERS = re.compile(
    r"vision|visual|audio|encoder|image|speech|talker|qformer|perceiver|resampler|expert", re.IGNORECASE
)
"""Parts of the names of modules, before their list of layers, that are no text decoder."""

REASONS = {
    r"expected one gated MLP.*found 0": "no gated MLP",
    r"expected one gated MLP.*found [1-9]": "several gated MLPs in a layer",
    r"no list of decoder layers": "no list of decoder layers",
    r"has no argument (.*?), from which": r"its decoder's forward has no argument \1",
    r"expected the routed experts in one module": "routed experts without fused weights",
    r"computes its experts in a way": "experts whose rows cannot be told apart",
    r"runs beside the experts, and is no gated MLP": "an MLP beside the experts whose activation is no module",
    r"names do not show which is down": "two linears that could be down",
}
"""A pattern in a refusal → what the table says."""


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    model_type: str
    class_name: str
    gate: str = "no"  # "yes", "some layers", "routed experts only", "no", "not run" or "not built"
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
        return not {self.gate, self.product} <= {"no", "not run", "not built"}


def read_table() -> dict[tuple[str, str], Row]:
    """The rows of the table, by model type and class."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = [Row(*cells) for cells in csv.reader(file)][1:]
    return {(row.model_type, row.class_name): row for row in rows}


def all_classes() -> list[tuple[str, str]]:
    """All pairs of model type and class in the mappings of transformers, each once."""
    pairs: list[tuple[str, str]] = []
    for mapping in MAPPINGS:
        for model_type, classes in getattr(modeling_auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES").items():
            pairs += [(model_type, name) for name in ((classes,) if isinstance(classes, str) else classes)]
    return list(dict.fromkeys(pairs))


def prompts(padding: str = "") -> tuple[Tensor, Tensor]:
    """Ids and mask of two prompts, of which the first has padding on the "left", the "right" or not at all.

    No id occurs twice, also in the padding, so that rows of experts can be told apart.
    """
    ids = 4 + torch.randperm(VOCABULARY // 2, generator=torch.Generator().manual_seed(1))[: 2 * LENGTH].view(2, LENGTH)
    mask = torch.ones_like(ids)
    if padding:
        mask[0, slice(LENGTH - SHORT) if padding == "left" else slice(SHORT, None)] = 0
    return ids, mask


class Runner:
    """Calls a model with ids, a mask and what else it needs; `error` says why that fails."""

    def __init__(self, model: nn.Module, model_type: str) -> None:
        self.model, self.extra, self.error, self.generates = model, {}, "", False
        types = {name: torch.zeros(2, LENGTH, dtype=torch.int64) for name in ("mm_token_type_ids", "token_type_ids")}
        decoder = dict(zip(("decoder_input_ids", "decoder_attention_mask"), prompts(), strict=True))
        given = INPUTS.get(model_type)
        for self.extra in [given(model.config)] if given else [{}, types, decoder]:
            try:
                self(*prompts())
            except Exception as error:
                self.error = self.error or " ".join(str(error).split())[:120]
            else:
                self.error = ""
                return

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The logits."""
        decoder = (
            {"decoder_input_ids": ids, "decoder_attention_mask": mask} if "decoder_input_ids" in self.extra else {}
        )
        with torch.no_grad():
            return self.model(input_ids=ids, attention_mask=mask, **self.extra | decoder)[0]

    def try_generate(self) -> None:
        """Sets `generates`: some models generate only from images or sound, or not at all."""
        with suppress(Exception):
            self.generate(*prompts("left"))
            self.generates = True

    def generate(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Continues the prompts by `STEPS` tokens; returns the mask of the first call of the decoder."""
        extra = {} if "decoder_input_ids" in self.extra else self.extra
        if "attention_mask" in inspect.signature(self.model.forward).parameters:
            extra = extra | {"attention_mask": mask}
        else:
            mask = torch.ones_like(mask)
        self.model.generation_config.eos_token_id = None
        length: dict[str, Any] = {"max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0}
        self.model.generate(input_ids=ids, **length, **extra)
        return torch.ones(2, 1, dtype=torch.int64) if self.model.config.is_encoder_decoder else mask


def try_class(model_type: str, class_name: str) -> tuple[Row, list[str]]:
    """What can be attached where, and all that is wrong with it."""
    try:
        model = tiny_model(model_type, class_name)
    except Exception as error:
        reason = NEEDS.get(model_type) or " ".join(str(error).split()).replace('"', "")[:120]
        return Row(model_type, class_name, "not built", "not built", "", reason), []
    run = Runner(model, model_type)
    trial = Trial(model, class_name)
    problems = trial.problems
    cells = [trial.cell(site) for site in SITES]
    if run.error:
        cells = [cell if cell == "no" else "not run" for cell in cells]
        reason = NEEDS.get(model_type, run.error) if "not run" in cells else trial.reason(None)
        return Row(model_type, class_name, *cells, trial.experts, reason), problems
    run.try_generate()
    before, baseline = anatomy(model), run(*prompts())
    for site in SITES:
        experts, layers = trial.chosen[site]
        if layers:
            arguments = {"site": site, "layers": layers, "experts": experts}
            problems += [f"{site}: {problem}" for problem in check(model, run, arguments, baseline)]
    if anatomy(model) != before:
        problems.append("something is left in the model after detach()")
    return Row(model_type, class_name, *cells, trial.experts, trial.reason(run)), problems


class Trial:
    """To which layers of a model ARM can be attached; refusals must name the class and the layer."""

    def __init__(self, model: nn.Module, class_name: str) -> None:
        self.model, self.class_name = model, class_name
        self.problems: list[str] = []
        self.refusals: list[str] = []
        self.number = self._number()
        tried = {(kind, site): self._layers(site, kind) for kind in EXPERTS for site in SITES}
        reached = [kind for kind in (ROUTED, SHARED) if any(tried[kind, site] for site in SITES)]
        has_experts = any(re.search(r"layers\.\d+\..*experts", name) for name, _ in model.named_parameters())
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
                return int(re.search(r"layers 0 to (\d+)", str(error)).group(1)) + 1
        return 1

    def _layers(self, site: str, experts: str) -> list[int]:
        return [layer for layer in range(self.number) if self._attaches(layer, site, experts)]

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


def check(model: nn.Module, run: Runner, arguments: dict[str, Any], baseline: Tensor) -> list[str]:
    """All that is wrong with ARM attached with these arguments."""
    attachment = attach(model, Outward(), **arguments)
    try:
        problems = check_placement(model, run, **arguments)
        for padding in ("", "left", "right"):
            problems += [f"padding {padding or 'none'}: {p}" for p in check_forward(model, run, attachment, padding)]
        if torch.equal(run(*prompts()), baseline):
            problems.append("the logits are those of the untreated model")
        if run.generates and arguments["site"] == GATE:
            problems += [f"generate: {problem}" for problem in check_generate(model, run)]
    except Exception as error:
        problems = [f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"]
    finally:
        attachment.detach()
    return problems if torch.equal(run(*prompts()), baseline) else [*problems, "off is not exact"]


def check_placement(model: nn.Module, run: Runner, site: str, layers: list[int], experts: str) -> list[str]:
    """Whether ARM stands between activation, up and down, in the MLPs of these layers, and in all of them."""
    with Operations(model) as operations:
        run(*prompts())
    steps, problems = operations.steps, []
    arms = {index: step.path for index, step in enumerate(steps) if step.name == "ARM"}
    for index, path in arms.items():
        if TOWERS.search(re.split(r"\.\d+\.", path)[0]) or not FEED_FORWARD.search(path):
            problems.append(f"{path} is in no MLP of the text decoder")
        if problem := placement_problem(steps, index, site):
            problems.append(f"{path}: {problem}")
    names = {match.group() for path in arms.values() if (match := re.match(r".*?\.\d+\.|\d+\.", path))}
    if len(names) != len(layers):
        problems.append(f"ARM ran in {sorted(names)}, but was attached to layers {layers}")
    half = untreated(steps, site, names) if experts == ALL_EXPERTS else []
    return problems + [f"{path} is in a layer with ARM, but has none" for path in half]


def check_forward(model: nn.Module, run: Runner, attachment: Any, padding: str) -> list[str]:
    """Whether a plain call gives each token the draws of its position, and the report counts the tokens."""
    attachment.reset()
    captures = Captures(model)
    ids, mask = prompts(padding)
    run(ids, mask)
    captures.remove()
    problems, count = check_calls(captures.calls, mask)
    report = attachment.report()
    if not problems and {layer: counts["tokens"] for layer, counts in report.items()} != dict(count):
        problems.append(f"report() says {report}, but the model had {dict(count)} rows")
    if {counts["calls"] for counts in report.values()} != {1} or not all(c["moved"] for c in report.values()):
        problems.append(f"report() says {report} after one call")
    return problems


def check_generate(model: nn.Module, run: Runner) -> list[str]:
    """Whether each step of `generate`, after left padding, goes on with the positions."""
    captures = Captures(model)
    ids, mask = prompts("left")
    mask = run.generate(ids, mask)
    captures.remove()
    number, rest = divmod(len(captures.calls), STEPS)
    if rest or not number:
        return [f"ARM was called {len(captures.calls)} times in {STEPS} steps"]
    problems = []
    for step in range(STEPS):
        calls = captures.calls[step * number : (step + 1) * number]
        problems += [f"step {step}: {p}" for p in check_calls(calls, F.pad(mask, (0, step), value=1))[0]]
    return problems


def anatomy(model: nn.Module) -> list[Any]:
    """All that attaching could leave behind: modules, hooks, attributes, buffers and keys."""
    parts: list[Any] = [list(model.state_dict())]
    for name, module in model.named_modules():
        hooks = {
            kind: len(value) for kind, value in vars(module).items() if "hooks" in kind and hasattr(value, "__len__")
        }
        parts.append((name, type(module), sorted(vars(module)), hooks, list(module._buffers)))
    assert not any(isinstance(module, ARM) for module in model.modules())
    return parts


def main(names: Iterable[str]) -> None:
    """Prints the lines of the table, and the problems on stderr."""
    names = set(names)
    for pair in sorted(all_classes(), key=lambda pair: (pair[0].lower(), pair[1])):
        if not names or names & set(pair):
            row, problems = try_class(*pair)
            print(row.line, flush=True)
            for problem in dict.fromkeys(problems):
                print(f"{'/'.join(pair)}: {problem}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
