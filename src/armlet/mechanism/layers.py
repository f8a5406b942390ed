"""Runs every prompt with every filler through the layers, one layer in memory at a time, and measures some of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from armlet.attachment.experts import ExpertsArm
from armlet.attachment.module import ARM
from armlet.attachment.sites import UnsupportedModelError
from armlet.layer.capture import Trace
from armlet.layer.decoder import Layer1
from armlet.mechanism.classes import classify
from armlet.mechanism.measure import QUANTITIES, View, measure_filler, measure_gate, near_zero_after, view
from armlet.prompts.fillers import Filler, Position, Prompt, describe_filler, filler_tokens, make_prompt
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise
from armlet.redistribution.outward import near_zero_halfwidth
from armlet.redistribution.policies import settings
from armlet.redistribution.rows import Policy
from armlet.statistics import FloatArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MIN_TOKENS_AFTER = 2  # fewest tokens after the filler to which an affine map can be fitted


@dataclass(frozen=True)
class Setup:
    """The inputs of a run; at least one prompt and one filler."""

    prompts: Sequence[Prompt]
    fillers: Sequence[Filler]  # the conditions to compare with the baseline
    tokens: Sequence[Sequence[Tensor]]  # for each prompt, the tokens [count] of each filler
    policies: Sequence[Policy]  # policies for which the near-zero share after ARM is measured, without filler
    seed: int  # seed of the random sentences, of ARM's keyed noise and of the bootstrap
    questions: Sequence[str]
    system: str
    position: Position  # where the fillers are inserted
    descriptions: Sequence[dict[str, object]]  # `describe_filler` of each filler in the first prompt

    def example(self) -> int:
        """The index of the filler that the figures show: the first kind, at its last count."""
        return max(index for index, filler in enumerate(self.fillers) if filler.kind == self.fillers[0].kind)

    def prompt_of_tokens(self) -> NDArray[np.int64]:
        """The prompt index of each measured token, `[tokens]`."""
        return np.repeat(np.arange(len(self.prompts)), [len(p.ids) - p.insert_at for p in self.prompts])

    def classes(self) -> NDArray[np.str_]:
        """The class of each measured token, `[tokens]`; "" for tokens outside the question."""
        names: list[str] = []
        for prompt in self.prompts:
            kinds, question = classify(prompt.words), range(*prompt.question)
            names += [kinds[index] if index in question else "" for index in range(prompt.insert_at, len(kinds))]
        return np.array(names)

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        texts = {"system": self.system, "position": self.position, "questions": [*self.questions]}
        run = {"seed": self.seed, "tokens": len(self.prompt_of_tokens()), "quantities": QUANTITIES}
        policies = [{"policy": policy.name, **settings(policy)} for policy in self.policies]
        return {**texts, **run, "fillers": [*self.descriptions], "policies": policies}


def make_setup(
    tokenizer: "PreTrainedTokenizerBase",
    questions: Sequence[str],
    fillers: Sequence[Filler],
    policies: Sequence[Policy],
    system: str,
    position: Position,
    seed: int,
) -> Setup:
    """Tokenizes the questions, with one system prompt, and the fillers to insert at `position` in each.

    Raises ArgumentError as `make_prompt` does, and if too few tokens come after the filler.
    """
    prompts = [make_prompt(tokenizer, question, system=system, position=position) for question in questions]
    for prompt, question in zip(prompts, questions, strict=True):
        if prompt.insert_at + MIN_TOKENS_AFTER > len(prompt.ids):
            reason = f"fewer than {MIN_TOKENS_AFTER} tokens come after a filler"
            raise ArgumentError(f"position: {reason} at {position!r} in {question!r}")
    indices = range(len(prompts))
    tokens = [[filler_tokens(tokenizer, filler, seed=seed, prompt=index) for filler in fillers] for index in indices]
    pairs = zip(fillers, tokens[0], strict=True)
    descriptions = [describe_filler(tokenizer, filler, ids) for filler, ids in pairs]
    return Setup(prompts, fillers, tokens, policies, seed, questions, system, position, descriptions)


@dataclass(frozen=True)
class LayerFindings:
    """Measurements in one layer, `[tokens]` each for all measured tokens; and of the first prompt, for the figures."""

    layer: int
    without: dict[str, FloatArray]  # each of `GATE_QUANTITIES` without filler
    filled: list[dict[str, FloatArray]]  # for each filler, each of `QUANTITIES`
    treated: list[FloatArray]  # for each policy, the near-zero share after ARM
    moved: list[int]  # for each policy, the number of values that moved
    width: int  # values of each row of ARM: of each token, in a mixture of experts in each of its experts
    experts: int  # routed experts of each token; 0 in a dense layer
    received: tuple[Tensor, Tensor]  # `View.received` of the first prompt, without filler and with `Setup.example`
    attention: tuple[Tensor, Tensor]  # `View.attention` of the first prompt, likewise
    heads: int  # number of attention heads


def measure_layers(
    layers: Iterable[Layer1], wanted: Iterable[int], setup: Setup, tick: Callable[[], None]
) -> Iterator[LayerFindings]:
    """Runs every prompt with every filler through the layers; yields the findings of each wanted layer.

    layers: consecutive layers from layer 0; tick: called after each prompt in each layer.
    """
    wanted = set(wanted)
    states: list[list[Tensor]] = []
    for layer in layers:
        states = states or [_embed(layer, *texts) for texts in zip(setup.prompts, setup.tokens, strict=True)]
        findings: list[LayerFindings] = []
        for prompt, hidden in zip(setup.prompts, states, strict=True):
            if layer.options.layer in wanted:
                findings.append(_measure_prompt(layer, prompt, hidden, setup))
            else:
                with torch.no_grad():
                    hidden[:] = [layer(x) for x in hidden]
            tick()
        if findings:
            yield concatenate(findings)


def _embed(layer: Layer1, prompt: Prompt, fillers: Sequence[Tensor]) -> list[Tensor]:
    texts = [prompt.ids, *(prompt.filled(filler) for filler in fillers)]
    return [layer.embed(ids[None].to(layer.Output.weight.device)) for ids in texts]


def _measure_prompt(layer: Layer1, prompt: Prompt, hidden: list[Tensor], setup: Setup) -> LayerFindings:
    """The findings of one prompt; `hidden` is replaced by the layer's outputs."""
    measurement = None
    for index, count in enumerate([0, *(filler.count for filler in setup.fillers)]):
        with torch.no_grad():
            hidden[index], trace = layer(hidden[index], trace=True)
        if measurement is None:
            experts = layer.options.mixture.experts if layer.options.mixture else 0
            measurement = PromptMeasurement(layer.options.layer, trace, prompt, setup, experts)
        else:
            measurement.add(trace, count)
    assert measurement is not None
    return measurement.findings()


class PromptMeasurement:
    """The findings of one prompt in one layer, from a trace without filler and then one with each filler in turn.

    experts: the number of the layer's routed experts; 0 in a dense layer.
    """

    def __init__(self, layer: int, trace: Trace, prompt: Prompt, setup: Setup, experts: int) -> None:
        self.layer, self.prompt, self.setup, self.experts = layer, prompt, setup, experts
        self.heads = trace["Attention_weights"].shape[1]
        self.without = self._view(trace, 0)
        self.halfwidth = near_zero_halfwidth(self.without.activated)
        self.filled: list[dict[str, FloatArray]] = []
        self.example = self.without

    def add(self, trace: Trace, count: int) -> None:
        """Measures the prompt with the next filler."""
        filled = self._view(trace, count)
        if len(self.filled) == self.setup.example():
            self.example = filled
        self.filled.append(measure_filler(self.without, filled, self.halfwidth, self.heads))

    def findings(self) -> LayerFindings:
        """The findings, after all fillers."""
        without, routed = self.without, 0 if self.without.experts is None else self.without.experts.shape[1]
        width = without.activated.shape[1] // (routed or 1)
        arms = [self._arm(policy, width) for policy in self.setup.policies]
        treated = [near_zero_after(without, self.halfwidth, arm, self.prompt.insert_at) for arm in arms]
        gate, moved = measure_gate(without, self.halfwidth), [int(arm.report()["moved"]) for arm in arms]
        figures = (without.received, self.example.received), (without.attention, self.example.attention)
        return LayerFindings(self.layer, gate, self.filled, treated, moved, width, routed, *figures, self.heads)

    def _arm(self, policy: Policy, width: int) -> ARM:
        arguments = {"width": width, "layer": self.layer, "noise": Noise(self.setup.seed)}
        return ExpertsArm(policy, experts=self.experts, **arguments) if self.experts else ARM(policy, **arguments)

    def _view(self, trace: Trace, count: int) -> View:
        try:
            measured = view(trace, self.prompt, count)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"explain: layer {self.layer}: {error}") from error
        if not measured.activated.isfinite().all():
            advice = "try another dtype, such as float32"
            raise ArgumentError(f"explain: layer {self.layer} returned NaN or Inf; {advice}")
        return measured


def concatenate(prompts: Sequence[LayerFindings]) -> LayerFindings:
    """Joins the findings of all prompts, in order; the data for the figures are the first prompt's."""

    def join(parts: Sequence[dict[str, FloatArray]]) -> dict[str, FloatArray]:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    filled = [join(parts) for parts in zip(*(prompt.filled for prompt in prompts), strict=True)]
    treated = [np.concatenate(parts) for parts in zip(*(prompt.treated for prompt in prompts), strict=True)]
    moved = [sum(counts) for counts in zip(*(prompt.moved for prompt in prompts), strict=True)]
    without = join([prompt.without for prompt in prompts])
    return replace(prompts[0], without=without, filled=filled, treated=treated, moved=moved)
