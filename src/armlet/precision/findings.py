"""What `armlet quantize` makes of its trials: a row for each code and method, with intervals, and what to say first."""

from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from math import exp, isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from armlet.precision.choice import Chosen, LayerGain, Method, Run
    from armlet.precision.codes import Code
    from armlet.precision.measure import Contraction

Row = dict[str, Any]


def most_trials(layers: int) -> int:
    """An upper bound of the trials of a run."""
    from armlet.precision.choice import CANDIDATES, CONTRACTIONS, KEPT_COUNTS, REFERENCES, WORST
    from armlet.precision.codes import CODES

    options = sum(map(len, CANDIDATES.values())) + 1 + len(KEPT_COUNTS)  # one more knee by error
    held_out = len(CODES) * (len(CANDIDATES) + 2) + 2 + 3 * min(WORST, layers)
    return len(REFERENCES) * (layers + options) + len(CONTRACTIONS) * (2 * min(WORST, layers) + 2) + held_out


def unrounded(run: "Run", chosen: "Chosen", seed: int) -> list[Row]:
    """The model as it is, and with the contraction alone: what that costs before anything is rounded."""
    from armlet.precision.choice import CONTRACT, Method

    plain = Method("full precision")
    methods = [plain, Method(CONTRACT, contraction=chosen.contraction)] if chosen.contraction else [plain]
    return _rows(run, methods, None, seed)


def rounded(run: "Run", chosen: "Chosen", code: "Code", seed: int) -> list[Row]:
    """Every method at one code."""
    from armlet.precision.choice import reference

    return _rows(run, chosen.methods[reference(code)], code, seed)


def _rows(run: "Run", methods: "Sequence[Method]", code: "Code | None", seed: int) -> list[Row]:
    """A share of the gap is told where the interval says that there is a gap."""
    from armlet.precision.choice import ROUNDED, Method, perplexity

    base = run(Method("").trial("held-out", None))["nll"]
    floor = run(Method(ROUNDED).trial("held-out", code))["nll"]
    gap = perplexity(floor) - perplexity(base)
    resolved = (ratio(base, floor, seed)["low"] or 0) > 1
    rows = list[Row]()
    for method in methods:
        found = run(method.trial("held-out", code))
        value = perplexity(found["nll"])
        named = {"code": str(code or "none"), "method": method.name, "setting": setting(method)}
        judged = {"perplexity": value, **ratio(base, found["nll"], seed)}
        judged["recovered"] = (perplexity(floor) - value) / gap if resolved else None
        rows.append({**named, **judged, "nll": found["nll"], "layers": found["layers"]})
    return rows


def ratio(before: Sequence[float], after: Sequence[float], seed: int = 0) -> dict[str, float | None]:
    """The ratio of two perplexities over the same windows, and its 95 % interval.

    The windows' differences are compared with 0, so that a Bonett-Price interval, below 21 windows, takes its step
    from their range and not from that of the losses, which are unlike because texts are.
    """
    from armlet.statistics.comparison import compare

    differences = [b - a for a, b in zip(before, after, strict=True)]
    if not any(differences):  # the same run twice: nothing is left to chance
        return {"ratio": 1.0, "low": 1.0, "high": 1.0}
    found = compare([0.0] * len(differences), differences, seed=seed)
    low, high = (exp(bound) if isfinite(bound) else None for bound in found.interval)
    return {"ratio": exp(found.difference), "low": low, "high": high}


def setting(method: "Method") -> str:
    """The knob that calibration chose, in words; empty where there is none."""
    if method.contraction:
        return f"{_curve(method.contraction)}, {_spans(method.contraction.layers)}"
    if method.layers is not None:
        return f"rounded: {_spans(method.layers)}"
    knobs = [each.name for each in fields(method.transform) if each.repr and each.name not in ("fixed", "ratio")]
    return ", ".join(f"{name} {getattr(method.transform, name)}" for name in knobs)


def _curve(contraction: "Contraction") -> str:
    """Curve, knee, site and scope."""
    policy = contraction.policy
    return f"{policy.curve}, knee {policy.knee}, {contraction.site}, {contraction.scope}"


def _spans(layers: Sequence[int]) -> str:
    """Such as "layers 0-3,7"."""
    starts = [at for at in layers if at - 1 not in layers]
    ends = [at for at in layers if at + 1 not in layers]
    spans = ",".join(f"{a}-{b}" if b > a else str(a) for a, b in zip(starts, ends, strict=True))
    return f"layer{'s' * (len(layers) > 1)} {spans}"


def layer_rows(run: "Run", chosen: "Chosen", seed: int) -> list[Row]:
    """The damage of each layer alone, on the calibration windows, and the best contraction of those that were tried.

    What that does in its layer alone is measured on held-out windows: `cost` without any rounding, and `gain`, the
    ratio to what rounding that layer alone comes to.
    """
    inside = chosen.contraction.layers if chosen.contraction else ()
    return [
        {
            "layer": layer,
            **{f"damage {code}": exp(found[layer]) for code, found in chosen.damage.items()},
            "tried": layer in chosen.gains,
            **_gain(run, chosen.gains.get(layer), layer, seed),
            "chosen": layer in inside,
        }
        for layer in next(iter(chosen.damage.values()))
    ]


def _gain(run: "Run", found: "LayerGain | None", layer: int, seed: int) -> Row:
    from armlet.precision.choice import REFERENCES
    from armlet.precision.measure import Trial

    if found is None:
        return {"setting": None, "cost": None, "gain": None}
    losses = lambda trial: run(trial)["nll"]  # noqa: E731
    bare, alone = Trial("held-out"), Trial("held-out", REFERENCES[0], layers=(layer,))
    cost, gain = (
        ratio(losses(each), losses(replace(each, contraction=found.contraction)), seed) for each in (bare, alone)
    )
    return {"setting": _curve(found.contraction), "cost": cost, "gain": gain}


def headline(rows: Sequence[Row], seed: int = 0) -> list[str]:
    """First where simple alternatives do better than what is armlet's own, then what each of these recovers."""
    from armlet.precision.choice import COMPANDED, CONTRACT, REFERENCES

    codes = list(dict.fromkeys(row["code"] for row in rows if row["code"] != "none"))
    own = [name for name in (COMPANDED, CONTRACT) if any(row["method"] == name for row in rows)]
    beaten = [line for name in own for line in _beaten(rows, codes, name, seed)]
    described = [_recovered(rows, str(code), name) for code in REFERENCES for name in own if str(code) in codes]
    return [*beaten, *described, *_below(rows)]


def _beaten(rows: Sequence[Row], codes: Sequence[str], name: str, seed: int) -> list[str]:
    """The codes at which `name` is not the best, those first at which the interval of the difference says so.

    Then those at which it is even worse than doing nothing, where something else is better still.
    """
    from armlet.precision.choice import OURS, ROUNDED

    sure, perhaps = _better(rows, codes, name, {row["method"] for row in rows} - set(OURS), seed)
    plain = [each for each in _better(rows, codes, name, {ROUNDED}, seed)[0] if each not in sure]
    first = f"An alternative is shown to do better than {name} at {len(sure)} of {len(codes)} codes"
    lines = [f"{first}: {'; '.join(sure)}" if sure else first]
    if perhaps:
        lines.append(f"  and within the interval at {len(perhaps)}: {'; '.join(perhaps)}")
    if plain:
        lines.append(f"  and so is doing nothing at {len(plain)}: {'; '.join(plain)}")
    return lines


def _better(
    rows: Sequence[Row], codes: Sequence[str], name: str, rivals: Collection[str], seed: int
) -> tuple[list[str], list[str]]:
    """Where the best of `rivals` is below `name`: by the interval of their ratio, and within it."""
    from armlet.precision.tables import short

    sure, perhaps = list[str](), list[str]()
    for code in codes:
        here = {row["method"]: row for row in rows if row["code"] == code}
        best = min((row for method, row in here.items() if method in rivals), key=lambda row: row["perplexity"])
        if best["perplexity"] < here[name]["perplexity"]:
            numbers = f"{short(best['perplexity'])} against {short(here[name]['perplexity'])}"
            (sure if _lower(best, here[name], seed) else perhaps).append(f"{code}, {best['method']} ({numbers})")
    return sure, perhaps


def _lower(row: Row, other: Row, seed: int) -> bool:
    """The perplexity of `row` is below that of `other`, by the interval."""
    high = ratio(other["nll"], row["nll"], seed)["high"]
    return high is not None and high < 1


def _below(rows: Sequence[Row]) -> list[str]:
    """A warning where rounding makes the model better on the text."""
    coded = [row for row in rows if row["code"] != "none"]
    below = [row for row in coded if (row["high"] or 1) < 1]
    if not below:
        return []
    return [
        f"Perplexity is below full precision's, by the interval, in {len(below)} of {len(coded)} cells of the table: "
        "the model does not suit this text, and who is best on it says little about rounding"
    ]


def cautions(rows: Sequence[Row], contraction: "Contraction", limit: float, seed: int = 0) -> list[str]:
    """What to know before the contraction that was chosen under `limit` is used."""
    from armlet.precision.choice import CONTRACT, REFERENCES, ROUNDED

    found = list[str]()
    cost = next(row["ratio"] for row in rows if (row["code"], row["method"]) == ("none", CONTRACT)) - 1
    if cost > limit:
        found.append(
            f"unrounded it costs {100 * cost:.1f} % on held-out text, beyond the limit that it kept on calibration"
        )
    here = {row["method"]: row for row in rows if row["code"] == str(REFERENCES[0])}
    if CONTRACT in here and not _lower(here[CONTRACT], here[ROUNDED], seed):
        found.append(f"held-out text shows no gain from it at {REFERENCES[0]}")
    if contraction.scope == "sequence":
        found.append("it looks at whole sequences: measured for prompts and scoring, not for decoding token by token")
    if (contraction.site, contraction.scope) != ("gate", "token"):
        found.append("vLLM does not serve it; --site gate chooses among those that it does")
    return found


def _recovered(rows: Sequence[Row], code: str, name: str) -> str:
    from armlet.precision.choice import ROUNDED
    from armlet.precision.tables import short

    base = rows[0]["perplexity"]
    here = {row["method"]: row for row in rows if row["code"] == code}
    row, plain = here[name], here[ROUNDED]["perplexity"]
    share = "" if row["recovered"] is None else f", {100 * row['recovered']:.1f} % of the gap recovered"
    bounds = "" if row["low"] is None else f" [{row['low']:.4f}, {row['high']:.4f}]"
    against = f"{row['ratio']:.4f}{bounds} times full precision's {short(base)}"
    return f"{code}, {name} ({row['setting']}): {short(row['perplexity'])} instead of {short(plain)}{share}; {against}"
