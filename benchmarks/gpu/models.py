"""Decoding and prefill of whole models with random weights, without ARM, with it in layer 0 and in all layers."""

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from armlet.attachment.attach import attach
from armlet.redistribution.inward import Inward
from armlet.redistribution.outward import Outward
from benchmarks.gpu.decoding import StaticDecoder
from benchmarks.gpu.form import Form
from benchmarks.gpu.recording import WARM_UPS, recorded
from benchmarks.gpu.section import Section
from benchmarks.gpu.timing import Job, in_turns, spread

HOW = {
    "weights": "random, bfloat16, initialised on the device from the configuration alone",
    "decoding": "greedy, a static cache, a step recorded in a CUDA graph; CUDA events around the replays of some steps",
    "prefill": "launched by Python, as transformers does it; CUDA events",
    "with ARM": "attach(): a Triton program between SiLU and the product with up, not fused with them, and counters",
    "ratios": "of the time without ARM in the same turn; median and quartiles",
}
UNITS = {"seconds": "s", "tokens per second": "1/s", "time / without": "1"}

QWEN = {
    "vocab_size": 152_064,
    "hidden_size": 3_584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": False,
}
MIXTRAL = {
    "vocab_size": 32_000,
    "hidden_size": 4_096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 32_768,
    "sliding_window": None,
}
TINY = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen2.5-7B": ("Qwen2Config", QWEN),
    "Mixtral 8x7B": ("MixtralConfig", MIXTRAL),
}
MEMORY_SHARE = 0.75
"""The share of the free memory that weights may take; a model that takes more gets fewer layers."""

WITHOUT = "without"
VARIANTS: dict[str, dict[str, Any] | None] = {
    WITHOUT: None,
    "outward, layer 0": {"policy": Outward(), "layers": 0},
    "outward, all layers": {"policy": Outward(), "layers": "all"},
    "inward with a limit, all layers": {"policy": Inward(limit=4.0, curve="clip"), "layers": "all"},
}
MODEL_SECONDS, WORK_SECONDS = 20.0, 8.0
"""The time that must be left for a model, and for one of its measurements."""


def run(section: Section, form: Form) -> None:
    """Measures both models, one after the other, each if its weights fit."""
    section.results |= {"how": HOW, "units": UNITS, "models": []}
    for name, (config_class, settings) in SHAPES.items():
        if section.fits(name, 0.0 if form.is_small else MODEL_SECONDS):
            with section.case(name), torch.no_grad():
                _measure(section, form, name, config_class, settings | (TINY if form.is_small else {}))
        gc.collect()  # frees the model before the next
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _measure(section: Section, form: Form, name: str, config_class: str, settings: dict[str, Any]) -> None:
    layers = settings["num_hidden_layers"]
    fitting = layers if form.is_small else min(layers, _fitting_layers(settings))
    model = _model(config_class, settings | {"num_hidden_layers": fitting}, form.device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    record: dict[str, Any] = {"model": f"{name}-shaped", "layers": fitting, "layers of the original": layers}
    record |= {"parameters": parameters, "work": []}
    section.results["models"].append(record)
    section.write()
    for work, jobs_of in _work(form):
        if section.fits(f"{name}: {work}", 0.0 if form.is_small else WORK_SECONDS):
            with section.case(f"{name}: {work}"):
                record["work"].append({"work": work, **jobs_of(model, form)})


def _fitting_layers(settings: dict[str, Any]) -> int:
    """How many layers of bfloat16 weights fit into the free memory."""
    free, _ = torch.cuda.mem_get_info()
    experts = settings.get("num_local_experts", 1)
    hidden = settings["hidden_size"]
    embeddings = 2 * settings["vocab_size"] * hidden
    layer = 3 * experts * hidden * settings["intermediate_size"] + 4 * hidden * hidden
    return max(1, int((free * MEMORY_SHARE / 2 - embeddings) / layer))


def _model(config_class: str, settings: dict[str, Any], device: str) -> nn.Module:
    import transformers

    config = getattr(transformers, config_class)(**settings)
    with torch.device(device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    if "num_local_experts" in settings:
        model.set_experts_implementation("grouped_mm")  # the eager one waits for the routing
    return model.eval().requires_grad_(False)


def _work(form: Form) -> Iterator[tuple[str, Any]]:
    first, *others = form.batches
    yield f"decoding, batch {first}", partial(_decoding, batch=first)
    yield f"prefill of {form.prefill:,} tokens", _prefill
    for batch in others:
        yield f"decoding, batch {batch}", partial(_decoding, batch=batch)


def _ids(model: Any, batch: int, length: int) -> Tensor:
    device = next(model.parameters()).device
    return torch.randint(2, model.config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(0)).to(
        device
    )


def _attached(model: nn.Module, variant: dict[str, Any] | None) -> AbstractContextManager[Any]:
    return nullcontext() if variant is None else attach(model, **variant)


def _decoding(model: nn.Module, form: Form, batch: int) -> dict[str, Any]:
    decoder = StaticDecoder(model, _ids(model, batch, form.prompt), room=form.steps + WARM_UPS + 1)
    jobs: dict[str, Job] = {}
    attachments = []  # whose buffers the recordings read
    for name, variant in VARIANTS.items():
        decoder.rewind()
        with _attached(model, variant) as attachment:
            step = recorded(decoder.step)
        attachments.append(attachment)
        jobs[name] = Job(
            partial(_repeat, step.replay, form.steps), form.steps, decoder.rewind, torch.cuda.is_available()
        )
    result = _rates(in_turns(jobs, form.turns), tokens=batch)
    _check_fired(attachments, form)
    return result


def _check_fired(attachments: list[Any], form: Form) -> None:
    """Raises RuntimeError if a recording did not run ARM, so that its time would be that of nothing."""
    replays = 1 if form.is_small else form.steps * form.turns  # the small form records nothing: ARM ran before detach()
    for attachment in attachments:
        for layer, counts in (attachment.report() if attachment else {}).items():
            if counts["calls"] < replays or not (counts["moved"] or attachment.policy.name == "inward"):
                raise RuntimeError(f"{attachment}: layer {layer} counts {counts}")


def _repeat(call: Any, count: int) -> None:
    for _ in range(count):
        call()


def _prefill(model: Any, form: Form) -> dict[str, Any]:
    ids = _ids(model, 1, form.prefill)
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    job = Job(lambda: model(input_ids=ids, use_cache=False, logits_to_keep=1))
    for _ in range(max(2, form.turns // 3)):
        for name, variant in VARIANTS.items():
            with _attached(model, variant):
                times[name] += in_turns({name: job}, 1)[name]
    return _rates(times, tokens=form.prefill)


def _rates(times: dict[str, list[float]], tokens: int) -> dict[str, Any]:
    """Seconds and tokens per second of each variant, and its time as a multiple of that without ARM."""
    rows = {}
    for name, values in times.items():
        ratios = [ours / other for ours, other in zip(values, times[WITHOUT], strict=True)]
        seconds = spread(values)
        rows[name] = {
            "seconds": seconds,
            "tokens per second": tokens / seconds["median"],
            "time / without": spread(ratios),
        }
    return {"variants": rows}
