"""Times of ARM's operations against a copy, SiLU·up alone, the published algorithm and a compiled plain path."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import operations
from benchmarks.gpu.form import DTYPES, Form
from benchmarks.gpu.operations import COMPILED, COPY, FUSED, LITERAL, PLAIN_SCOPES, REFERENCE, Work
from benchmarks.gpu.section import Section
from benchmarks.gpu.timing import Job, eager_job, graph_job, in_turns, spread

HOW = {
    "clock": "CUDA events around a CUDA graph that repeats the call; median and quartiles of interleaved turns",
    "graph": "false: launched by Python call by call, because the call waits for the GPU; its launches count",
    "cache": "warm: the same input in every repeat, so that up to the L2 cache's size it is read from there",
    "copy": "cudaMemcpyAsync within the GPU of as many bytes as a fused call moves: three widths per token",
    "share": "of the copy's bandwidth: bytes that a fused call must move (three widths per token) per second",
}
UNITS = {"seconds": "s", "more than silu·up": "s", "share of the copy": "1"}
FUSED_GROUP = "fused"
EXTRA_SECONDS, COMPILE_SECONDS = 4.0, 25.0
"""The time that must be left for a case of plain PyTorch, and for one that is compiled."""


def run(section: Section, form: Form) -> None:
    """Times all operations, first those that serve a model."""
    section.results |= {"how": HOW, "units": UNITS, "cases": []}
    shapes = [(tokens, width, dtype) for width, dtype, tokens in product(form.widths, DTYPES, form.tokens)]
    for tokens, width, dtype in shapes:
        _case(section, form, (tokens, width, dtype), FUSED_GROUP, _fused_jobs, 1.0)
    for tokens, width, dtype in shapes:
        _case(section, form, (tokens, width, dtype), "plain PyTorch", _plain_jobs, EXTRA_SECONDS)
    width = form.widths[0]
    for tokens in (form.tokens[0], max(form.tokens)):
        jobs = partial(_compiled_jobs, "eager" if form.is_small else "inductor")
        seconds = 0.0 if form.is_small else COMPILE_SECONDS
        _case(section, form, (tokens, width, "bfloat16"), COMPILED, jobs, seconds)


Jobs = Iterator[tuple[str, Callable[[], Job]]]


def _case(
    section: Section,
    form: Form,
    shape: tuple[int, int, str],
    group: str,
    jobs_of: Callable[[Tensor], Jobs],
    seconds: float,
) -> None:
    """Times a group of operations for one shape, in turns with a copy and SiLU·up; records them."""
    tokens, width, dtype = shape
    name = f"{group}: {tokens:,} tokens × {width:,}, {dtype}"
    if not section.fits(name, seconds):
        return
    with section.case(name), torch.no_grad():
        gate_up = operations.inputs(tokens, width, DTYPES[dtype], form.device)
        jobs: dict[str, Job] = {}
        for label, make in [*_references(gate_up), *jobs_of(gate_up)]:
            with section.case(f"{name}: {label}"):
                jobs[label] = make()
        times = in_turns(jobs, form.turns if group == FUSED_GROUP else max(2, form.turns // 3))
        moved = 3 * tokens * width * gate_up.element_size()
        row = {"tokens": tokens, "width": width, "dtype": dtype, "group": group, "bytes": moved}
        section.results["cases"].append(row | {"operations": _rows(times, jobs)})
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _rows(times: dict[str, list[float]], jobs: dict[str, Job]) -> dict[str, dict[str, Any]]:
    """Each operation's seconds, and how they compare with the copy and with SiLU·up in the same turn."""
    return {
        name: {
            "seconds": spread(values),
            "graph": jobs[name].in_graph,
            "more than silu·up": spread(_pairs(values, times[REFERENCE], lambda ours, other: ours - other)),
            "share of the copy": spread(_pairs(values, times[COPY], lambda ours, other: other / ours)),
        }
        for name, values in times.items()
    }


def _pairs(ours: list[float], others: list[float], compare: Callable[[float, float], float]) -> list[float]:
    return [compare(*pair) for pair in zip(ours, others, strict=True)]


def _in_graph(work: Work) -> Callable[[], Job]:
    return partial(graph_job, work)


def _references(gate_up: Tensor) -> Jobs:
    yield COPY, _in_graph(operations.copy(gate_up))
    yield REFERENCE, _in_graph(operations.reference(gate_up))


def _fused_jobs(gate_up: Tensor) -> Jobs:
    for name, policy in FUSED.items():
        yield name, _in_graph(operations.fused(gate_up, policy))


def _plain_jobs(gate_up: Tensor) -> Jobs:
    for name, (policy, scope) in PLAIN_SCOPES.items():
        yield name, _in_graph(operations.in_plain_pytorch(gate_up, policy, scope))
    yield LITERAL, partial(eager_job, operations.as_published(gate_up))


def _compiled_jobs(backend: str, gate_up: Tensor) -> Jobs:
    yield COMPILED, _in_graph(operations.compiled(gate_up, FUSED["outward"], backend))
