"""Every backend has the bits of the plain path, and counts what it counts."""

import importlib
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from armlet import ARM, Cut, Inward, Noise, Outward, Transport, redistribute
from armlet.redistribution import entry, near_zero, order, outcome
from armlet.redistribution.backends import choice as backends
from armlet.redistribution.backends import interception, operator
from armlet.redistribution.backends import plain as plain_backend
from armlet.redistribution.backends.cpu import threads
from armlet.redistribution.backends.plain import PLAIN
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.operands import Operands
from armlet.redistribution.policy_numbers import from_numbers, to_numbers
from gates import same_bits

moves = pytest.importorskip("armlet.redistribution.backends.cpu.moves", reason="numba is not installed")
cpu = moves.CPU

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SPECIAL = [0.0, -0.0, 0.5, -0.5, 1e-40, -1e-40, 1e-45, 6e-8, -6e-8, 65504.0, -65504.0, 3.3e38, -3.3e38]
FINITE = st.one_of(st.sampled_from(SPECIAL), st.floats(-0.28125, 8, width=32), st.floats(-60000, 60000, width=32))
ANY = st.one_of(FINITE, st.floats(width=32))
STRENGTHS = st.sampled_from([1.0, 0.5, 0.1, 0.0])
OUTWARD = st.builds(
    Outward,
    band=st.one_of(st.floats(0.01, 1), st.sampled_from([1e-9, 1e300])),
    ceiling=st.one_of(st.sampled_from([0, 0.995, 1]), st.floats(0, 1)),
    share=st.sampled_from([(0.02, 0.25), (0.2, 0.25), (0, 1), (0.5, 0.5), (1, 1)]),
    proportion=st.one_of(st.none(), st.floats(0, 1)),
    write=st.sampled_from(["replace", "add"]),
    ceiling_of=st.sampled_from(["signed", "magnitude"]),
    strength=STRENGTHS,
)
KNEES = st.one_of(st.sampled_from([0, 0.99, 1]), st.floats(0, 1))
INWARD = st.builds(
    Inward,
    knee=KNEES,
    limit=st.one_of(st.none(), st.sampled_from([1e-30, 0.5, 2.0, 1e30])),
    side=st.sampled_from(["both", "above"]),
    curve=st.sampled_from(["log", "clip", "tanh"]),
    strength=STRENGTHS,
)
TRANSPORT = st.builds(Transport, spread=st.sampled_from([1.0, 0.1, 3.0, 1e30]), strength=STRENGTHS)
CUT = st.builds(
    Cut,
    band=st.one_of(st.floats(0.01, 1), st.sampled_from([1e-9, 1e300])),
    share=st.sampled_from([(0.02, 0.25), (0.2, 0.25), (0, 1), (0.5, 0.5), (1, 1)]),
    proportion=st.one_of(st.none(), st.floats(0, 1)),
    threshold=st.one_of(st.none(), st.sampled_from([0, 1e-45, 6e-8, 0.1, 0.5, 65504.0, 1e300])),
    strength=STRENGTHS,
)
POLICIES = st.one_of(OUTWARD, INWARD, TRANSPORT, CUT)
EACH = [
    Outward(),
    Outward(write="add", proportion=0.3, strength=0.7),
    Inward(),
    Inward(curve="clip"),
    Inward(limit=0.5),
    Inward(limit=0.5, side="above", curve="clip"),
    Inward(curve="tanh"),
    Transport(),
    Cut(),
]
each_policy = pytest.mark.parametrize("policy", EACH, ids=repr)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def gate(*shape, seed=0):
    return torch.nn.functional.silu(2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


def cast(values, dtype):
    """float32 in another dtype; what lies beyond it becomes infinite."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(values).to(dtype)


@st.composite
def calls(draw, tokens=3):
    """(a, policy, what `Operands` takes), `a` of any dtype, shape and content."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, tokens)), draw(st.integers(1, 40)))
    count = shape[0] * shape[1] * shape[2]
    # A few values often make ties; one NaN in a row is one too many for the others, hence rows of finite values too.
    elements = st.sampled_from(draw(st.lists(FINITE, min_size=1, max_size=4))) if draw(st.booleans()) else FINITE
    elements = ANY if draw(st.integers(0, 4)) == 0 else elements
    values = np.array(draw(st.lists(elements, min_size=count, max_size=count)), dtype=np.float32).reshape(shape)
    how = {}
    noise = draw(st.sampled_from(["keyed", "uniforms", "midpoint"]))
    if noise == "keyed":
        start = draw(st.sampled_from([0, 1, 2**32 - 1, 2**40 + 7, -1]))
        how["keys"] = Noise(draw(st.integers(0, 3))).keys(shape[2], draw(st.integers(0, 3)))
        how["positions"] = start + torch.arange(shape[0] * shape[1]).view(shape[:2])
        how["stream"] = draw(st.sampled_from([0, 1, 2**33 + 5, -3]))
    elif noise == "uniforms":
        how["uniforms"] = torch.rand(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    if draw(st.booleans()):
        how["mask"] = torch.tensor(
            draw(st.lists(st.booleans(), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
        ).view(shape[:2])
    if draw(st.booleans()):
        how["strength"] = torch.tensor(draw(st.lists(STRENGTHS, min_size=shape[0], max_size=shape[0])))
    return cast(values, draw(st.sampled_from(DTYPES))), draw(POLICIES), how


def assert_same(a, policy, **how):
    assert cpu.supports(a, policy)
    before = a.clone()
    values, moved, passed = cpu.move_rows(a, policy, Operands(**how))
    expected = PLAIN.move_rows(a, policy, Operands(**how))
    assert same_bits(a, before)
    assert same_bits(values, expected.values)
    assert torch.equal(moved, expected.moved)
    assert torch.equal(passed, expected.passed)


@pytest.mark.slow
@settings(max_examples=400)
@given(calls(tokens=1))
def test_rows_have_the_bits_of_the_plain_path(call):
    a, policy, how = call
    assert_same(a, policy, **how)


@pytest.mark.slow
@settings(max_examples=300)
@given(calls(tokens=1).filter(lambda call: "keys" in call[2]))
def test_the_short_way_of_one_row_has_the_bits_of_the_plain_path(call):
    a, policy, how = call
    row = {name: how[name][:1] for name in ("positions", "mask") if name in how}
    keyed = {"keys": how["keys"], "stream": how["stream"]}
    expected = PLAIN.move_rows(a[:1], policy, Operands(**row, **keyed))
    counts = torch.zeros(4, dtype=torch.int64)
    row_of = entry.OneRow(policy, Noise(stream=how["stream"]), a.shape[-1], how["keys"], counts)
    values = row_of.move(a[:1], row["positions"], row.get("mask"))
    assert values is not None
    assert same_bits(values, expected.values)
    tokens = int(row["mask"].sum()) if "mask" in row else 1
    assert counts.tolist() == [1, tokens, expected.moved.item(), expected.passed.item()]


@pytest.mark.slow
@settings(max_examples=150)
@given(calls(), st.booleans())
def test_plain_pytorch_has_the_same_bits_in_blocks_and_where_nothing_is_known_of_the_values(call, known):
    a, policy, how = call
    expected = PLAIN.move_rows(a, policy, Operands(**how))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_backend, "BLOCK", a[0].numel())
        if not known:  # as on a GPU, which would have to be waited for
            for module in (order, outcome, near_zero):
                patch.setattr(module, "cheaply_true", lambda _tensor, _condition: False)
        found = PLAIN.move_rows(a, policy, Operands(**how))
    assert same_bits(found.values, expected.values)
    assert torch.equal(found.moved, expected.moved)
    assert torch.equal(found.passed, expected.passed)


@each_policy
def test_the_short_way_is_left_where_someone_looks_on(policy):
    a = gate(1, 1, 64)
    taken = {
        "plain": a,
        "transposed": gate(64, 2).t()[:1],
        "two rows": gate(2, 64),
        "differentiated": a.clone().requires_grad_(),
        "float64": a.double(),
        "meta": a.to("meta"),
    }
    row = entry.OneRow(policy, Noise(), 64)
    ways = {name: row.move(values, None, None) is not None for name, values in taken.items()}
    assert ways == dict.fromkeys(taken, False) | {"plain": True}
    assert entry.OneRow(policy, Noise.fresh(), 64).move(a, None, None) is None
    assert torch.func.vmap(lambda row: redistribute(row, policy))(a[0]).shape == (1, 64)


@st.composite
def wide_gates(draw):
    """Rows too wide to draw value by value: a random distribution, perhaps on few levels, perhaps in a few ulps."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    width = draw(st.one_of(st.integers(49, 400), st.integers(400, 9000)))
    values = rng.standard_normal((2, 1, width)) * 10.0 ** draw(st.sampled_from([-40, -8, 0, 0, 0, 4, 30]))
    values = values * 10.0 ** (rng.random(values.shape) * draw(st.sampled_from([0, 0, 3, 20])))
    values = np.where(rng.random(values.shape) < draw(st.sampled_from([0, 0, 0.3, 0.97])), 0.0, values)
    levels = draw(st.sampled_from([0, 0, 2, 7, 300]))
    values = values if levels == 0 else np.round(values / np.abs(values).max() * levels) / levels
    values = 1 + values * 1e-7 if draw(st.integers(0, 5)) == 0 else values
    return cast(values.clip(-3.4e38, 3.4e38).astype(np.float32), draw(st.sampled_from(DTYPES)))


@pytest.mark.slow
@settings(max_examples=200)
@given(wide_gates(), POLICIES)
def test_wide_rows_have_the_bits_of_the_plain_path(a, policy):
    assert_same(a, policy, keys=Noise().keys(a.shape[-1]), positions=torch.tensor([[3], [4]]))


def contents(width):
    """Rows of one width that are hard on a search: ties, plateaus, far outliers, all the exponents there are."""
    generator = torch.Generator().manual_seed(width)
    rows = gate(12, 1, width, seed=width)
    rows[1] = 0.0
    rows[2] = -0.0
    rows[3] = 1.5
    rows[4] = rows[4].sign()
    rows[5, 0, : width // 2] = 0.0
    rows[6] = (torch.rand(width, generator=generator) * 160 - 80).exp2() * (rows[6].sign())
    rows[7] = rows[7].sort().values
    rows[8] = -rows[8].abs()
    rows[9] = rows[9].bfloat16().float()
    rows[10, 0, -1] = 3e38
    rows[11] = 1 + torch.arange(width) * 2.0**-23
    return rows


WIDTHS = [1, 2, 3, 31, 63, 64, 65, 127, 129, 255, 1000, 1536, 4097, 8960, 18944, 32767, 32768]


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
@each_policy
def test_every_width_has_the_bits_of_the_plain_path(width, policy):
    a, positions = contents(width), torch.arange(12)[:, None]
    for dtype in DTYPES:
        assert_same(a.to(dtype), policy, keys=Noise(1).keys(width), positions=positions)


@pytest.mark.parametrize("shares", [(0.02, 0.25), (0.0, 0.0), (1.0, 1.0), (0.4, 0.6)])
@pytest.mark.parametrize("band", [1e-6, 0.13, 5.0])
def test_the_clamp_has_the_bits_of_the_plain_path_wherever_it_bites(shares, band):
    assert_same(contents(1537), Outward(band=band, share=shares))


@pytest.mark.parametrize("ceiling", [0, 0.001, 0.25, 0.5, 0.9, 0.995, 0.9999, 1])
@pytest.mark.parametrize("ceiling_of", ["signed", "magnitude"])
def test_every_ceiling_has_the_bits_of_the_plain_path(ceiling, ceiling_of):
    assert_same(contents(1537), Outward(ceiling=ceiling, ceiling_of=ceiling_of, proportion=1))


@each_policy
@each_dtype
def test_rows_with_nan_or_inf_keep_every_bit_of_them(policy, dtype):
    a = gate(3, 1, 200).to(dtype)
    kind = torch.int32 if dtype == torch.float32 else torch.int16
    a.view(kind)[0, 0, 7] = torch.tensor(-1 if dtype == torch.float32 else -3, dtype=kind)  # a NaN with a payload
    a[1, 0, 3] = -torch.inf
    values, _, passed = cpu.move_rows(a, policy, Operands())
    assert passed.tolist() == [True, True, False]
    assert same_bits(values[:2], a[:2])


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_every_finite_pattern_of_16_bits_goes_in_and_comes_out(dtype):
    patterns = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    a = patterns[patterns.isfinite()][None, None]
    for policy in EACH:
        assert_same(a[..., 1:32001].contiguous(), policy)
        assert_same(a[..., -32000:].contiguous(), policy)


@each_policy
@each_dtype
def test_many_rows_over_threads_are_as_alone(policy, dtype):
    a = gate(64, 1, 4096).to(dtype)
    assert a.numel() > threads.WORTH_A_THREAD
    keys, positions = Noise().keys(4096), torch.arange(64)[:, None]
    together = cpu.move_rows(a, policy, Operands(keys, positions))
    for row in (0, 31, 32, 63):
        one = slice(row, row + 1)
        alone = cpu.move_rows(a[one], policy, Operands(keys, positions[one]))
        assert same_bits(together[0][one], alone[0])
        assert together[1][row] == alone[1]


@pytest.mark.usefixtures("crew")
def test_threads_at_once_do_not_disturb_each_other():
    cases = [(gate(48, 1, 4096, seed=i), policy) for i, policy in enumerate(EACH)]
    expected = [PLAIN.move_rows(a, policy, Operands()).values for a, policy in cases]
    wrong = []

    def work(shift):
        for turn in range(10):
            i = (turn + shift) % len(cases)
            if not same_bits(cpu.move_rows(*cases[i], Operands())[0], expected[i]):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(shift,)) for shift in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def in_a_new_process(program):
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=120)


@pytest.mark.slow
@needs_fork
@pytest.mark.parametrize("before", ["torch.nn.functional.silu(a)", "0"], ids=["torch's team runs", "ours alone ran"])
def test_a_forked_child_still_answers(before):
    # Where torch's own threads ran before a fork, its operations need set_num_threads(1) in the child; ours do not.
    in_a_new_process(
        "import os, torch, armlet\n"
        "torch.set_num_threads(2)\n"
        "a = torch.randn(64, 4096)\n"
        f"{before}\n"
        "before = armlet.redistribute(a, armlet.Outward()).numpy()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if (armlet.redistribute(a, armlet.Outward()).numpy() == before).all() else 3)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )


@pytest.fixture(params=["torch's own team", "the pool"])
def crew(request, monkeypatch):
    """Whose threads the rows run on."""
    if request.param == "the pool":
        monkeypatch.setattr(threads, "_team", lambda: None)
    elif threads._team() is None:
        pytest.skip("torch has no OpenMP runtime to share here")
    else:
        monkeypatch.setattr(threads, "_executor", lambda: pytest.fail("a pool beside torch's own team"))


@pytest.mark.usefixtures("crew")
@each_policy
def test_rows_on_torchs_own_team_or_the_pool_have_the_same_bits(policy):
    assert_same(gate(200, 1, 1536), policy, keys=Noise().keys(1536), positions=torch.arange(200)[:, None])


@pytest.mark.slow
@pytest.mark.usefixtures("crew")
@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17, 97, 500])
def test_every_row_is_worked_on_once_by_any_number_of_threads(count):
    a, had = gate(count, 1, 1 << 15), torch.get_num_threads()
    expected = cpu.move_rows(a, Outward(), Operands(Noise().keys(a.shape[-1])))
    try:
        for number in (1, 2, 3, 7):
            torch.set_num_threads(number)
            values, moved, passed = cpu.move_rows(a, Outward(), Operands(Noise().keys(a.shape[-1])))
            assert same_bits(values, expected[0])
            assert torch.equal(moved, expected[1])
            assert not passed.any()
    finally:
        torch.set_num_threads(had)


def test_without_an_openmp_runtime_the_pool_takes_over(monkeypatch):
    def missing(*_args, **_how):
        raise OSError("libtorch_cpu.so: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(threads, "CDLL", missing)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # also where the tests have one core
    monkeypatch.setattr(threads, "_team", threads._team.__wrapped__)
    asked = []
    executor = threads._executor
    monkeypatch.setattr(threads, "_executor", lambda: asked.append(1) or executor())
    assert threads._team() is None
    assert_same(gate(200, 1, 1536), Outward())
    assert asked


def test_where_the_pool_starts_no_thread_any_more_the_caller_does_it_all(monkeypatch):
    class Ending:
        def submit(self, _work):
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(threads, "_team", lambda: None)
    monkeypatch.setattr(threads, "_executor", Ending)
    assert_same(gate(200, 1, 1536), Outward())


@pytest.mark.parametrize("policy", [Outward(), Inward(), Transport(), Cut()], ids=repr)
def test_the_scratch_of_a_thread_is_at_most_a_megabyte(policy):
    size = moves._job(policy, moves.MAX_WIDTHS[type(policy)], torch.float32).room + threads.ALIGNED
    assert size <= 1_000_000


def test_new_keys_are_not_taken_for_old_ones():
    a, positions = gate(1, 1, 64), torch.zeros(1, 1, dtype=torch.int64)
    keys = Noise(0).keys(64)
    assert_same(a, Outward(proportion=1), keys=keys, positions=positions)
    keys.copy_(Noise(1).keys(64))
    assert_same(a, Outward(proportion=1), keys=keys, positions=positions)
    assert_same(a, Outward(proportion=1), keys=keys, positions=positions, stream=4)
    with torch.inference_mode():
        for seed in (2, 3):
            assert_same(a, Outward(proportion=1), keys=Noise(seed).keys(64), positions=positions)


# --- the dispatcher -------------------------------------------------------------------------------------------------


@pytest.fixture
def forget():
    """What the dispatcher has found out, before and after."""
    kept = (backends._fastest, backends._checked, backends._load, entry._cached_row)
    for each in kept:
        each.cache_clear()
    yield
    for each in kept:
        each.cache_clear()


@each_policy
@pytest.mark.parametrize("scope", ["token", "sequence", "call"])
@pytest.mark.parametrize(
    "noise", [Noise(3, 2), Noise.midpoint(), "fresh", "explicit"], ids=["keyed", "midpoint", "fresh", "explicit"]
)
def test_backends_give_the_same_bits_through_the_public_function(policy, scope, noise, monkeypatch):
    a = gate(2, 5, 300)
    mask, positions = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 1, 1, 0]]), torch.tensor([9, 8, 2**33, 6, 5])
    results = []
    for name in ("torch", "cpu"):
        monkeypatch.setenv("ARMLET_BACKEND", name)
        fresh = Noise.fresh(torch.Generator().manual_seed(5))
        source = (
            {"fresh": fresh, "explicit": gate(2, 5, 300).sigmoid().double()}.get(noise, noise)
            if isinstance(noise, str)
            else noise
        )
        results.append(redistribute(a, policy, scope=scope, noise=source, mask=mask, positions=positions))
        results.append(redistribute(a.transpose(0, 1), policy, scope=scope, noise=Noise.midpoint()).transpose(0, 1))
    assert same_bits(results[0], results[2])
    assert same_bits(results[1], results[3])


@pytest.mark.usefixtures("forget")
def test_the_cpu_backend_is_chosen_where_it_can_and_plain_pytorch_elsewhere(monkeypatch):
    monkeypatch.delenv("ARMLET_BACKEND", raising=False)
    a = gate(2, 1, 16)
    assert backends.backend_for(a, Outward()) is cpu
    assert backends.backend_for(a.double(), Outward()) is PLAIN
    assert backends.backend_for(gate(1, 4, 16), Outward()) is PLAIN  # a scope of several rows
    assert backends.backend_for(gate(1, 1, 60_000), Outward()) is PLAIN
    assert backends.backend_for(a.to("meta"), Outward()) is PLAIN
    monkeypatch.setenv("ARMLET_BACKEND", "torch")
    assert backends.backend_for(a, Outward()) is PLAIN


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize("error", [ImportError("No module named 'numba'"), OSError("no libllvmlite.so")], ids=repr)
def test_without_numba_everything_is_plain_pytorch_which_is_said_once(monkeypatch, error):
    def import_module(name):
        if name == "numba":
            raise error
        return importlib.import_module(name)

    monkeypatch.delenv("ARMLET_BACKEND", raising=False)
    monkeypatch.setattr(backends, "import_module", import_module)
    with pytest.warns(UserWarning, match=r"numba cannot be imported \(.*\): pip install numba; plain PyTorch"):
        assert backends.backend_for(gate(2, 1, 16), Outward()) is PLAIN
    assert backends.backend_name(torch.device("cpu")) == "torch"
    redistribute(gate(1, 1, 16), Outward())  # a second warning would be an error
    monkeypatch.setenv("ARMLET_BACKEND", "cpu")
    with pytest.raises(ArgumentError, match=r"ARMLET_BACKEND=cpu: numba cannot be imported .* pip install numba"):
        redistribute(gate(2, 3, 16), Outward())


def test_a_backend_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setenv("ARMLET_BACKEND", "gpu")
    with pytest.raises(ArgumentError, match="ARMLET_BACKEND: expected one of torch, cpu, triton, found 'gpu'"):
        redistribute(gate(2, 3, 16), Outward())


def test_without_a_directory_for_its_cache_numba_compiles_all_the_same(monkeypatch):
    from armlet.redistribution.backends.cpu import compiled

    def nowhere(_function):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(compiled, "_Cache", nowhere)
    assert compiled.compiled(lambda x: x + 1)(2) == 3


def test_a_change_in_any_kernel_file_changes_what_is_looked_for_in_the_cache(monkeypatch):
    from armlet.redistribution.backends.cpu import compiled
    from armlet.redistribution.backends.cpu import outward as outward_rows

    loop = outward_rows.write_outward
    keys = []
    for sources in ("one", "other"):
        monkeypatch.setattr(compiled, "_sources", lambda sources=sources: sources)
        keys.append(loop._cache._index_key((), loop.targetctx.codegen()))
    assert keys[0] != keys[1]


# --- the operator ---------------------------------------------------------------------------------------------------


@given(POLICIES)
def test_numbers_give_back_the_policy(policy):
    assert from_numbers(*to_numbers(policy)) == policy


def operands(policy):
    a = gate(2, 3, 24)
    return (a, *to_numbers(policy), Noise().keys(24), torch.arange(6).view(2, 3), 1, None, torch.rand(2, 3) > 0.2, None)


@pytest.mark.slow
@each_policy
@pytest.mark.parametrize("grad", [False, True])
def test_the_operator_passes_pytorchs_own_checks(policy, grad):
    a, *rest = operands(policy)
    torch.library.opcheck(operator.redistribute_scopes, (a.requires_grad_(grad), *rest))


@each_policy
def test_gradients_are_those_of_the_plain_path(policy):
    a = gate(2, 3, 48).requires_grad_()
    u = torch.rand(a.shape, generator=torch.Generator().manual_seed(1))
    weights = torch.randn(a.shape, generator=torch.Generator().manual_seed(2))
    expected = outcome.outcome(a, policy, scope="token", draw=lambda: u).values
    values = redistribute(a, policy, noise=u)
    assert "armlet_redistribute" in values.grad_fn.next_functions[0][0].name()
    assert same_bits(values, expected)
    ours, theirs = (torch.autograd.grad((v * weights).sum(), a)[0] for v in (values, expected))
    assert same_bits(ours, theirs)


@pytest.mark.slow
@each_policy
def test_a_compiled_function_has_the_same_bits_and_gradients(policy):
    torch.compiler.reset()  # one function for all policies is compiled too often for one test file

    def function(a):
        return redistribute(a, policy, noise=Noise(4))

    compiled = torch.compile(function, fullgraph=True)
    a = gate(2, 3, 64)
    assert same_bits(compiled(a), function(a))
    a.requires_grad_()
    ours, theirs = (torch.autograd.grad(each(a).square().sum(), a)[0] for each in (compiled, function))
    # The gradient is compiled from the plain path, whose products a compiler may round together: two float32 ulps.
    torch.testing.assert_close(ours, theirs, rtol=2.0**-22, atol=2.0**-22 * theirs.abs().max().item())


@each_policy
def test_an_exported_module_has_the_same_bits(policy):
    a, positions = gate(2, 3, 64), torch.tensor([[0, 1, 2], [5, 6, 7]])
    arm = ARM(policy, width=64, layer=2)
    program = torch.export.export(arm, (a, positions))
    assert any("armlet.redistribute" in str(node.target) for node in program.graph.nodes)
    assert same_bits(program.module()(a, positions), arm(a, positions))


@each_policy
def test_function_transforms_and_fake_tensors_take_the_plain_path(policy):
    a = gate(4, 3, 32)
    each = torch.stack([redistribute(row, policy) for row in a])
    assert same_bits(torch.vmap(lambda row: redistribute(row, policy))(a), each)
    with torch._subclasses.FakeTensorMode() as mode:
        assert redistribute(mode.from_tensor(a), policy).shape == a.shape
    assert same_bits(redistribute(a, policy), each)


@each_policy
def test_what_a_call_in_inference_mode_keeps_serves_a_call_with_gradients(policy):
    entry._cached_keys.cache_clear()
    a = gate(1, 3, 33)
    with torch.inference_mode():
        first = redistribute(a, policy)
    second = redistribute(a.requires_grad_(), policy)
    assert same_bits(first.clone(), second.detach())
    second.sum().backward()


@each_policy
@pytest.mark.usefixtures("forget")
@pytest.mark.filterwarnings("ignore:armlet:UserWarning")
def test_a_torch_without_the_internals_takes_the_plain_path_with_the_same_bits(policy, monkeypatch):
    a, row = gate(2, 3, 64), gate(1, 1, 64)
    expected = [redistribute(values, policy) for values in (a, row)]
    assert backends.backend_for(row, policy) is cpu
    missing: list[str] = []
    monkeypatch.setattr(interception, "MISSING", missing)
    monkeypatch.setattr(backends, "MISSING", missing)
    assert interception.torch_internal(torch._C, "_functorch.no_such_name")() is None
    for cached in (backends._fastest, backends._load, entry._cached_row):
        cached.cache_clear()
    assert missing == ["_functorch.no_such_name"]
    assert backends.backend_for(row, policy) is PLAIN
    assert entry.OneRow(policy, Noise(), 64).move(row, None, None) is None
    for values, bits in zip((a, row), expected, strict=True):
        assert same_bits(redistribute(values, policy), bits)


@pytest.mark.usefixtures("forget")
def test_a_missing_internal_is_said_by_name(monkeypatch):
    monkeypatch.setattr(backends, "MISSING", ["_functorch.no_such_name"])
    monkeypatch.delenv("ARMLET_BACKEND", raising=False)
    with pytest.warns(UserWarning, match=r"has no _functorch.no_such_name.*plain PyTorch is used instead"):
        assert backends.backend_for(gate(2, 1, 16), Outward()) is PLAIN
