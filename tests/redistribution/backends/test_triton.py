"""The Triton programs: the bits of the plain path, and what they compile to for two GPUs.

They run under Triton's interpreter, or on a GPU (see `devices.py`), where the plain path's bits are those of the GPU
and of the CPU. `TRITON_INTERPRET` counts when Triton is first imported and makes compiling impossible: each has its own
process.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from armlet.redistribution.backends.triton import moves as cuda
from armlet.redistribution.backends.triton.moves import TRITON
from armlet.redistribution.cut import Cut
from armlet.redistribution.inward import Inward
from armlet.redistribution.noise import Noise
from armlet.redistribution.operands import BackendResult, Operands
from armlet.redistribution.outcome import outcome
from armlet.redistribution.outward import Outward
from armlet.redistribution.transport import Transport
from devices import DEVICE, ON_GPU, examples, triton_process
from gates import ELEMENTS, same_bits

needs_triton = pytest.mark.needs("triton interpreter")

RESOURCES = Path(__file__).parents[3] / "benchmarks" / "triton_resources.py"
DTYPES = ("float32", "bfloat16", "float16")
ACTIVATIONS = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda a: functional.gelu(a, approximate="tanh"),
}

SHARES = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda pair: tuple(sorted(pair)))
QUANTILES = st.one_of(st.sampled_from([0.0, 0.5, 0.99, 1.0]), st.floats(0, 1))
STRENGTHS = st.sampled_from([1.0, 1.0, 0.3, 0.0])
POLICIES = st.one_of(
    st.builds(
        Outward,
        band=st.sampled_from([1e-30, 0.05, 0.3, 2.0, 1e30]),
        ceiling=QUANTILES,
        share=SHARES,
        proportion=st.one_of(st.none(), st.none(), st.floats(0, 1)),
        write=st.sampled_from(["replace", "add"]),
        ceiling_of=st.sampled_from(["signed", "magnitude"]),
        strength=STRENGTHS,
    ),
    st.builds(
        Inward,
        knee=QUANTILES,
        limit=st.one_of(st.none(), st.sampled_from([1e-30, 0.5, 2.0, 1e30])),
        side=st.sampled_from(["both", "above"]),
        curve=st.sampled_from(["log", "log", "clip", "tanh"]),
        strength=STRENGTHS,
    ),
    st.builds(
        Cut,
        band=st.sampled_from([1e-30, 0.05, 0.3, 2.0, 1e30]),
        share=SHARES,
        proportion=st.one_of(st.none(), st.none(), st.floats(0, 1)),
        threshold=st.one_of(st.none(), st.none(), st.sampled_from([0.0, 0.3, 1e30])),
        strength=STRENGTHS,
    ),
)
NUMBERS = st.one_of(ELEMENTS, st.floats(width=32, allow_nan=False, allow_infinity=False))
ANYTHING = st.one_of(*[NUMBERS] * 12, st.sampled_from([np.inf, -np.inf, np.nan]))


@st.composite
def cases(draw, elements=ANYTHING, widest=40):
    """Arguments of `differences`."""
    rows, width = draw(st.integers(1, 3)), draw(st.integers(1, widest))
    draws = draw(st.sampled_from(["keyed", "keyed", "given", "half"]))
    return {
        "numbers": draw(hnp.arrays(np.float32, (rows, width), elements=elements)),
        "dtype": draw(st.sampled_from(DTYPES)),
        "policy": draw(POLICIES),
        "positions": draw(hnp.arrays(np.int64, rows, elements=st.integers(0, 2**40))) if draws == "keyed" else None,
        "stream": draw(st.integers(-5, 2**33)),
        "uniforms": draws == "given",
        "mask": draw(st.one_of(st.none(), st.none(), hnp.arrays(bool, rows))),
        "strengths": draw(st.one_of(st.none(), st.none(), hnp.arrays(np.float32, rows, elements=STRENGTHS))),
    }


@pytest.fixture(scope="module")
def interpreter():
    """A process in which Triton runs: on the CPU, or on a GPU."""
    with triton_process() as run:
        yield run


def plain(a, policy, draw, mask=None, strength=None):
    """Values, how many moved, which rows passed: PyTorch, as `move_rows` gives them; the same on CPU and GPU."""
    results = []
    for device in dict.fromkeys((torch.device("cpu"), DEVICE)):
        there = [None if given is None else given.to(device) for given in (a, draw, mask, strength)]
        result = outcome(there[0], policy, scope="token", draw=lambda u=there[1]: u, mask=there[2], strength=there[3])
        results.append((result.values.cpu(), result.moved.sum((1, 2)).cpu(), result.passed.cpu()))
    values, moved, passed = results[-1]
    assert same_bits(values, results[0][0])
    assert torch.equal(moved, results[0][1])
    assert torch.equal(passed, results[0][2])
    return results[-1]


def on_device(operands):
    """The operands with their tensors on the device."""
    return Operands(*(part.to(DEVICE) if isinstance(part, torch.Tensor) else part for part in operands))


def moved_by_triton(a, policy, operands):
    """`move_rows` on the device, and its results on the CPU."""
    return tuple(part.cpu() for part in TRITON.move_rows(a.to(DEVICE), policy, on_device(operands)))


def gated(gate_up, policy, activation, operands):
    """`gated_rows` on the device, and its results on the CPU."""
    return tuple(part.cpu() for part in cuda.gated_rows(gate_up.to(DEVICE), policy, activation, on_device(operands)))


def tensor(array):
    return None if array is None else torch.from_numpy(array)


def differences(numbers, dtype, policy, positions=None, stream=0, uniforms=False, mask=None, strengths=None):
    """What differs between the Triton program and the plain path, among values, moved and passed."""
    a = tensor(numbers).to(getattr(torch, dtype))[:, None]
    noise, keys = Noise(3, stream), Noise(3).keys(a.shape[-1])
    given = torch.rand(a.shape, generator=torch.Generator().manual_seed(0)) if uniforms else torch.full(a.shape, 0.5)
    place = None if positions is None else tensor(positions)[:, None]
    mask, strength = None if mask is None else tensor(mask)[:, None], tensor(strengths)
    draws = {"uniforms": given} if uniforms else {}
    if place is not None:
        draws = {"keys": keys, "positions": place, "stream": stream}
        given = noise.uniforms(a.shape, place, keys)
    assert TRITON.supports(a.to(DEVICE), policy)
    fast = moved_by_triton(a, policy, Operands(**draws, mask=mask, strength=strength))
    slow = plain(a, policy, given, mask, strength)
    equal = (same_bits(fast[0], slow[0]), torch.equal(fast[1], slow[1]), torch.equal(fast[2], slow[2]))
    return [name for name, same in zip(("values", "moved", "passed"), equal, strict=True) if not same]


@needs_triton
@given(case=cases())
@settings(max_examples=examples(60))
def test_a_row_program_has_the_bits_of_the_plain_path(interpreter, case):
    assert interpreter(differences, **case) == []


@needs_triton
@given(case=cases(st.sampled_from([0.0, -0.0, 0.5, -0.5, 1e-45, -1e-45, 3e38, -3e38]), widest=12))
@settings(max_examples=examples(30))
def test_ties_zeros_denormals_and_the_largest_numbers_have_them_too(interpreter, case):
    assert interpreter(differences, **case) == []


def gate(rows, width, seed=0):
    """float32 `[rows, width]` as a layer has them: silu of a normal."""
    return functional.silu(3 * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))).numpy()


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 2, 3, 127, 1025, 1536, 8960, 18944, 32767, 32768])
def test_any_width_has_the_bits_of_the_plain_path(interpreter, width, dtype):
    for policy in (Outward(), Outward(band=1e-6, share=(0.1, 0.3)), Inward(0.9)):
        case = {"numbers": gate(1, width), "dtype": dtype, "policy": policy, "positions": np.array([width])}
        assert interpreter(differences, **case) == [], policy


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_with_nan_or_inf_passes_bit_for_bit(interpreter, dtype):
    numbers = gate(4, 65)
    numbers[0, 0], numbers[1, 64], numbers[2, 7] = np.inf, -np.inf, np.nan
    numbers.view(np.uint32)[2, 8] = 0xFFAB0000  # a NaN with sign and payload
    for policy in (Outward(), Inward(0.5)):
        assert interpreter(differences, numbers, dtype, policy) == []
        assert interpreter(counted, numbers, dtype, policy)[1] == [True, True, True, False]


def counted(numbers, dtype, policy):
    _, moved, passed = moved_by_triton(tensor(numbers).to(getattr(torch, dtype))[:, None], policy, Operands())
    return moved.tolist(), passed.tolist()


@needs_triton
def test_strided_positions_are_read_where_they_are(interpreter):
    assert interpreter(same_position_for_all)


def same_position_for_all():
    a, keys = tensor(gate(3, 20))[:, None], Noise(0).keys(20)
    one = torch.tensor([[7]], device=DEVICE)
    fast = moved_by_triton(a, Outward(proportion=0.5), Operands(keys, one.expand(3, 1)))
    slow = moved_by_triton(a, Outward(proportion=0.5), Operands(keys, one.repeat(3, 1)))
    return same_bits(fast[0], slow[0])


@needs_triton
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    "policy", [Outward(0.5), Inward(0.8), Inward(limit=1.0), Cut()], ids=["outward", "inward", "limit", "cut"]
)
def test_the_fused_program_is_arm_of_its_activated_gate_times_up(interpreter, policy, activation, dtype):
    same, far = interpreter(fused_and_apart, policy, activation, dtype)
    assert same == [True, True, True]
    assert far <= FUSED_BOUND


# The activated gate itself is not bit-equal to PyTorch's: exp and erf differ by library (PyTorch's own vector erf is
# good to 1.5e-7). It is x times a share in [0, 1] made by a handful of float32 operations: within 4 · 2⁻²⁴ · |x| of
# float64, and half a step of the dtype that it is rounded to. A GPU's exp is `ex2.approx`, which may err by two units
# in the last place: there the bound is twice as wide.
FUSED_BOUND = 2 if ON_GPU else 1


@needs_triton
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("policy", [Outward(), Inward(), Cut()], ids=["outward", "inward", "cut"])
def test_the_fused_program_is_so_in_the_widest_models(interpreter, policy, dtype):
    same, far = interpreter(fused_and_apart, policy, "silu", dtype, width=18_944)
    assert same == [True, True, True]
    assert far <= FUSED_BOUND


def fused_and_apart(policy, activation, dtype, width=200):
    """Whether values, moved and passed are equal; and how far off the activation is, as a part of what it may be."""
    gates = (3 * torch.randn(3, width, generator=torch.Generator().manual_seed(1))).to(getattr(torch, dtype))
    ups = torch.randn(3, width, generator=torch.Generator().manual_seed(2)).to(gates.dtype)
    gates[1, 3] = torch.nan
    ones = torch.cat((gates, torch.ones_like(gates)), dim=1)
    activated, _, _ = gated(ones, Outward(strength=0), activation, Operands())
    keys, positions, strength = Noise(5).keys(width), torch.tensor([4, 0, 9]), torch.tensor([1, 1, 0.5])
    operands = Operands(keys, positions, stream=2, strength=strength)
    fast = gated(torch.cat((gates, ups), dim=1), policy, activation, operands)
    draws = Noise(5, 2).uniforms(gates[:, None].shape, positions[:, None], keys)
    moved = plain(activated[:, None], policy, draws, None, strength)
    values = moved[0][:, 0] * ups
    finite = ~values.isnan()
    equal = [
        same_bits(fast[0][finite], values[finite]) and torch.equal(finite, ~fast[0].isnan()),
        torch.equal(fast[1], moved[1]),
        torch.equal(fast[2], moved[2]),
    ]
    exact = ACTIVATIONS[activation](gates.double())
    far = (activated.double() - exact).abs()
    may = 4 * 2**-24 * gates.double().abs() + (spacing(activated) / 2 if dtype != "float32" else 0)
    return equal, (far / may)[~exact.isnan()].max().item()


def spacing(a):
    """The distance to the next number of the dtype, in float64."""
    info = torch.finfo(a.dtype)
    return 2 ** a.double().abs().clamp(min=info.smallest_normal).log2().floor() * info.eps


def served():
    """vLLM's operator with Triton as the backend: its rows against `gated_rows`' and the plain ones; its counts."""
    from armlet.integrations.vllm.operator import redistribute_gated
    from armlet.redistribution.policy_numbers import to_numbers

    os.environ["ARMLET_BACKEND"] = "triton"
    try:
        policy, noise, positions, strengths = (
            Outward(0.5),
            Noise(3),
            torch.tensor([0, 5, 9]),
            torch.tensor([1.0, 0, 0.5]),
        )
        gate_up = torch.randn(3, 80, generator=torch.Generator().manual_seed(0))
        plain, keys = functional.silu(gate_up[:, :40]) * gate_up[:, 40:], noise.keys(40)
        totals = torch.zeros(4, dtype=torch.int64)
        out = redistribute_gated(
            gate_up, plain, positions, strengths, keys, totals, *to_numbers(policy), 0, "silu", 0, 1
        )
        fused, moved, _ = cuda.gated_rows(gate_up, policy, "silu", Operands(keys, positions, strength=strengths))
        equal = [same_bits(*pair) for pair in zip(out, (fused[0], plain[1], fused[2]), strict=True)]
        return equal, totals.tolist(), int(moved.sum())
    finally:
        os.environ["ARMLET_BACKEND"] = "torch"


@needs_triton
def test_vllms_operator_takes_the_fused_program_and_leaves_rows_without_arm_alone(interpreter):
    equal, totals, moved = interpreter(served)
    assert equal == [True, True, True]
    assert totals == [1, 2, moved, 0]
    assert moved > 0


@needs_triton
def test_what_the_programs_do_not_take_is_said(interpreter):
    assert interpreter(supported) == {
        "a row": True,
        "widest": True,
        "wider": False,
        "two tokens": False,
        "empty": False,
        "float64": False,
        "transport": False,
        "cut": True,
    }


def supported():
    a, zeros = torch.zeros(2, 1, 8, device=DEVICE), partial(torch.zeros, device=DEVICE)
    return {
        "a row": TRITON.supports(a, Inward()),
        "widest": TRITON.supports(zeros(1, 1, 32_768), Outward()),
        "wider": TRITON.supports(zeros(1, 1, 32_769), Outward()),
        "two tokens": TRITON.supports(zeros(1, 2, 8), Outward()),
        "empty": TRITON.supports(a[..., :0], Outward()),
        "float64": TRITON.supports(a.double(), Outward()),
        "transport": TRITON.supports(a, Transport()),
        "cut": TRITON.supports(a, Cut()),
    }


def test_tensors_of_the_cpu_are_not_for_triton_unless_it_interprets(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    cuda._runs_on.cache_clear()
    assert not TRITON.supports(torch.zeros(2, 1, 8), Outward())


@pytest.mark.slow
def test_importing_the_backend_does_not_import_triton():
    program = "import sys; from armlet.redistribution.backends.triton import moves; print('triton' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def compiled(tmp_path, *arguments, program=None):
    """Lines of `benchmarks/triton_resources.py`, in a process that compiles."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, *((str(RESOURCES),) if program is None else ("-c", program)), *arguments]
    subprocess.run(
        [*command, "--out", str(tmp_path / "out.json")], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads((tmp_path / "out.json").read_text())["kernels"]


@needs_triton
def test_programs_compile_ahead_of_time_without_fused_products_or_flushed_denormals(tmp_path):
    kernels = ["outward", "outward, silu and up", "inward, log", "inward, tanh", "cut"]
    lines = compiled(tmp_path, "--widths", "1536", "32768", "--dtypes", "float32", "--kernels", *kernels)
    lines += compiled(tmp_path, "--widths", "8960", "--dtypes", "bfloat16", "--kernels", *kernels)
    assert {line["sm"] for line in lines} == {80, 90}
    assert len(lines) == 30
    for line in lines:
        assert (line["fma"], line["ftz"]) == (0, 0), line
        # All of a row's threads have to fit a multiprocessor, which has 65,536 registers.
        assert 32 * line["warps"] * line["registers"] <= 65_536, line
        assert line["shared"] <= 1024, line
        assert line["spilled"] <= (8 if line["width"] < 32_768 else 512), line


@needs_triton
def test_that_test_can_fail(tmp_path):
    program = f"""
import sys
sys.path.insert(0, {str(RESOURCES.parent)!r})
import triton_resources
plain = triton_resources.cuda.compile_options
triton_resources.cuda.compile_options = lambda width: plain(width) | {{"enable_fp_fusion": True}}
triton_resources.main()
"""
    lines = compiled(
        tmp_path, "--widths", "64", "--sm", "80", "--dtypes", "float32", "--kernels", "inward, log", program=program
    )
    assert lines[0]["fma"] > 0


def added(rows, masked):
    """Counters after two calls that are added by the program, and what they should be."""
    generator = torch.Generator().manual_seed(rows)
    moved = torch.randint(2**40, (rows,), generator=generator).to(DEVICE)
    passed = (torch.rand(rows, generator=generator) < 0.3).to(DEVICE)
    tokens = (torch.rand(3, rows, generator=generator) < 0.5).to(DEVICE) if masked else 3 * rows
    totals = torch.tensor([1, 2, 3, 4], device=DEVICE)
    result = BackendResult(moved, moved, passed)
    assert all(TRITON.tally(totals, result, tokens, calls=calls) for calls in (1, 0))
    count = int(tokens.sum()) if masked else tokens
    return totals.tolist(), [2, 2 + 2 * count, 3 + 2 * int(moved.sum()), 4 + 2 * int(passed.sum())]


@needs_triton
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 1024, 2500])
def test_counters_are_added_in_one_program(interpreter, rows, masked):
    counters, expected = interpreter(added, rows, masked)
    assert counters == expected
