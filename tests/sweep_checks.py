"""What must hold of a model with ARM attached, checked without the product's own code."""

import inspect
import re
from collections import Counter
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from armlet import ARM, Outward, attach
from armlet.attachment.sites import ALL_EXPERTS, GATE, UP, UnsupportedModelError
from captures import Captures, check_calls
from operations import FEED_FORWARD, Operations, placement_problem, untreated
from shrinking import VOCABULARY
from shrinking_exceptions import INPUTS

LENGTH, SHORT, STEPS = 9, 6, 3
IMPLEMENTATIONS = ("eager", "batched_mm", "grouped_mm")
TOWERS = re.compile(r"vision|visual|audio|encoder|image|speech|talker|qformer|perceiver|resampler|expert|dit", re.I)
"""Parts of the names of modules, before their list of layers, that are no text decoder."""


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

    def __init__(self, model: Any, model_type: str) -> None:
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


def check(model: nn.Module, run: Runner, arguments: dict[str, Any], baseline: Tensor) -> list[str]:
    """All that is wrong with ARM attached with these arguments."""
    attachment = attach(model, Outward(), **arguments)
    try:
        problems = check_placement(model, run, baseline, **arguments)
        for padding in ("left",) if arguments["site"] == UP else ("", "left", "right"):
            problems += [f"padding {padding or 'none'}: {p}" for p in check_forward(model, run, attachment, padding)]
        if run.generates and arguments["site"] == GATE:
            problems += [f"generate: {problem}" for problem in check_generate(model, run, GATE)]
    except Exception as error:
        problems = [f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"]
    finally:
        attachment.detach()
    return problems if torch.equal(run(*prompts()), baseline) else [*problems, "off is not exact"]


def check_implementations(model: Any, run: Runner, arguments: dict[str, Any]) -> list[str]:
    """What is wrong when transformers computes the experts in other ways than it does; `attach` may refuse some."""
    parts = [part for part in model.modules() if hasattr(part, "_can_set_experts_implementation")]
    part = next((part for part in parts if part._can_set_experts_implementation()), None)
    if part is None:
        return []
    problems, default = [], part.config._experts_implementation
    for name in (name for name in IMPLEMENTATIONS if name != default):
        part.set_experts_implementation(name)
        try:
            with attach(model, Outward(), **arguments) as attachment:
                wrong = check_forward(model, run, attachment, "left")
                problems += [f"{name}, padding left: {problem}" for problem in wrong]
        except UnsupportedModelError:
            continue
        except Exception as error:
            problems.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
    part.set_experts_implementation(default)
    return problems


def check_placement(
    model: nn.Module, run: Runner, baseline: Tensor, site: str, layers: list[int], experts: str
) -> list[str]:
    """Whether ARM stands between activation, up and down, in the MLPs of these layers and in all of them, and acts."""
    with Operations(model) as operations:
        logits = run(*prompts())
    problems = ["the logits are those of the untreated model"] if torch.equal(logits, baseline) else []
    steps = operations.steps
    arms = {index: step.path for index, step in enumerate(steps) if step.name == "ARM"}
    for index, path in arms.items():
        if TOWERS.search(re.split(r"\.\d+\.", path)[0]) or not FEED_FORWARD.search(path):
            problems.append(f"{path} is in no MLP of the text decoder")
        if problem := placement_problem(steps, index, site):
            problems.append(f"{path}: {problem}")
    names = {match.group() for path in arms.values() if (match := re.match(r".*?\.\d+\.|\d+\.", path))}
    if sorted(int(name.split(".")[-2]) for name in names) != layers:
        problems.append(f"ARM ran in {sorted(names)}, but was attached to layers {layers}")
    half = untreated(steps, site, names) if experts == ALL_EXPERTS else []
    return problems + [f"{path} is in a layer with ARM, but has none" for path in half]


def check_forward(model: nn.Module, run: Runner, attachment: Any, padding: str) -> list[str]:
    """Whether a plain call gives each token the draws of its position, and the report counts the tokens."""
    attachment.reset()
    captures = Captures(model, attachment.site)
    ids, mask = prompts(padding)
    run(ids, mask)
    captures.remove()
    problems, count = check_calls(captures.calls, mask)
    report = attachment.report()
    if not problems and {layer: counts["tokens"] for layer, counts in report.items()} != dict(count):
        problems.append(f"report() says {report}, but the model had {dict(count)} rows")
    arms = Counter(module.layer for module in model.modules() if isinstance(module, ARM))
    calls = {layer: number // arms[layer] for layer, number in Counter(call.layer for call in captures.calls).items()}
    if {layer: counts["calls"] for layer, counts in report.items()} != calls or not all(
        counts["moved"] for counts in report.values()
    ):
        problems.append(f"report() says {report} after {calls} calls")
    return problems


def check_generate(model: nn.Module, run: Runner, site: str) -> list[str]:
    """Whether each step of `generate`, after left padding, goes on with the positions."""
    captures = Captures(model, site)
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
