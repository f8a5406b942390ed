"""Exact order statistics of one row by counting keys below four thresholds, which is fast on vector units.

Keys are int32 in the order of the floats: `signed_key`, or the bits of magnitudes. Most counts use only their upper 16
bits, `coarse`. A small sample of the row gives the first thresholds; the result depends only on exact counts.
"""

import numpy as np

from armlet.redistribution.backends.cpu.compiled import (
    LANES,
    SAMPLE,
    compiled,
    count_smaller,
    lanes_between,
    lowest_bit,
)

FROM_KEY, BELOW_FROM, UNTIL_KEY, BELOW_UNTIL, STALLED = range(5)
"""Fields of a search: FROM_KEY ≤ key < UNTIL_KEY, the counts below both, and whether progress is too slow."""

SEARCH = 5
MAX_COLLECTED, MAX_COMPARED = 48, 12
"""The most candidates that are collected from the row, and that are compared with each other."""

HALF = 16
MAGNITUDE, SIGNED, DEVIATION = range(3)
INFINITE = 0x7F800000
NONE = 1 << 40
ABSOLUTE = 0x7FFFFFFF


@compiled
def float_of(bits):
    """Returns the float32 with these bits."""
    word = np.int32(bits)
    return word.view(np.float32)


@compiled
def bits_of(value):
    """Returns the bits of a float32 as int32."""
    number = np.float32(value)
    return number.view(np.int32)


@compiled
def signed_key(bits):
    """Returns a key that ascends with the float, −0 before 0; this function is its own inverse."""
    return np.int32(bits ^ (np.int32(bits >> np.int32(31)) & np.int32(ABSOLUTE)))


@compiled
def key_of(bits, kind, middle):
    """Returns the key of a value, of its magnitude, or of the magnitude's deviation from `middle`."""
    if kind == SIGNED:
        return signed_key(bits)
    magnitude = np.int32(bits & np.int32(ABSOLUTE))
    if kind == MAGNITUDE:
        return magnitude
    return bits_of(np.float32(abs(np.float32(float_of(magnitude) - middle))))


@compiled
def value_of(key, kind):
    """Returns the float of a key, 0 for both zeros."""
    bits = signed_key(np.int32(key)) if kind == SIGNED else np.int32(key)
    return np.float32(float_of(bits) + np.float32(0))


@compiled
def absorb(search, threshold, below, rank):
    """Narrows the search by one count, without branches, which would be unpredictable."""
    is_lower_bound = below <= rank
    search[FROM_KEY] = max(search[FROM_KEY], threshold if is_lower_bound else search[FROM_KEY])
    search[BELOW_FROM] = max(search[BELOW_FROM], below if is_lower_bound else search[BELOW_FROM])
    search[UNTIL_KEY] = min(search[UNTIL_KEY], search[UNTIL_KEY] if is_lower_bound else threshold)
    search[BELOW_UNTIL] = min(search[BELOW_UNTIL], search[BELOW_UNTIL] if is_lower_bound else below)


@compiled
def narrow_by(search, keys, length, thresholds, offset, rank, shift, number):
    """Narrows the search by counting the keys below four thresholds; `offset` is added to each count.

    Keys omit their last `shift` bits. `number` is the type of the counters; narrower types are faster.
    """
    kind = keys.dtype.type
    first, second = kind(thresholds[0] >> shift), kind(thresholds[1] >> shift)
    third, fourth = kind(thresholds[2] >> shift), kind(thresholds[3] >> shift)
    a, b, c, d = number(0), number(0), number(0), number(0)
    for i in range(length):
        key = keys[i]
        a = number(a + number(key < first))
        b = number(b + number(key < second))
        c = number(c + number(key < third))
        d = number(d + number(key < fourth))
    absorb(search, thresholds[0], np.int64(a) + offset, rank)
    absorb(search, thresholds[1], np.int64(b) + offset, rank)
    absorb(search, thresholds[2], np.int64(c) + offset, rank)
    absorb(search, thresholds[3], np.int64(d) + offset, rank)


@compiled
def propose(search, rank, shift):
    """Returns four thresholds inside the search, multiples of 2^shift, close to the expected place of the rank.

    If the last round did not halve the search, the thresholds divide it into five parts.
    """
    low, high = search[FROM_KEY] >> shift, search[UNTIL_KEY] >> shift
    gap = high - low
    if gap <= 5 or search[STALLED]:
        step = max(gap, 5) / 5.0
        first, second, third, fourth = step, 2 * step, 3 * step, 4 * step
    else:
        inside = search[BELOW_UNTIL] - search[BELOW_FROM]
        centre = gap * ((rank - search[BELOW_FROM] + 0.5) / inside)
        margin = 1.0 + gap * (0.7 * np.sqrt(np.float64(inside)) + 0.5) / inside
        first, second, third, fourth = centre - margin, centre, centre + 1, centre + 1 + margin
    return (
        (low + min(max(np.int64(first), 1), gap - 1)) << shift,
        (low + min(max(np.int64(second), 1), gap - 1)) << shift,
        (low + min(max(np.int64(third), 1), gap - 1)) << shift,
        (low + min(max(np.int64(fourth), 1), gap - 1)) << shift,
    )


@compiled
def sampled_keys(coarse, length, rank, sample):
    """Returns four keys of a sample, half and two standard errors below and above the expected place of the rank."""
    stride = length // SAMPLE
    for i in range(SAMPLE):
        sample[i] = coarse[i * stride]
    place = rank * (SAMPLE / length)
    error = max(0.5, np.sqrt(place * (1 - place / SAMPLE)))
    ranks = (
        np.int16(min(max(np.int64(place - 2 * error), 0), SAMPLE - 1)),
        np.int16(min(max(np.int64(place - 0.5 * error), 0), SAMPLE - 1)),
        np.int16(min(max(np.int64(place + 0.5 * error + 1), 0), SAMPLE - 1)),
        np.int16(min(max(np.int64(place + 2 * error + 1), 0), SAMPLE - 1)),
    )
    count_smaller(sample.ctypes.data, sample.ctypes.data + 2 * SAMPLE)
    first = second = third = fourth = np.int16(-32768)
    # The key of a rank is the largest key with at most that many smaller keys.
    for i in range(SAMPLE):
        key, smaller = sample[i], sample[SAMPLE + i]
        first = max(first, key if smaller <= ranks[0] else np.int16(-32768))
        second = max(second, key if smaller <= ranks[1] else np.int16(-32768))
        third = max(third, key if smaller <= ranks[2] else np.int16(-32768))
        fourth = max(fourth, key if smaller <= ranks[3] else np.int16(-32768))
    fourth = np.int64(min(np.int64(fourth) + 1, 32767))
    return np.int64(first) << HALF, np.int64(second) << HALF, np.int64(third) << HALF, fourth << HALF


@compiled
def narrow_search(search, keys, length, offset, rank, shift, few, number):
    """Narrows the search among `keys` to at most `few` candidates or to one key; `offset` is added to each count."""
    while search[UNTIL_KEY] - search[FROM_KEY] > 1 << shift and search[BELOW_UNTIL] - search[BELOW_FROM] > few:
        gap = search[UNTIL_KEY] - search[FROM_KEY]
        narrow_by(search, keys, length, propose(search, rank, shift), offset, rank, shift, number)
        search[STALLED] = 2 * (search[UNTIL_KEY] - search[FROM_KEY]) > gap


@compiled
def collect(coarse, bits, length, kind, middle, first, last, members):
    """Collects the keys of the values whose coarse key is in [first, last]; returns their number."""
    whole, address, count = length // LANES * LANES, coarse.ctypes.data, 0
    for start in range(0, whole, LANES):
        hits = lanes_between(address + 2 * start, first, last)
        while hits != 0:
            members[count] = key_of(bits[start + lowest_bit(hits)], kind, middle)
            count += 1
            hits &= hits - np.uint64(1)
    for i in range(whole, length):
        if first <= coarse[i] <= last:
            members[count] = key_of(bits[i], kind, middle)
            count += 1
    return count


@compiled
def pick(members, count, rank):
    """Returns the key of a rank, the number of keys not above it, and the next larger key or `NONE`."""
    for i in range(count):
        key, below, equal = members[i], np.int32(0), np.int32(0)
        for j in range(count):
            below = np.int32(below + np.int32(members[j] < key))
            equal = np.int32(equal + np.int32(members[j] == key))
        if below <= rank < below + equal:
            following = NONE
            for j in range(count):
                if members[j] > key:
                    following = min(following, np.int64(members[j]))
            return np.int64(key), np.int64(below) + np.int64(equal), following
    return NONE, np.int64(0), NONE


@compiled
def select(coarse, bits, length, kind, middle, rank, lowest, highest, work):
    """Returns the key of a rank from 0, the number of keys not above it, and the next larger key, `NONE` if unknown.

    `coarse`, int16, are the upper halves of the keys; `bits`, int32, are the floats, up to 65,535 of them; `kind` and
    `middle` are arguments of `key_of`. All keys are in [lowest, highest]. `work` comes from `selection_arrays`.
    """
    members, sample, search = work
    search[FROM_KEY], search[BELOW_FROM] = (np.int64(lowest) >> HALF) << HALF, 0
    search[UNTIL_KEY], search[BELOW_UNTIL] = ((np.int64(highest) >> HALF) + 1) << HALF, length
    search[STALLED] = 0
    if length > 2 * SAMPLE:
        narrow_by(search, coarse, length, sampled_keys(coarse, length, rank, sample), 0, rank, HALF, np.uint16)
    narrow_search(search, coarse, length, 0, rank, HALF, MAX_COLLECTED, np.uint16)
    offset = search[BELOW_FROM]
    first, last = np.int16(search[FROM_KEY] >> HALF), np.int16((search[UNTIL_KEY] - 1) >> HALF)
    count = collect(coarse, bits, length, kind, middle, first, last, members)
    narrow_search(search, members, count, offset, rank, 0, MAX_COMPARED, np.int32)
    low, high = search[FROM_KEY], search[UNTIL_KEY]
    if high - low == 1:
        return low, search[BELOW_UNTIL], NONE
    remaining = 0
    for i in range(count):
        key = members[i]
        members[remaining] = key
        remaining += np.int64((key >= low) & (key < high))
    key, not_above, following = pick(members, remaining, rank - search[BELOW_FROM])
    return key, not_above + search[BELOW_FROM], following


@compiled
def next_key(bits, length, kind, key):
    """Returns the smallest key above `key`, of values or magnitudes, or `ABSOLUTE` if there is none."""
    following = np.int32(ABSOLUTE)
    for i in range(length):
        other = signed_key(bits[i]) if kind == SIGNED else np.int32(bits[i] & np.int32(ABSOLUTE))
        following = min(following, other if other > key else np.int32(ABSOLUTE))
    return following


@compiled
def interpolate(low, high, index):
    """Interpolates linearly at a fractional index, with the rounding of `order.Ordered.quantile`."""
    weight = index - np.floor(index)
    near, far = np.float32(weight), np.float32(1 - weight)
    rise = np.float32(high - low)
    if not np.isfinite(rise):
        return np.float32(np.float32(low * far) + np.float32(high * near))
    if weight < 0.5:
        return np.float32(low + np.float32(rise * near))
    return np.float32(high - np.float32(rise * far))


@compiled
def row_quantile(coarse, bits, length, kind, q, lowest, highest, work):
    """Returns the quantile of the values or magnitudes."""
    index = q * np.float64(length - 1)
    rank = np.int64(np.floor(index))
    key, not_above, following = select(coarse, bits, length, kind, np.float32(0), rank, lowest, highest, work)
    low = value_of(key, kind)
    if rank + 1 >= length or rank + 1 < not_above:
        return interpolate(low, low, index)
    if following == NONE:
        following = np.int64(next_key(bits, length, kind, np.int32(key)))
    return interpolate(low, value_of(following, kind), index)
