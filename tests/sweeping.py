"""What `attach` does to one class of transformers, tried on a tiny model, and checked without the product's own code.

ARM's input and output are captured by plain hooks. Where they belong is read from the operations that PyTorch runs,
which positions they belong to from the prompt's padding, and what the output should be from the formula of the noise.
"""

import gc
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from armlet import ARM, Noise, Outward, attach, redistribute
from armlet.attachment.sites import UnsupportedModelError
from armlet.redistribution.errors import ArmletError
from operations import Operations, placement_problem
from shrinking import VOCABULARY, tiny_model

LENGTH, SHORT, STEPS = 9, 6, 3
TOWERS = re.compile(r"vision|visual|audio|encoder|image|speech|talker|qformer|perceiver|resampler|mtp", re.IGNORECASE)
"""Parts of the names of modules that are no text decoder."""


@dataclass
class Outcome:
    """What is so about one class: a row of the table, and what is wrong."""

    model_type: str
    class_name: str
    gate: str = "no"  # "yes", "some layers" or "no"
    product: str = "no"
    experts: str = ""  # at the gate, if there are routed experts: "yes", "shared only", "no"
    reason: str = ""  # why not everything
    problems: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)  # of the refusals


@dataclass
class Capture:
    """What one ARM got and returned in one forward call of its module."""

    path: str
    values: Tensor
    output: Tensor


@dataclass
class Rows:
    """One forward call of a module of routed experts, and the values that ARM got in it."""

    path: str
    experts: nn.Module
    hidden: Tensor
    routing: Tensor | None  # `[tokens, choices]`, None if all experts run on all tokens
    captures: list[Capture] = field(default_factory=list)


def prompts(padding: str = "") -> tuple[Tensor, Tensor]:
    """Ids and mask of a short and a long prompt; `padding` is "left", "right" or "" for two long ones."""
    ids = torch.randint(4, VOCABULARY // 2, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    if padding:
        mask[0, slice(LENGTH - SHORT) if padding == "left" else slice(SHORT, None)] = 0
    return ids * mask, mask


def positions_of(mask: Tensor) -> Tensor:
    """A token's position is the number of real tokens before it."""
    return (mask.cumsum(-1) - 1).clamp(min=0)


def uniforms(width: int, layer: int, positions: Tensor, channel: Tensor | int = 0, channels: int = 0) -> Tensor:
    """DESIGN section 5: the draws of `Noise(0)` for rows at some positions; `channel` is each row's first of `channels`."""
    base, step, _ = Noise(0).keys(channels or width, layer)
    index = torch.as_tensor(channel).reshape(-1, 1) + torch.arange(width)
    word = (base[index] + positions.reshape(-1, 1) * step[index]) % 2**32
    return (word // 2**8).float() / 2**24


class Watch:
    """Captures what ARM does in a model, until `remove`."""

    def __init__(self, model: nn.Module) -> None:
        self.calls: list[Capture | Rows] = []
        self._open: list[Rows] = []
        self._hooks: list[Any] = []
        names = {module: name for name, module in model.named_modules()}
        for name, module in list(model.named_modules()):
            if isinstance(module, ARM):
                self._hooks.append(module.register_forward_hook(self._note(name)))
                owner = _experts_around(model, name)
                if owner is not None:
                    self._hooks.append(owner.register_forward_pre_hook(self._begin(names[owner]), with_kwargs=True))
                    self._hooks.append(owner.register_forward_hook(lambda *_: self._open.pop() and None))

    def _note(self, path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            capture = Capture(path, args[0].clone(), output.clone())
            (self._open[-1].captures if self._open else self.calls).append(capture)

        return hook

    def _begin(self, path: str) -> Callable[..., None]:
        def hook(experts: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            routing = next((value for value in given[1:] if not value.is_floating_point()), None)
            rows = Rows(path, experts, given[0].reshape(-1, given[0].shape[-1]).clone(), routing)
            self.calls.append(rows)
            self._open.append(rows)

        return hook

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def _experts_around(model: nn.Module, path: str) -> nn.Module | None:
    """The module with fused weights of experts that contains an ARM."""
    parts = path.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        module = model.get_submodule(".".join(parts[:depth]))
        if any(weight.dim() == 3 and "proj" in name for name, weight in module.named_parameters(recurse=False)):
            return module
    return None


def layer_of(path: str) -> int:
    """The number of the layer in a module's name."""
    return int(next(part for part in path.split(".") if part.isdigit()))


def check_rows(calls: list[Capture | Rows], mask: Tensor, new: int, layers: Callable[[str], int]) -> tuple[list[str], Counter]:
    """Whether each output is what the formula gives for its tokens' positions, and the number of real rows by layer.

    Args:
        calls: of one forward call of the model.
        mask: `[batch, cached + new]`.
        new: how many columns of it the model was called with.
        layers: the layer's index for a module's name.
    """
    positions, real = positions_of(mask)[:, -new:].flatten(), mask[:, -new:].flatten().bool()
    problems: list[str] = []
    count: Counter[int] = Counter()
    for call in calls:
        layer = layers(call.path)
        if isinstance(call, Rows):
            problem, rows = _check_routed(call, positions, real, layer)
        else:
            problem, rows = _check_dense(call, positions, real, layer), int(real.sum())
        count[layer] += rows
        if problem:
            problems.append(f"layer {layer}: {problem}")
    return problems, count


def _check_dense(call: Capture, positions: Tensor, real: Tensor, layer: int) -> str:
    values, output = (tensor.reshape(-1, tensor.shape[-1]) for tensor in (call.values, call.output))
    if len(values) != len(positions):
        return f"ARM got {len(values)} rows for {len(positions)} tokens"
    draws = uniforms(values.shape[-1], layer, positions)
    expected = torch.where(real[:, None], redistribute(values[None], Outward(), noise=draws[None])[0], values)
    if torch.equal(expected, output):
        return ""
    wrong = (expected != output).any(-1)
    where = "real tokens" if (wrong & real).any() else "padding"
    return f"{where} do not have the draws of their positions"


def _check_routed(call: Rows, positions: Tensor, real: Tensor, layer: int) -> tuple[str, int]:
    values = torch.cat([c.values.reshape(-1, c.values.shape[-1]) for c in call.captures]) if call.captures else torch.empty(0, 1)
    output = torch.cat([c.output.reshape(-1, c.output.shape[-1]) for c in call.captures]) if call.captures else values
    count = next(w.shape[0] for n, w in call.experts.named_parameters(recurse=False) if "down_proj" in n)
    hidden = call.hidden
    if call.routing is None:
        hidden = hidden.view(count, -1, hidden.shape[-1])
        pairs = torch.nonzero((hidden != 0).any(-1))[:, [1, 0]]
        inputs = hidden[pairs[:, 1], pairs[:, 0]]
        every = hidden.shape[1]
    else:
        tokens = torch.arange(len(call.routing))[:, None].expand(call.routing.shape)
        pairs = torch.stack((tokens.flatten(), call.routing.flatten()), -1)
        pairs = pairs[pairs[:, 1] < count]
        inputs, every = hidden[pairs[:, 0]], len(call.routing)
    if every != len(positions):
        return f"the experts got {every} tokens of {len(positions)}", 0
    treated = int(real[pairs[:, 0]].sum())
    matches = _match(call.experts, inputs, pairs[:, 1], values)
    if matches is None:
        return f"{len(values)} rows are not the activated gates or products of {len(pairs)} routed tokens, each once", treated
    token, expert = pairs[matches].unbind(-1)
    width, acted = values.shape[-1], real[token] & (matches >= 0)
    draws = uniforms(width, layer, positions[token], expert * width, count * width)
    expected = torch.where(acted[:, None], redistribute(values[None], Outward(), noise=draws[None])[0], values)
    if not torch.equal(expected, output):
        return "rows do not have the draws of their token's position and expert", treated
    return "", treated


def _match(experts: nn.Module, inputs: Tensor, expert: Tensor, values: Tensor) -> Tensor | None:
    """For each row of `values`, the index of its routed token, or -1 for zeros; None unless each token has one row."""
    for expected in _activated(experts, inputs, expert):
        if expected.shape[-1] != values.shape[-1] or not len(values):
            continue
        distance = torch.cdist(values, expected, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distance.argmin(-1)
        close = distance.gather(1, nearest[:, None])[:, 0] < 1e-4 * (1 + values.norm(dim=-1))
        if close.sum() == len(expected) == len(nearest[close].unique()) and not values[~close].any():
            return torch.where(close, nearest, -1)
    return None


def _activated(experts: nn.Module, inputs: Tensor, expert: Tensor) -> Iterator[Tensor]:
    """The activated gate and the product of each routed token, in every layout and activation that there is."""
    weights = dict(experts.named_parameters(recurse=False))
    weight = weights["gate_up_proj"][expert]
    weight = weight if weight.shape[1] == inputs.shape[-1] else weight.transpose(1, 2)
    gate_up = (inputs[:, None] @ weight)[:, 0]
    if "gate_up_proj_bias" in weights:
        gate_up = gate_up + weights["gate_up_proj_bias"][expert]
    limit = next((v for n, v in vars(experts).items() if "limit" in n and isinstance(v, float | int)), None)
    alpha = next((v for n, v in vars(experts).items() if "alpha" in n and isinstance(v, float | int)), 1.702)
    for gate, up in (gate_up.chunk(2, -1), (gate_up[..., ::2], gate_up[..., 1::2])):
        bounded = gate if limit is None else gate.clamp(max=limit)
        limited = up if limit is None else up.clamp(-limit, limit)
        activated = [F.silu(gate), F.silu(bounded), F.gelu(gate), F.gelu(gate, approximate="tanh"), F.relu(gate), F.relu(gate) ** 2]
        activated += [bounded * torch.sigmoid(alpha * bounded)]
        activated += [F.silu(gate).clamp(max=limit)] if limit is not None else []
        yield from activated
        yield from (a * factor for a in activated for factor in (up, limited, limited + 1))


@contextmanager
def watched(model: nn.Module) -> Iterator[Watch]:
    """Captures what ARM does inside the block."""
    watch = Watch(model)
    try:
        yield watch
    finally:
        watch.remove()


def runner(model: nn.Module) -> tuple[Callable[..., Any], str]:
    """A function that calls the model with ids and a mask, and "" or why the model cannot be called so."""
    errors = []
    zeros = {"mm_token_type_ids", "token_type_ids"}
    for names, ones in (((), ()), (zeros, ()), ((), ("decoder_input_ids", "decoder_attention_mask"))):
        def run(ids: Tensor, mask: Tensor, names: Any = names, ones: Any = ones, **more: Any) -> Any:
            extra = {name: torch.zeros_like(ids) for name in names} | dict(zip(ones, (ids, mask), strict=False))
            return model(input_ids=ids, attention_mask=mask, **extra, **more)

        try:
            with torch.no_grad():
                run(*prompts())
            return run, ""
        except Exception as error:  # noqa: BLE001 - whatever a model raises is the reason
            errors.append(f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
    return run, errors[0]


def anatomy(model: nn.Module) -> list[Any]:
    """All that attaching could leave behind: modules, keys, attributes and hooks."""
    parts = []
    for name, module in model.named_modules():
        hooks = {kind: len(value) for kind, value in vars(module).items() if "hooks" in kind and hasattr(value, "__len__")}
        parts.append((name, type(module), sorted(vars(module)), hooks, list(module._modules), list(module._buffers)))
    return [*parts, list(model.state_dict())]


def classify(model_type: str, class_name: str) -> Outcome:
    """Builds a tiny model, attaches ARM wherever that is possible, and checks all of it."""
    outcome = Outcome(model_type, class_name)
    try:
        model = tiny_model(model_type, class_name)
    except Exception as error:  # noqa: BLE001
        outcome.gate = outcome.product = "not built"
        outcome.reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        return outcome
    before = anatomy(model)
    layers = _layers(model, outcome)
    run, why = runner(model)
    if why and any(layers.values()):
        outcome.reason = f"not run: {why}"
        outcome.gate, outcome.product = ("not run" if layers[site] else "no" for site in ("gate", "product"))
        return outcome
    if not why:
        with torch.no_grad():
            baseline = run(*prompts()).logits.clone()
            if not torch.equal(baseline, run(*prompts()).logits):
                outcome.problems.append("the untreated model is not deterministic")
        for site in ("gate", "product"):
            if layers[site]:
                outcome.problems += [f"{site}: {problem}" for problem in check(model, run, site, layers[site], baseline)]
        if anatomy(model) != before:
            outcome.problems.append("something is left after detach")
    gc.collect()
    return outcome


def _layers(model: nn.Module, outcome: Outcome) -> dict[str, list[int]]:
    """The layers to which ARM can be attached at each site, as `outcome` then says."""
    layers: dict[str, list[int]] = {}
    for site in ("gate", "product"):
        layers[site], number = [], 0
        while number < 64:
            try:
                attach(model, Outward(), layers=number, site=site).detach()
                layers[site].append(number)
            except UnsupportedModelError as error:
                outcome.messages.append(f"{site} {number}: {error}")
                if type(model).__name__ not in str(error) or f"layer {number}" not in str(error):
                    outcome.problems.append(f"{site}: unclear: {error}")
            except ArmletError as error:
                if "has layers 0 to" in str(error):
                    break
                outcome.problems.append(f"{site}: {type(error).__name__}: {error}")
            except Exception as error:  # noqa: BLE001
                outcome.problems.append(f"{site}: attach raised {type(error).__name__}: {error}")
            number += 1
            if number > 16 and not layers[site]:
                break
        setattr(outcome, site, "no" if not layers[site] else "yes" if len(layers[site]) == number else "some layers")
    return layers


def check(model: nn.Module, run: Callable[..., Any], site: str, layers: list[int], baseline: Tensor) -> list[str]:
    """All that must hold of a model with ARM at a site of some layers; what does not."""
    problems: list[str] = []
    attachment = attach(model, Outward(), layers=layers, site=site)
    with torch.no_grad():
        try:
            problems += _placement(model, run, site, layers)
            problems += _forward(model, run, attachment, baseline)
            if site == "gate" and hasattr(model, "generate"):
                problems += _generate(model)
        except Exception as error:  # noqa: BLE001
            problems.append(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        finally:
            attachment.detach()
        if not torch.equal(run(*prompts()).logits, baseline):
            problems.append("off is not exact")
    return problems


def _placement(model: nn.Module, run: Callable[..., Any], site: str, layers: list[int]) -> list[str]:
    with Operations(model) as operations:
        run(*prompts())
    steps, problems = operations.steps, []
    arms = [index for index, step in enumerate(steps) if step.name.startswith("ARM ")]
    for index in arms:
        path = steps[index].name[4:]
        if TOWERS.search(path.split("layers")[0]):
            problems.append(f"{path} is in another tower")
        if problem := placement_problem(steps, index, site):
            problems.append(f"{path}: {problem}")
    treated = {layer_of(steps[index].name[4:]) for index in arms}
    if len(treated) != len(layers):
        problems.append(f"ARM ran in layers {sorted(treated)}, attached to {layers}")
    return problems


def _layer_index(model: nn.Module) -> Callable[[str], int]:
    return lambda path: next(module.layer for name, module in model.named_modules() if isinstance(module, ARM) and name.startswith(path))


def _forward(model: nn.Module, run: Callable[..., Any], attachment: Any, baseline: Tensor) -> list[str]:
    problems: list[str] = []
    index = _layer_index(model)
    for padding in ("", "left", "right"):
        ids, mask = prompts(padding)
        attachment.reset()
        with watched(model) as watch:
            logits = run(ids, mask).logits
        wrong, count = check_rows(watch.calls, mask, LENGTH, index)
        problems += [f"padding {padding or 'none'}: {problem}" for problem in wrong]
        report = attachment.report()
        if (tokens := {layer: counts["tokens"] for layer, counts in report.items()}) != dict(count):
            problems.append(f"padding {padding or 'none'}: report has {tokens} tokens, the model {dict(count)}")
        if not all(counts["moved"] for counts in report.values()):
            problems.append(f"padding {padding or 'none'}: nothing moved")
        if not padding and torch.equal(logits, baseline):
            problems.append("the logits are those of the untreated model")
    return problems


def _generate(model: nn.Module) -> list[str]:
    ids, mask = prompts("left")
    model.generation_config.eos_token_id = None
    steps: list[list[Capture | Rows]] = []
    with watched(model) as watch:
        arms = [module for module in model.modules() if isinstance(module, ARM)]
        first = arms[0]
        model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=STEPS, do_sample=False, pad_token_id=0)
        calls = watch.calls
    per_step = len(calls) // STEPS
    if not calls or len(calls) % STEPS:
        return [f"generate: {len(calls)} calls of ARM in {STEPS} steps"]
    steps = [calls[step * per_step : (step + 1) * per_step] for step in range(STEPS)]
    problems, index = [], _layer_index(model)
    for step, some in enumerate(steps):
        longer = F.pad(mask, (0, step), value=1)
        sizes = {len(call.hidden) if isinstance(call, Rows) and call.routing is not None else call.values.shape[:-1].numel() for call in some if not isinstance(call, Rows) or call.routing is not None}
        new = next(iter(sizes)) // 2 if sizes else (LENGTH if not step else 1)
        problems += [f"generate, step {step}: {problem}" for problem in check_rows(some, longer, new, index)[0]]
    return problems
