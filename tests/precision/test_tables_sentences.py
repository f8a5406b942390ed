"""The first lines of a result, and what speaks against a contraction."""

import math
from dataclasses import replace

import pytest

from armlet import Inward
from armlet.precision.choice import CONTRACT, ROUNDED
from armlet.precision.measure import Contraction, TrialOutcome
from armlet.precision.rows import MethodRow
from armlet.precision.schemes import REFERENCES, QuantScheme
from armlet.precision.tables import cautions, headline, told_apart
from armlet.statistics.perplexity import PerplexityRatio

INT8, INT4, FLOAT8 = QuantScheme("int8", "tensor"), QuantScheme("int4", "token"), QuantScheme("e4m3", "tensor")


def row(scheme, method, perplexity, losses, setting=""):
    ratio = PerplexityRatio.between([1.0] * len(losses), losses)
    return MethodRow(scheme, method, setting, perplexity, ratio, 0.5, TrialOutcome(losses, {}))


FULL = row(None, "full precision", 2.7, [1.0] * 20)


def test_the_first_lines_name_the_schemes_at_which_an_alternative_does_better_and_how_sure_that_is():
    rows = [FULL]
    noisy = [1.0 + 0.2 * (at % 2) for at in range(20)]  # around compand's 1.09
    surely = [1.01 + 1e-4 * at for at in range(20)]
    for scheme, rotated, losses in ((INT8, 3.1, [1.1] * 20), (INT4, 2.75, surely), (FLOAT8, 2.95, noisy)):
        rows.append(row(scheme, ROUNDED, 5.0, [1.6] * 20))
        rows.append(row(scheme, "Hadamard rotation", rotated, losses))
        rows.append(row(scheme, "compand", 3.0, [1.09] * 20, "knee 0.9"))
    first, second, *rest = headline(rows)
    assert first == (
        "An alternative is shown to do better than compand at 1 of 3 schemes: "
        "int4 token, Hadamard rotation (2.75 against 3.00)"
    )
    assert second == "  better, but within the interval, at 1: e4m3 tensor, Hadamard rotation (2.95 against 3.00)"
    assert rest[0].startswith(
        "int8 tensor, compand (knee 0.9): 3.00 instead of 5.00, 50.0 % of the gap recovered; 1.0942"
    )


def test_where_plain_rounding_is_better_too_the_first_lines_say_so():
    rows = [FULL]
    for method, loss in ((ROUNDED, 1.2), ("Hadamard rotation", 1.1), ("compand", 1.3)):
        rows.append(row(FLOAT8, method, math.exp(loss), [loss] * 20))
    assert headline(rows)[1:] == [
        "  and so does round to nearest, at 1: e4m3 tensor, round to nearest (3.32 against 3.67)"
    ]


def test_rounding_that_helps_the_model_is_told_to_be_no_merit():
    better, same = row(INT8, ROUNDED, 2.5, [0.9] * 20), row(INT8, "compand", 2.5, [1.0] * 20)
    assert "below full precision's, by the interval, in 1 of 2 cells" in headline([FULL, better, same])[-1]
    assert not any("below" in line for line in headline([FULL, same, replace(same, method=ROUNDED)]))


@pytest.mark.parametrize(
    ("site", "scope", "loss", "said"),
    [
        ("gate", "token", 1.1, ()),
        ("gate", "token", 1.5, ("shows no gain",)),
        ("product", "token", 1.1, ()),
        ("product", "sequence", 1.5, ("shows no gain", "not for decoding")),
    ],
)
def test_a_chosen_setting_comes_with_what_speaks_against_it(site, scope, loss, said):
    scheme = REFERENCES[0]
    rows = [row(scheme, ROUNDED, 4.0, [1.4] * 20), row(scheme, CONTRACT, 3.0, [loss] * 20)]
    rows.append(row(None, CONTRACT, 2.8, [1.02] * 20))  # exp(0.02): 2.02 % more
    chosen = Contraction(Inward(), site, scope, (0,))
    assert cautions(rows, chosen, 0.02)[0].startswith("unrounded it costs 2.0 % on held-out text")
    lines = cautions(rows, chosen, 0.021)
    assert len(lines) == len(said)
    assert all(part in line for part, line in zip(said, lines, strict=True))


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ((1.00112, 1.00108), ("1.00112", "1.00108")),
        ((1.0011, 1.0011), ("1.0011", "1.0011")),
        ((1.0011, 1.0021), ("1.0011", "1.0021")),
        ((2.754, 2.75401), ("2.75400", "2.75401")),
        ((12345.6, 12345.7), ("12345.6", "12345.7")),
        ((1.5, 1.5 + 2**-52), ("1.5000000000000000", "1.5000000000000002")),
    ],
)
def test_different_perplexities_are_never_written_alike(values, texts):
    assert told_apart(*values) == texts
