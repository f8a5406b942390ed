"""Reads a text in a loaded model: its tokens, and what one layer computes for them."""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from armlet.attachment.sites import GATE, UP, UnsupportedModelError, find_layers
from armlet.checkpoints.given import NamedModel, check_tokens, known_tokens
from armlet.inspection.measure import gate_values
from armlet.inspection.records import RoutedGates
from armlet.inspection.synthetic import SYNTHETIC_AXES, synthetic
from armlet.layer.capture import Trace, capturing, experts_of
from armlet.layer.decoder import Layer1
from armlet.layer.options import activation_label
from armlet.playground.setting import NO_EXPERT, TEXT, Setting
from armlet.prompts.questions import encode_prompt
from armlet.redistribution.errors import ArgumentError, ArmletError

LONGEST_PROMPT = 256  # tokens, with those of the chat template: what two cores redistribute and draw at once
SAMPLE_TOKENS = 24  # of 4,096 values each, so that a sample is drawn as quickly as a text
KEPT_READINGS, KEPT_LAYERS = 4, 2  # of the texts and the layers read last
DENSE_TENSORS = ("gate", "activation")  # of a trace of the model itself, as its figure's code names them
SAME_LAYER = 0.02
"""Largest mean difference between the gate in the model and in `Layer1`, relative to the gate's mean size. Rounding in
bfloat16 gives 0.004."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What one layer computes for a text, or a synthetic sample; on the CPU, never changed."""

    words: list[str]  # the text of each token; empty for a sample
    ids: Tensor | None  # `[1, s]`, None for a sample
    layer: int | None  # None for a sample
    gate: Tensor | RoutedGates  # the activated gate, `[s, f]`, in a mixture a row for each token in each chosen expert
    up: Tensor | None  # the output of up in the same rows; None for a sample
    experts: int = 0  # number of routed experts; 0 in a dense layer
    activation: str = "SiLU"
    axis: tuple[float, float] | None = None  # the smallest range of the figure
    decoder: Layer1 | None = None  # the layer as the figure's code; None if it does not cover the model
    x: Tensor | None = None  # `[1, s, d]`, the input of the layer
    not_covered: str = ""  # why there is no decoder
    tensors: dict[str, Tensor] = field(default_factory=dict)  # of the layer without ARM, by name, as far as known

    @property
    def values(self) -> Tensor:
        """The activated gate `[rows, f]`."""
        return rows_of(self.gate)

    @property
    def positions(self) -> Tensor:
        """The token of each row, `[rows]`."""
        return torch.arange(len(self.gate)) if isinstance(self.gate, Tensor) else self.gate.positions


class Reader:
    """Reads texts in one model. Several threads may use it: the model runs for one of them at a time."""

    def __init__(self, opened: NamedModel) -> None:
        self.opened, self._lock = opened, RLock()
        self._read = lru_cache(KEPT_READINGS)(self._read_text)
        self._copied = lru_cache(KEPT_LAYERS)(self._copy)
        self.layer_count = len(find_layers(opened.model, "all"))
        self._experts = self._experts_of_layers()
        self.expert_count = max(self._experts.values())
        """The largest number of routed experts in a layer; 0 in a dense model."""

    def _experts_of_layers(self) -> dict[int, int]:
        """The number of routed experts of each layer with a gated MLP; raises UnsupportedModelError if none has one."""
        counts, refusals = dict[int, int](), list[ArmletError]()
        for layer in range(self.layer_count):
            try:
                counts[layer] = experts_of(self.opened.model, layer)
            except ArmletError as error:
                refusals.append(error)
        if not counts:
            raise refusals[0]
        return counts

    def has_experts(self, setting: Setting) -> bool:
        """Whether ARM acts in routed experts."""
        return bool(self.expert_count if setting.everywhere else self._experts.get(setting.layer))

    def has_gate(self, layer: int) -> bool:
        """Whether a layer has a gated MLP that ARM can act in."""
        return layer in self._experts

    @contextmanager
    def running(self) -> Any:
        """The model, for one thread at a time, without gradients."""
        with self._lock, torch.no_grad():
            yield self.opened.model

    def tokens(self, text: str) -> Tensor:
        """The tokens `[1, s]` of a text as a user's turn; raises ArgumentError if it has none, or too many."""
        if not text.strip():
            raise ArgumentError("text: it is empty; write a question")
        ids = encode_prompt(self.opened.tokenizer, text.strip())
        check_tokens(self.opened.tokenizer, ids[0].tolist(), known_tokens(self.opened.model), "text")
        if ids.shape[1] > LONGEST_PROMPT:
            problem = f"it has {ids.shape[1]:,} tokens, and this page takes {LONGEST_PROMPT} at most"
            raise ArgumentError(f"text: {problem}; shorten it")
        return ids

    def read(self, setting: Setting) -> Reading:
        """What the layer of a setting computes for its text, in the expert that it names.

        Raises ArgumentError for a text or layer that is not there, and UnsupportedModelError as `attach` does.
        """
        if setting.sample != TEXT:
            return read_sample(setting.sample, setting.seed)
        self.check(setting)
        reading = self._read(setting.text, setting.layer)
        return reading if setting.expert == NO_EXPERT else in_expert(reading, setting.expert)

    def check(self, setting: Setting) -> None:
        """Raises ArgumentError if the model has no such layer, or no such expert."""
        if setting.layer >= self.layer_count:
            raise ArgumentError(f"layer: expected one from 0 to {self.layer_count - 1}, found {setting.layer}")
        if setting.expert >= self.expert_count:
            expected = f"one of {self.expert_count} experts" if self.expert_count else "all, as no layer has experts"
            raise ArgumentError(f"expert: expected {expected}, found {setting.expert}")

    def _read_text(self, text: str, layer: int) -> Reading:
        ids = self.tokens(text)
        words = [str(self.opened.tokenizer.decode([token])) for token in ids[0].tolist()]
        with self.running() as model:
            experts, label = experts_of(model, layer), activation_label(model.config)
            trace, x = self._capture(ids, layer, GATE)
            gate, (decoder, why) = gate_values(trace, GATE), self._copied(layer)
            tensors = {} if decoder is None else decoder(x, trace=True)[1]
            if decoder is not None and not _same(gate_values(tensors, GATE), gate):
                decoder, why = None, "it computes something else in this model than its configuration says"
            # In float32 the code's up is the model's; in half precision it is rounded otherwise.
            up_trace = tensors if decoder and rows_of(gate).dtype == torch.float32 else self._capture_up(ids, layer)
        if decoder is None:
            tensors = {name: trace[name] for name in DENSE_TENSORS if name in trace}
            tensors |= {} if "experts" in up_trace else up_trace
        up = rows_of(gate_values(up_trace, UP)) if up_trace else None
        known = {"decoder": decoder, "x": x, "not_covered": why, "tensors": tensors}
        return Reading(words, ids, layer, gate, up, experts, label, None, **known)

    def _capture(self, ids: Tensor, layer: int, site: str) -> tuple[Trace, Tensor]:
        """The layer's trace at a site, and its input `[1, s, d]`."""
        model, inputs = self.opened.model, list[Tensor]()
        ((_, module),) = find_layers(model, [layer])

        def store(_module: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Any]) -> None:
            inputs.append(arguments[0] if arguments else named["hidden_states"])

        with capturing(model, [layer], site=site) as run, ExitStack() as stack:
            stack.callback(module.register_forward_pre_hook(store, with_kwargs=True).remove)
            trace = run(ids)[layer]
        return {name: tensor.cpu() for name, tensor in trace.items()}, inputs[0].reshape(1, ids.shape[1], -1).cpu()

    def _capture_up(self, ids: Tensor, layer: int) -> Trace:
        """The layer's trace at up; empty where `attach` cannot reach it."""
        try:
            return self._capture(ids, layer, UP)[0]
        except UnsupportedModelError:
            return {}

    def _copy(self, layer: int) -> tuple[Layer1 | None, str]:
        """The layer as the figure's code, or None and the reason."""
        try:
            return Layer1.from_model(self.opened.model, layer).cpu(), ""
        except ArmletError as error:
            return None, str(error).partition(", only ")[0].removeprefix("model: ")

    def trace(self, reading: Reading, make_arm: Callable[[int], nn.Module]) -> Trace:
        """Every tensor of the layer's figure with ARM in its MLP, in a mixture in all experts, as `attach` puts it.

        make_arm: makes the module for a width.
        """
        decoder = reading.decoder
        if decoder is None:
            return reading.tensors
        mlps = {decoder: decoder.options.width}
        if decoder.shared is not None and decoder.options.mixture:
            mlps |= {decoder.shared: decoder.options.mixture.shared_width}
        with self._lock, torch.no_grad():
            try:
                for mlp, width in mlps.items():
                    mlp.ARM = make_arm(width)
                return decoder(reading.x, trace=True)[1]
            finally:
                for mlp in mlps:
                    mlp.ARM = nn.Identity()


@lru_cache(KEPT_READINGS)
def read_sample(name: str, seed: int) -> Reading:
    """A synthetic sample in place of a layer's gate."""
    return Reading(
        [], None, None, synthetic(name, seed=seed, tokens=SAMPLE_TOKENS), None, axis=SYNTHETIC_AXES.get(name)
    )


@lru_cache(KEPT_READINGS)
def in_expert(reading: Reading, expert: int) -> Reading:
    """The rows of one expert; raises ArgumentError if there is no such expert, or no token goes to it."""
    if isinstance(reading.gate, Tensor):
        raise ArgumentError(f"expert: layer {reading.layer} has no experts; choose all")
    rows = reading.gate.experts == expert
    if not rows.any():
        going = ", ".join(str(number) for number in reading.gate.experts.unique().tolist())
        raise ArgumentError(f"expert: no token of this text goes to expert {expert}; choose one of {going}")
    gate = RoutedGates(*(part[rows] for part in (reading.gate.values, reading.gate.positions, reading.gate.experts)))
    return replace(reading, gate=gate, up=None if reading.up is None else reading.up[rows])


def rows_of(gate: Tensor | RoutedGates) -> Tensor:
    """The values of a gate, `[rows, f]`."""
    return gate if isinstance(gate, Tensor) else gate.values


def _same(first: Tensor | RoutedGates, second: Tensor | RoutedGates) -> bool:
    a, b = rows_of(first), rows_of(second)
    return a.shape == b.shape and bool((a.float() - b.float()).abs().mean() <= SAME_LAYER * b.float().abs().mean())
