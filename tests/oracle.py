"""The slow definition of every operation: NumPy float64, loops, one value at a time, shared with nothing in src/.

A scope is a one-dimensional array of its real values. `redistribute` at the end takes tensors apart into scopes.
"""

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np

# --- statistics -----------------------------------------------------------------------------------------------------


def kth_at(values, k):
    """The k-th smallest, k from 1."""
    return sorted(float(v) for v in values)[k - 1]


def lower_median(values):
    return kth_at(values, (len(values) + 1) // 2)


def mad(values):
    middle = lower_median(values)
    return max(lower_median([abs(float(v) - middle) for v in values]), 1e-12)


def kth(values, share):
    return kth_at(values, max(1, round(share * len(values))))


def quantile(values, q):
    ordered = sorted(float(v) for v in values)
    index = q * (len(ordered) - 1)
    below = math.floor(index)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (index - below)


# --- noise ----------------------------------------------------------------------------------------------------------


def mix(x):
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ (x >> 16)


def key(role, channel, seed, layer):
    state = mix(channel)
    for word in (role, layer, seed % 2**32, (seed >> 32) % 2**32):
        state = mix((state + word + 0x9E3779B9) % 2**32)
    return state


def uniform(position, channel, seed=0, stream=0, layer=0):
    base, step, stride = (key(role, channel, seed, layer) for role in range(3))
    word = (base + position * (step | 1) + stream * (stride | 1)) % 2**32
    return float(Fraction(word >> 8, 2**24))


# --- policies: one scope in, one scope and what moved out -----------------------------------------------------------


def outward_edge(a, band=0.13, share=(0.02, 0.25), proportion=None):
    """τ, and whether it is the near-zero half-width itself (then the comparison is strict)."""
    m = [abs(float(v)) for v in a]
    if proportion is not None:
        return kth(m, proportion), False
    width = 1.4826 * mad(m) * band
    edge = min(max(width, kth(m, share[0])), kth(m, share[1]))
    return edge, edge == width


def on_the_way(value, target, strength):
    """The target itself at strength 1: the sum would lose a target that is small beside the value."""
    return target if strength == 1 else value + strength * (target - value)


def outward(a, u, *, ceiling=0.995, write="replace", ceiling_of="signed", strength=1.0, **where):
    edge, strict = outward_edge(a, **where)
    upper = quantile(a if ceiling_of == "signed" else np.abs(a), ceiling)
    lower = max(0.0, -min(float(v) for v in a))
    out, moved = [], []
    for value, draw in zip(a, u, strict=True):
        near = abs(value) < edge if strict else abs(value) <= edge
        bound = -float(draw) * lower if value < 0 else float(draw) * upper
        target = bound if write == "replace" else value + bound
        out.append(on_the_way(value, target, strength) if near else value)
        moved.append(near and strength > 0)
    return np.array(out), np.array(moved)


def cut_edge(a, threshold=None, **where):
    """As `outward_edge`, or the threshold, rounded to float32 unless it is beyond all of its values."""
    if threshold is None:
        return outward_edge(a, **where)
    return (float(np.float32(threshold)) if threshold < 3e38 else math.inf), False


def cut(a, *, strength=1.0, **where):
    edge, strict = cut_edge(a, **where)
    near = [abs(value) < edge if strict else abs(value) <= edge for value in a]
    out = [on_the_way(value, 0.0, strength) if moves else value for value, moves in zip(a, near, strict=True)]
    return np.array(out), np.array(near) & (strength > 0)


def inward_target(magnitude, edge, curve):
    if edge == 0 or curve == "clip":
        return edge
    return edge * (1 + math.log(magnitude / edge)) if curve == "log" else edge * math.tanh(magnitude / edge)


def inward(a, *, knee=0.99, limit=None, side="both", curve="log", strength=1.0):
    edge = quantile([abs(float(v)) for v in a], knee) if limit is None else float(np.float32(limit))
    out, moved = [], []
    for value in a:
        where = abs(value) if side == "both" else value
        moves = where > edge if curve != "tanh" else side == "both" or value > 0
        target = math.copysign(inward_target(abs(value), edge, curve), value) if moves else value
        out.append(on_the_way(value, target, strength))
        moved.append(moves and strength > 0)
    return np.array(out), np.array(moved)


def transport(a, *, spread=1.0, strength=1.0):
    scale = spread * 1.4826 * lower_median([abs(float(v)) for v in a])
    out = []
    for value in a:
        same = [abs(float(v)) for v in a if (v < 0) == (value < 0)]
        smaller = sum(m < abs(value) for m in same)
        equal = sum(m == abs(value) for m in same)
        rank = smaller + (equal - 1) / 2
        # √2·erf⁻¹(p) is the normal quantile of (1 + p) / 2.
        score = NormalDist().inv_cdf((1 + (rank + 0.5) / len(same)) / 2)
        target = -scale * score if value < 0 else scale * score
        out.append((1 - strength) * value + strength * target)
    return np.array(out), np.full(len(a), strength > 0)


# --- tensors --------------------------------------------------------------------------------------------------------


def scopes(shape, scope, mask):
    """The indices of the values of each scope, `[batch, seq, width]`, padding left out."""
    batch, seq, width = shape
    groups = {}
    for b in range(batch):
        for t in range(seq):
            if mask is None or mask[b, t]:
                group = {"token": (b, t), "sequence": b, "call": 0}[scope]
                groups.setdefault(group, []).extend((b, t, j) for j in range(width))
    return list(groups.values())


def redistribute(a, policy, scope="token", mask=None, u=None):
    """`policy(values[, u])` on each scope of `a`; a scope with NaN or Inf passes through."""
    out = np.array(a, dtype=np.float64)
    moved = np.zeros(a.shape, dtype=bool)
    for group in scopes(a.shape, scope, mask):
        where = tuple(np.array(group).T)
        values = np.asarray(a, dtype=np.float64)[where]
        if np.isfinite(values).all():
            out[where], moved[where] = policy(values) if u is None else policy(values, np.asarray(u)[where])
    return out, moved
