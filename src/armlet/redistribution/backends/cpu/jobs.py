"""What a loop over rows works on, in memory that machine code reads: the addresses and numbers of a call."""

from ctypes import Structure, addressof, c_double, c_int64
from typing import ClassVar

import numpy as np

from armlet.redistribution.backends.cpu.compiled import Entry, add_to, array, compiled, run_loop


class Job(Structure):
    """The fields of all loops, in the order of their use; each loop reads its own, and what is not given is 0.

    Args:
        next: the first row that nobody has taken.
        count: how many rows there are.
        chunk: so many are taken at a time.
        members: how many threads have taken rows.
        loop: its address.
        scratch: of the first thread; the others' follow, `room` bytes each.
        results: four numbers that the loop adds to, lowers or raises.
        source, target, real, strengths, moved, passed: tensors by address, 0 for none.
        dtype, length: of a row.
        strength: of all rows, where `strengths` is 0.
        draws, base, step, positions, uniforms: where the draws of `outward_rows` come from.
        band, ceiling, low, high, proportion, add, of_magnitude: of `Outward`; a proportion below 0 is none.
        knee, log: of `Inward`.
        spread: of `Transport`.
        kind, middle, thresholds: of the keys that a pass over a long scope counts.
        limit, upper, lower: the statistics with which it writes.
    """

    _fields_: ClassVar = [
        *((name, c_int64) for name in ("next", "count", "chunk", "members", "loop", "scratch", "room")),
        ("results", c_int64 * 4),
        *((name, c_int64) for name in ("source", "target", "dtype", "length", "real", "strengths")),
        ("strength", c_double),
        *((name, c_int64) for name in ("moved", "passed", "draws", "base", "step", "positions", "uniforms")),
        *((name, c_double) for name in ("band", "ceiling", "low", "high", "proportion")),
        *((name, c_int64) for name in ("add", "of_magnitude")),
        ("knee", c_double),
        ("log", c_int64),
        ("spread", c_double),
        ("kind", c_int64),
        ("middle", c_double),
        ("thresholds", c_int64 * 4),
        ("limit", c_int64),
        *((name, c_double) for name in ("upper", "lower")),
    ]

    kept: tuple[object, ...] = ()
    """What the addresses belong to, which outlives a thread that goes on where the call was interrupted."""

    @property
    def address(self) -> int:
        """For machine code."""
        return addressof(self)


LAYOUT = np.dtype(Job)
NEXT, MEMBERS, RESULTS = Job.next.offset, Job.members.offset, Job.results.offset


@compiled
def job_at(address):
    """The fields of the job at an address."""
    return array(address, 1, LAYOUT)[0]


def _take_part(address):  # type: ignore[no-untyped-def]
    job = job_at(address)
    first = add_to(address + NEXT, job.chunk)
    if first >= job.count:
        return
    scratch = job.scratch + job.room * add_to(address + MEMBERS, 1)
    while first < job.count:
        run_loop(job.loop, first, min(first + job.chunk, job.count), address, scratch)
        first = add_to(address + NEXT, job.chunk)


take_part = Entry(_take_part, 1)
"""What each thread does with the job at an address: takes rows as long as there are some.

A thread whose core is busy with something else takes few, where a fixed half would be waited for.
"""


def _take_one(address, source, target, positions, real, base, step, counts):  # type: ignore[no-untyped-def]
    job = job_at(address)
    job.source, job.target, job.positions, job.real = source, target, positions, real
    job.base, job.step = base, step
    run_loop(job.loop, 0, 1, address, job.scratch)
    if counts != 0:
        add_to(counts, 1)
        add_to(counts + 8, np.int64(real == 0 or array(real, 1, np.uint8)[0] != 0))
        add_to(counts + 16, job.results[0])
        add_to(counts + 24, job.results[1] & 1)


take_one = Entry(_take_one, 8)
"""A job's one row, with what changes from one row to the next of a model that decodes.

`counts` is the address of calls, tokens, values moved and rows passed so far, which it adds to; or 0.
"""
