"""The activated gate of every layer for one text, measured in one run of the model."""

from functools import lru_cache

import torch

from armlet.attachment.sites import GATE
from armlet.inspection.measure import gate_values
from armlet.layer.capture import capturing
from armlet.playground.reading import KEPT_READINGS, Reader
from armlet.redistribution.outward import near_zero_halfwidth
from armlet.statistics.shape import measure


class EveryLayer:
    """Measures the layers of a reader's model."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.measures = lru_cache(KEPT_READINGS)(self._measures)

    def _measures(self, text: str) -> list[dict[str, float] | None]:
        """`shape.measure` of each layer's gate, without ARM; None for a layer without one, or with NaN or Inf."""
        ids = self.reader.tokens(text)
        with self.reader.running() as model:
            readable = [layer for layer in range(self.reader.layer_count) if self.reader.has_gate(layer)]
            with capturing(model, readable, site=GATE) as run:
                traces = run(ids)
        measured: list[dict[str, float] | None] = [None] * self.reader.layer_count
        for layer in readable:
            gate = gate_values(traces.pop(layer), GATE)
            values = (gate if isinstance(gate, torch.Tensor) else gate.values).float().cpu()
            if values.isfinite().all():
                measured[layer] = measure(values, halfwidth=near_zero_halfwidth(values))
        return measured
