"""`Cut` for one row: finds the near-zero set as `Outward` does, then writes the row in one pass."""

import numpy as np

from armlet.redistribution.backends.cpu.compiled import NativeFunction, array
from armlet.redistribution.backends.cpu.jobs import job_at, open_row, strength_and_largest
from armlet.redistribution.backends.cpu.outward import upper_limit
from armlet.redistribution.backends.cpu.rows import largest_magnitude
from armlet.redistribution.backends.cpu.selection import ABSOLUTE, bits_of, float_of
from armlet.redistribution.functions import part_of_the_way


@NativeFunction
def move_cut(address, row, values, out, lowest, highest, work):
    """Moves a row by `Cut`. The limit is above the bits of the largest moving magnitude, as in `upper_limit`."""
    job = job_at(address)
    bits, results, signed, magnitudes, scratch = open_row(job, values, out, work)
    if job.threshold >= 0:
        limit = np.int64(bits_of(np.float32(job.threshold))) + 1
    else:
        limit = upper_limit(bits, job.length, signed, magnitudes, scratch, largest_magnitude(lowest, highest), job)
    strength, moved = strength_and_largest(job, row)[0], 0
    for i in range(job.length):
        near = np.int32(bits[i] & np.int32(ABSOLUTE)) < limit
        value = np.float32(part_of_the_way(float_of(bits[i]), np.float32(0), strength))
        results[i] = bits_of(value) if near else bits[i]
        moved += near
    array(job.moved, row + 1, np.int64)[row] = moved
