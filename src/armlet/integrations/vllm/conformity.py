"""Checks in vLLM whether dense gated MLPs apply the clamps that the configuration names."""

# pyright: reportMissingImports=false

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor, nn

from armlet.attachment.sites import ROUTED, SHARED, is_mixture, outside_attention
from armlet.bounds.conform_checks import PartCheck
from armlet.bounds.conform_forced import Forced, NotForcedError, replaced_outputs
from armlet.bounds.conform_parts import DENSE, Clamp, Part, configured_clamps, layer_parts
from armlet.bounds.conform_probe import ClampTrial, SiteVerdict, try_clamp
from armlet.bounds.conform_result import Conformity
from armlet.checkpoints.identity import model_folder
from armlet.integrations.vllm.offline import open_llm
from armlet.integrations.vllm.settings import SETTING_KEY
from armlet.integrations.vllm.sites import decoder_layers
from armlet.presentation.terminal import working
from armlet.redistribution import presets
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from vllm.v1.worker.gpu_worker import Worker

REPORT = f"{SETTING_KEY}_conform"
"""The worker's method, for `collective_rpc`."""

FUSED_EXPERTS = "vLLM computes the experts of a mixture in one step, in which no values can be set"
NO_LAYER = "no rank has this layer"
SMALL = {"enforce_eager": True, "skip_tokenizer_init": True, "kv_cache_memory_bytes": 2**30, "max_model_len": 64}

RankClamps = Sequence[tuple[int, str, float, float]]
"""Layer, kind of experts ("" for all), limit, and the gate where it begins."""


class RankTrial(TypedDict):
    """What a rank found out about one part; plain, since it is sent between processes."""

    layer: int
    kind: str
    verdicts: list[dict[str, Any]]
    reason: str


def check_vllm(model: str, *, dtype: str = "auto") -> Conformity:
    """Loads a folder or hub id in vLLM, and checks its dense MLPs and shared experts as `armlet.bounds.conform` does.

    Routed experts are not verified. Nothing is generated, so there are no largest values.

    Raises:
        ArgumentError: the configuration has a limit that is not known.
        EngineError: vLLM is not installed, or cannot load the model.
    """
    folder = model_folder(model)
    clamps = configured_clamps(presets.trained(_configuration(folder)))
    sent = [(layer, kind, *clamp) for (layer, kind), clamp in clamps.items()]
    with working(f"loading {model} in vLLM"), open_llm(str(folder), False, dtype=dtype, **SMALL) as engine:
        ranks: list[list[RankTrial]] = engine.collective_rpc(REPORT, args=(sent,))
        kept = str(engine.model_config.dtype).removeprefix("torch.")
    return Conformity(model, kept, "vllm", None, 0, 0, joined(ranks, clamps), False)


def _configuration(folder: Path) -> object:
    """The configuration, with the defaults of its class if transformers knows it."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError):
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ArgumentError(f"model: {folder} has no configuration in its config.json") from None
        return content


def joined(ranks: Sequence[Sequence[RankTrial]], clamps: Mapping[tuple[int, str], Clamp]) -> list[PartCheck]:
    """The results of all ranks by layer; ranks that split the width have the same."""
    trials = {(trial["layer"], trial["kind"]): trial for rank in ranks for trial in rank}
    for layer, kind in clamps:
        if not any(place == layer for place, _ in trials):
            trials[layer, kind or DENSE] = RankTrial(layer=layer, kind=kind or DENSE, verdicts=[], reason=NO_LAYER)
    return [_check(trial, clamps) for _, trial in sorted(trials.items())]


def _check(trial: RankTrial, clamps: Mapping[tuple[int, str], Clamp]) -> PartCheck:
    layer, kind = trial["layer"], trial["kind"]
    clamp = clamps.get((layer, kind), clamps.get((layer, "")))
    verdicts = tuple(SiteVerdict(**verdict) for verdict in trial["verdicts"])
    return PartCheck(layer, kind, clamp, verdicts, trial["reason"], {}, {})


# --- in a worker ----------------------------------------------------------------------------------------------------


def conform_rank(worker: "Worker", sent: RankClamps) -> list[RankTrial]:
    """Tries the clamps in the layers on this rank."""
    runner = worker.model_runner
    clamps = {(layer, kind): Clamp(limit, gate) for layer, kind, limit, gate in sent}
    return rank_trials([*decoder_layers(runner.get_model())], clamps, runner.model_config.dtype)


def rank_trials(
    layers: Sequence[nn.Module], clamps: Mapping[tuple[int, str], Clamp], dtype: torch.dtype
) -> list[RankTrial]:
    """The parts of decoder layers; layers of other ranks have none. All ranks that split a layer run this together."""
    local = [(index, layer) for index, layer in enumerate(layers) if any(True for _ in layer.parameters())]
    parts = [part for index, layer in local for part in layer_parts(index, [*_gated_modules(layer)], clamps)]
    return [_rank_trial(part, dtype) for part in parts]


def _rank_trial(part: Part, dtype: torch.dtype) -> RankTrial:
    trial = _trial(part, part.clamp, dtype) if part.clamp else ClampTrial((), "")
    verdicts = [{**vars(verdict)} for verdict in trial.verdicts]
    return RankTrial(layer=part.layer, kind=part.kind, verdicts=verdicts, reason=trial.reason)


def _trial(part: Part, clamp: Clamp, dtype: torch.dtype) -> ClampTrial:
    if part.kind == ROUTED:
        return ClampTrial((), FUSED_EXPERTS)
    if part.module is None:
        return ClampTrial((), "vLLM's layer has no gated MLP with gate and up in one linear")
    return try_clamp(partial(ForcedFused, part.module, dtype), clamp)


def _gated_modules(layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The kind and the module of each gated MLP of a layer; of a mixture, its experts."""
    modules = outside_attention(layer)
    mixtures = [module for module in modules if is_mixture(module)]
    yield from ((ROUTED, module.get_submodule("experts")) for module in mixtures[:1])
    kind = SHARED if mixtures else DENSE
    yield from ((kind, module) for module in modules if _merged(module) is not None)


def _merged(mlp: nn.Module) -> Any:
    """The linear of gate and up of an MLP; None if it has none, or no down from their width."""
    linears: list[Any] = [child for child in mlp.children() if hasattr(child, "input_size")]
    merged = [child for child in linears if _has_halves(getattr(child, "output_sizes", ()))]
    if len(merged) != 1:
        return None
    down = merged[0].output_sizes[0], merged[0].input_size
    return merged[0] if any((child.input_size, child.output_size) == down for child in linears) else None


def _has_halves(sizes: Sequence[int]) -> bool:
    return len(sizes) == 2 and sizes[0] == sizes[1]


class ForcedFused(Forced):
    """A gated MLP of vLLM, of which a hook replaces the output of gate and up on this rank."""

    experts, by_column = 1, False

    def __init__(self, mlp: nn.Module, dtype: torch.dtype) -> None:
        self.mlp, self.dtype, self.merged = mlp, dtype, _merged(mlp)
        if self.merged is None:
            raise NotForcedError(f"{type(mlp).__name__} has no linear of gate and up")
        self.width: int = self.merged.output_sizes[0] // getattr(self.merged, "tp_size", 1)

    def __call__(self, raw: Tensor, experts: Sequence[int] | None = None) -> Tensor:
        """See `Forced`."""
        device = next(self.merged.parameters()).device
        hidden = torch.zeros(len(raw), self.merged.input_size, dtype=self.dtype, device=device)
        with replaced_outputs([self.merged], raw):
            output = self.mlp(hidden)
        return (output[0] if isinstance(output, tuple) else output).reshape(1, len(raw), -1)
