"""A policy of one's own moves values as a built-in one does, and a class that could not is refused in one line."""

import importlib
import math
import pickle
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
import torch

from armlet import ARM, Noise, Outward, redistribute
from armlet.evaluation.conditions.placebos import placebo
from armlet.redistribution.entry import redistribute_with_counts
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policies import changed_policy, detail, make_policy, parse_policy, policy_text
from armlet.redistribution.registry import stored_name
from gates import gate
from user_policies import CLASS, SOFT, install, write_policy


def soft(values, share):
    """The example's formula, in NumPy."""
    threshold = np.quantile(np.abs(values), share)
    return np.sign(values) * np.maximum(np.abs(values) - threshold, 0)


def test_a_class_of_a_file_acts_on_the_values_of_a_scope_without_padding():
    a = gate(2, 5, 40)
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]], dtype=torch.bool)
    for scope, parts in {
        "token": [(b, slice(t, t + 1)) for b in range(2) for t in range(2 * b, 5)],
        "sequence": [(0, slice(0, 5)), (1, slice(2, 5))],
    }.items():
        moved = redistribute(a, f"{SOFT}:share=0.3", scope=scope, mask=mask)
        assert torch.equal(moved[1, :2], a[1, :2])
        for part in parts:
            torch.testing.assert_close(moved[part], torch.from_numpy(soft(a[part].numpy(), 0.3)))
    valid = redistribute(a, f"{SOFT}:share=0.3", scope="call", mask=mask)[mask]
    torch.testing.assert_close(valid, torch.from_numpy(soft(a[mask].numpy(), 0.3)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept_and_strength_is_the_way_that_values_go(dtype):
    a = gate(1, 3, 40).to(dtype)
    policy = parse_policy(SOFT)
    assert torch.equal(redistribute(a, changed_policy(policy, {"strength": 0})), a)
    half, full = (redistribute(a, changed_policy(policy, {"strength": s})) for s in (0.5, 1))
    assert half.dtype == full.dtype == dtype
    torch.testing.assert_close(half.double(), (a.double() + full.double()) / 2, rtol=1e-2, atol=1e-3)


@dataclass(frozen=True)
class Drawn:
    """Replaces all values by the draws."""

    strength: float = 1.0
    name: ClassVar[str] = "drawn"

    def move(self, rows, draw):
        return draw().to(rows.values.dtype), torch.ones_like(rows.values, dtype=torch.bool)


def test_draws_are_those_of_outward_by_position_and_layer():
    a, positions = gate(2, 4, 40), torch.tensor([[7, 8, 9, 10], [0, 1, 2, 3]])
    expected = Noise(3).uniforms(a.shape, positions)
    assert torch.equal(redistribute(a, Drawn(), noise=Noise(3), positions=positions), expected)
    arm = ARM(Drawn(), width=40, layer=5)
    assert torch.equal(arm(a), Noise(0).uniforms(a.shape, torch.arange(4), Noise(0).keys(40, 5)))


@dataclass(frozen=True)
class Root:
    """Is right in the sample of the check, and not beyond it."""

    strength: float = 1.0
    name: ClassVar[str] = "root"

    def move(self, rows, draw):
        return (1e6 - rows.values).sqrt(), rows.values > 0


def test_a_row_of_which_a_policy_makes_nan_passes_through_and_is_counted():
    a = gate(1, 3, 40)
    a[0, 1, 0] = 2e6
    result = redistribute_with_counts(a, Root(), scope="token", noise=Noise(0))
    assert result.passed.tolist() == [False, True, False]
    assert result.moved[1] == 0
    assert torch.equal(result.values[0, 1], a[0, 1])
    assert result.values.isfinite().all()


@dataclass(frozen=True)
class Narrow:
    """Raises an error in a wide row, which is not in the sample of the check."""

    strength: float = 1.0
    name: ClassVar[str] = "narrow"

    def move(self, rows, draw):
        assert rows.values.shape[-1] < 1000, "too wide"
        return rows.values / 2, rows.values != 0


@pytest.mark.parametrize("acting", [Narrow(), placebo("draw-only", Narrow()), placebo("matched", Narrow())])
def test_an_error_in_a_run_is_one_line_that_says_where_it_was(acting):
    with pytest.raises(
        ArgumentError, match=r"^Narrow: move raised an error \(AssertionError: too wide.*; test_.*, line"
    ):
        redistribute(gate(1, 2, 1000), acting)


compiling = []


@dataclass(frozen=True)
class Watching:
    """Halves values, and notes whether a compiler traces it."""

    strength: float = 1.0
    name: ClassVar[str] = "watching"

    def move(self, rows, draw):
        compiling.append(torch.compiler.is_compiling())
        return rows.values / 2, rows.values != 0


@pytest.mark.slow
def test_it_runs_between_compiled_parts_with_the_same_bits():
    a, policy = gate(2, 5, 40), parse_policy(SOFT)
    torch.compiler.reset()
    compiled = torch.compile(lambda x, moved_by: redistribute(x, moved_by) * 2, backend="aot_eager")
    assert torch.equal(compiled(a, policy), redistribute(a, policy) * 2)
    assert torch.equal(compiled(a, Watching()), a)
    assert set(compiling) == {False}
    whole = torch.compile(lambda x: redistribute(x, policy), backend="aot_eager", fullgraph=True)
    with pytest.raises(Exception, match="_move_outside_compiler"):
        whole(a)
    program = torch.export.export(ARM(policy, width=40), (a,))
    assert torch.equal(program.module()(a), redistribute(a, policy))


# --- text -----------------------------------------------------------------------------------------------------------


def test_text_names_a_class_with_settings_and_whole_numbers_stay_whole(tmp_path):
    counts = CLASS.replace("factor: float = 0.5", "factor: float = 0.5\n    steps: int = 2\n    word: str = 'a'")
    text = write_policy(tmp_path, counts)
    policy = parse_policy(f"{text}:steps=3,word=b,factor=2")
    assert (policy.steps, type(policy.steps), policy.word, policy.factor) == (3, int, "b", 2.0)
    assert policy_text(policy) == "mine.py:Mine:factor=2,steps=3,word=b"
    assert detail(policy) == "factor 2.0, steps 3, word b"
    assert type(policy) is type(parse_policy(text))


def test_every_setting_has_a_text(tmp_path):
    fields = "cap: float | None = 3.0\n    ends: tuple = (1, 2)\n    salt: int = 7\n    factor: float = 0.5"
    text = write_policy(tmp_path, CLASS.replace("factor: float = 0.5", fields))
    kind = type(parse_policy(text))
    changed = kind(cap=None, ends=(3, 4), salt=9007199254740993)
    read = parse_policy(f"{tmp_path}/{policy_text(changed)}")
    assert repr(read) == repr(changed)
    assert repr(make_policy("mine.py:Mine", vars(changed), sha256=stored_name(changed)["sha256"])) == repr(changed)
    with pytest.raises(ArgumentError, match=r"^Mine: the setting cap: expected a number, .*found 'None'"):
        redistribute(gate(1, 2, 40), kind(cap="None"))
    with pytest.raises(ArgumentError, match=r"^outward: .*band must be|^Outward: band must be"):
        parse_policy("outward:band=x.py")


def test_two_classes_of_a_file_are_of_one_module_and_can_be_copied(tmp_path):
    ran = f"from pathlib import Path\nwith open({str(tmp_path / 'ran')!r}, 'a') as file:\n    file.write('x')\n"
    text = write_policy(
        tmp_path, ran + CLASS + CLASS.split("import torch\n")[1].replace("Mine", "More").replace("mine", "more")
    )
    mine, more = parse_policy(text), parse_policy(text.replace(":Mine", ":More"))
    assert (tmp_path / "ran").read_text() == "x"
    assert [pickle.loads(pickle.dumps(policy)) for policy in (mine, more)] == [mine, more]


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("line", ["from beside import FACTOR", "import importlib; importlib.import_module('beside')"])
def test_a_file_that_uses_a_module_next_to_it_is_refused_each_time(loaded, line, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "beside.py").write_text("FACTOR = 1\n")
    if loaded and line.startswith("from"):
        importlib.import_module("beside")
    text = write_policy(tmp_path, f"{line}\n{CLASS}")
    for _ in range(2):
        with pytest.raises(ArgumentError, match=r"^policy: .*mine.py imports beside, a module next to it: its sha256 "):
            parse_policy(text)
    sys.modules.pop("beside", None)


def test_a_class_that_a_file_only_imports_is_refused(tmp_path):
    text = write_policy(tmp_path, "from user_policies_elsewhere import Mine\n")
    module = ModuleType("user_policies_elsewhere")
    sys.modules[module.__name__] = module
    exec(CLASS, vars(module))
    try:
        with pytest.raises(
            ArgumentError, match=r"^policy mine.py:Mine: is a class of user_policies_elsewhere, whose code"
        ):
            parse_policy(text)
    finally:
        del sys.modules[module.__name__]


def test_a_changed_file_is_another_class(tmp_path):
    before = parse_policy(write_policy(tmp_path))
    after = parse_policy(write_policy(tmp_path, CLASS.replace("0.5", "0.25")))
    assert (before.factor, after.factor) == (0.5, 0.25)
    assert stored_name(before)["sha256"] != stored_name(after)["sha256"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("absent.py:Mine", r"policy: absent.py cannot be read \(No such file or directory\)"),
        ("mine.py", "policy: expected file.py:class, found 'mine.py'"),
        ("mine.py:Mine:", "policy: expected file.py:class, found 'mine.py:Mine:'"),
        ("a\0.py:Mine", r"policy: 'a.x00.py:Mine' cannot be read \(.*null"),
        ("mine.py:Yours", "policy: mine.py has no class 'Yours'; its classes: Mine"),
        ("mine.py:torch", "policy: mine.py has no class 'torch'; its classes: Mine"),
        ("mine.py:Mine:width=1", "mine: unknown width; expected factor, strength"),
        ("mine.py:Mine:factor", "mine: expected settings as name=value, .* found 'factor'"),
        ("mine.py:Mine:factor=1/2", r"Mine: move raised an error \(TypeError: "),
    ],
)
def test_text_that_names_no_class_is_refused(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_policy(tmp_path)
    with pytest.raises(ArgumentError, match=f"^{message}") as caught:
        parse_policy(text)
    assert "\n" not in str(caught.value)


# --- what is checked ------------------------------------------------------------------------------------------------

MOVE = "return rows.values * self.factor, rows.values != 0"
REFUSED = {
    "no method": ("def move", "def moves", r"expected a class with a method move\(self, rows, draw\)"),
    "no dataclass": ("@dataclass(frozen=True)", "", "expected a frozen dataclass"),
    "not frozen": ("(frozen=True)", "", "expected a frozen dataclass, found one that can change"),
    "no name": ('name: ClassVar[str] = "mine"', "", "expected a name of small letters"),
    "a name as a setting": ("name: ClassVar[str]", "name: str", "name is a setting"),
    "a name in capitals": ('"mine"', '"Mine"', "expected a name of small letters, .*found 'Mine'"),
    "a built-in name": ('"mine"', '"outward"', "its name 'outward' is that of a built-in policy"),
    "a word": ('"mine"', '"published"', "its name 'published' is that of a word with another meaning"),
    "a condition": ('"mine"', '"identity"', "its name 'identity' is that of a word with another meaning"),
    "no strength": ("strength: float = 1.0", "", "expected a setting strength"),
    "weak": ("strength: float = 1.0", "strength: float = 0.5", "strength: expected the default 1.0, found 0.5"),
    "no default": ("factor: float = 0.5", "factor: float", "the setting factor has no default"),
    "a list": ("factor: float = 0.5", "factor: tuple = (1, 2, 3)", "the setting factor: expected a number, a word"),
    "a switch": ("factor: float = 0.5", "factor: bool = True", "the setting factor: expected a number, a word"),
    "a sentence": ("factor: float = 0.5", "factor: str = 'a, b'", "the setting factor: expected a number, a word"),
    "a taken setting": ("factor", "seed", "the setting seed has a name that armlet.json uses"),
    "refused defaults": (
        "def move",
        "def __post_init__(self):\n        raise ValueError('no')\n\n    def move",
        r"its default settings are refused \(ValueError: no; mine.py, line 13\)",
    ),
    "an error": (MOVE, "return rows.value", r"move raised an error \(AttributeError: .*; mine.py, line 13\)$"),
    "one tensor": (MOVE, "return rows.values", "move must return two tensors"),
    "the shape": (MOVE, "return rows.values[:1], rows.values != 0", "move changes the shape: expected .* for values"),
    "the dtype": (MOVE, "return rows.values.double(), rows.values != 0", "move changes the dtype: .* for values"),
    "the other dtype": (MOVE, "return rows.values.float(), rows.values != 0", "move changes the dtype: .*float64"),
    "the device": (MOVE, "return rows.values.to('meta'), rows.values != 0", "move changes the device: expected cpu"),
    "no bools": (
        MOVE,
        "return rows.values, rows.values.sign()",
        "move changes the dtype: .*bool for which",
    ),
    "in place": (MOVE, "return rows.values.mul_(2), rows.values != 0", "move changes values in place"),
    "draws in place": (MOVE, "return draw().mul_(2).to(rows.values), rows.values != 0", "move changes values in place"),
    "NaN": (MOVE, "return rows.values.log(), rows.values < 1", "move makes NaN or Inf of finite values"),
    "Inf": (MOVE, "return 1 / rows.values, rows.valid is None or rows.values < 1", "move must return two tensors"),
    "infinity": (MOVE, "return 1 / rows.values, rows.values < 1", "move makes NaN or Inf of finite values"),
    "chance": (
        MOVE,
        "return torch.rand_like(rows.values), rows.values != 0",
        "move gives other values",
    ),
    "the global generator": (MOVE, "torch.rand(1); " + MOVE, "move draws from torch's global generator"),
    "strength": (MOVE, "return rows.values * self.strength / 2, rows.values != 0", "move depends on strength"),
    "a strong one": (
        "def move",
        "def __post_init__(self):\n        assert self.strength\n\n    def move",
        r"strength=0.0 is refused \(AssertionError\)",
    ),
    "padding": (MOVE, "return rows.values - rows.values.mean(-1, keepdim=True), rows.values < 9", "padding changes"),
    "other rows": (
        MOVE,
        "return rows.values / (1 + rows.values[-1:]), rows.values < 9",
        "padding changes|a row's values",
    ),
    "the first row": (
        MOVE,
        "return rows.values * rows.values[:1, 1:2], rows.values < 9",
        "a row's values depend on other",
    ),
    "values of all rows": (
        MOVE,
        "valid = torch.ones_like(rows.values) > 0 if rows.valid is None else rows.valid\n"
        "        return rows.values / (1 + rows.magnitude[valid].mean()), rows.values < 9",
        "a row's values depend on other",
    ),
    "values of all rows where there is padding": (
        MOVE,
        "mean = rows.magnitude.mean(-1, keepdim=True) if rows.valid is None else rows.magnitude[rows.valid].mean()\n"
        "        return (rows.values / (1 + mean)).to(rows.values.dtype), rows.values < 9",
        "a row's values depend on other",
    ),
    "the amount of padding": (
        MOVE,
        "valid = torch.ones_like(rows.values) > 0 if rows.valid is None else rows.valid\n"
        "        mean = torch.where(valid, rows.magnitude, 0).mean(-1, keepdim=True)\n"
        "        return (rows.values / (1 + mean)).to(rows.values.dtype), rows.values < 9",
        "the amount of padding changes what move makes",
    ),
    "equal padding of all rows": (
        MOVE,
        "x = rows.magnitude if rows.valid is None else rows.magnitude[rows.valid].view(len(rows.values), -1)\n"
        "        return rows.values / (1 + x.mean(-1, keepdim=True)).to(rows.values.dtype), rows.values < 9",
        "a row's values depend on other",
    ),
    "in place where there is padding": (
        MOVE,
        "x = rows.values if rows.valid is None else rows.values.mul_(2)\n        return x / 2, x != 0",
        "with padding, move changes values in place",
    ),
    "compared without a setting": (
        "factor: float = 0.5",
        "factor: float = __import__('dataclasses').field(default=0.5, compare=False)",
        "the setting factor: expected one that is given, compared and hashed",
    ),
    "a setting that is not given": (
        "factor: float = 0.5",
        "factor: float = __import__('dataclasses').field(default=0.5, init=False)",
        "the setting factor: expected one that is given, compared and hashed",
    ),
    "not compared": ("frozen=True", "frozen=True, eq=False", "expected a dataclass whose objects are compared"),
    "a part of Cut": (
        "class Mine:",
        "class Mine(__import__('armlet').Cut):",
        "expected a class of its own, found a subclass of a built-in policy",
    ),
    "a search of nothing": (
        "def move",
        "search: ClassVar = {'x': (1, 2)}\n\n    def move",
        "search: expected two",
    ),
    "a search of one": (
        "def move",
        "search: ClassVar = {'factor': (1,)}\n\n    def move",
        "search: expected two",
    ),
    "a search down": (
        "def move",
        "search: ClassVar = {'factor': (2, 1)}\n\n    def move",
        "search: expected two",
    ),
    "a search of parts": (
        "def move",
        "count: int = 2\n    search: ClassVar = {'count': (1, 2.5)}\n\n    def move",
        "search: count is a whole number",
    ),
    "a search of strength": (
        "def move",
        "search: ClassVar = {'strength': (0.5, 2.0)}\n\n    def move",
        r"search: strength must be a number in \[0, 1\]",
    ),
    "a search too far": (
        "def move",
        "search: ClassVar = {'factor': (0.1, 9)}\n\n    def __post_init__(self):\n        assert self.factor < 2\n\n"
        "    def move",
        r"search: factor=9 is refused \(AssertionError\)",
    ),
}
"""What in a class is replaced by what, and what is then said of it."""


@pytest.mark.parametrize("case", REFUSED)
def test_a_class_that_is_no_policy_is_refused_in_one_line(case, tmp_path):
    old, new, message = REFUSED[case]
    assert old in CLASS
    text, state = write_policy(tmp_path, CLASS.replace(old, new)), torch.get_rng_state()
    with pytest.raises(ArgumentError, match=f"^policy mine.py:Mine: (?:{message})") as caught:
        parse_policy(text)
    assert "\n" not in str(caught.value)
    assert torch.equal(state, torch.get_rng_state())


def test_that_class_is_a_policy_before_it_is_changed(tmp_path):
    a = gate(1, 2, 40)
    assert torch.equal(redistribute(a, write_policy(tmp_path)), a / 2)


@pytest.mark.parametrize("case", ["not frozen", "no name", "a built-in name", "in place", "the shape", "NaN"])
def test_an_object_is_checked_as_well(case):
    old, new, message = REFUSED[case]
    names = {"__name__": __name__}
    exec(CLASS.replace(old, new), names)
    with pytest.raises(ArgumentError, match=f"^Mine: {message}"):
        redistribute(gate(1, 2, 40), names["Mine"]())
    with pytest.raises(ArgumentError, match=f"^Mine: {message}"):
        ARM(names["Mine"](), width=40)


def test_statistics_of_valid_values_pass_the_checks(tmp_path):
    move = """valid = torch.ones_like(rows.values) > 0 if rows.valid is None else rows.valid
        x, count = torch.where(valid, rows.values, 0), valid.sum(-1, keepdim=True)
        mean = x.sum(-1, keepdim=True) / count
        spread = (torch.where(valid, x - mean, 0) ** 2).sum(-1, keepdim=True) / count
        return (x - mean) / (spread.sqrt() + 1e-3), rows.values < 1e9"""
    policy = parse_policy(write_policy(tmp_path, CLASS.replace(MOVE, move)))
    moved = redistribute(gate(1, 2, 40), policy)
    torch.testing.assert_close(moved.mean(-1), torch.zeros(1, 2), rtol=0, atol=1e-5)


def test_a_setting_may_be_as_large_as_a_row_is_wide(tmp_path):
    move = """m = rows.magnitude if rows.valid is None else rows.magnitude.masked_fill(~rows.valid, -1)
        return rows.values / 2, m >= m.topk(self.count).values[:, -1:]"""
    source = CLASS.replace(MOVE, move).replace("factor: float = 0.5", "count: int = 512")
    assert parse_policy(write_policy(tmp_path, source)).count == 512


@dataclass(frozen=True)
class Counting:
    """Is right with a whole number alone."""

    count: int = 2
    strength: float = 1.0
    name: ClassVar[str] = "counting"

    def move(self, rows, draw):
        return rows.values / len(range(self.count)), rows.values != 0


def test_equal_settings_of_other_types_are_checked_one_by_one():
    assert Counting(2) == Counting(2.0)
    redistribute(gate(1, 2, 40), Counting(2))
    with pytest.raises(ArgumentError, match=r"^Counting: move raised an error \(TypeError: "):
        redistribute(gate(1, 2, 40), Counting(2.0))


@dataclass(frozen=True)
class Seeded:
    """Has a setting with a name that an armlet.json uses for something else."""

    seed: int = 0
    strength: float = 1.0
    name: ClassVar[str] = "seeded"
    move = Drawn.move


@pytest.mark.parametrize("value", [[1, 2], torch.ones(2), "two words", (1.0, 2.0, 3.0), np.float32(2), True])
def test_a_setting_of_an_object_is_a_value_that_can_be_stored(value):
    with pytest.raises(ArgumentError, match=r"^Counting: the setting count: expected a number, .* as value, found"):
        redistribute(gate(1, 2, 40), Counting(value))


def test_a_setting_of_an_object_has_no_name_with_another_meaning():
    with pytest.raises(ArgumentError, match=r"^Seeded: the setting seed has a name that "):
        redistribute(gate(1, 2, 40), Seeded())


def test_settings_are_checked_with_their_values():
    for strength in ("-1", "1.5"):
        with pytest.raises(ArgumentError, match=r"^SoftThreshold: strength must be a number in \[0, 1\], found"):
            parse_policy(f"{SOFT}:strength={strength}")
    with pytest.raises(ArgumentError, match=r"^soft_threshold: share=3 is refused \(ValueError: share must be in"):
        parse_policy(f"{SOFT}:share=3")
    with pytest.raises(ArgumentError, match=r"^soft_threshold: share must be a number, a word .*, found nan"):
        changed_policy(parse_policy(SOFT), {"share": math.nan})


# --- entry points ---------------------------------------------------------------------------------------------------


def test_a_package_registers_a_policy_by_name(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)
    a = gate(1, 3, 40)
    policy = parse_policy("soft_threshold:share=0.3")
    assert torch.equal(redistribute(a, policy), redistribute(a, "soft_threshold:share=0.3"))
    assert policy == make_policy("soft_threshold", {"share": 0.3})
    assert policy_text(policy) == "soft_threshold:share=0.3"
    assert stored_name(type(policy)()) == {"policy": "soft_threshold"}
    with pytest.raises(
        ArgumentError, match=r"expected one of .*, cut, soft_threshold, found 'soft_tre.*; did you mean"
    ):
        parse_policy("soft_treshold")
    with pytest.raises(ArgumentError, match=r"its name 'soft_threshold' is that of soft-threshold 0.1; choose another"):
        parse_policy(write_policy(tmp_path, CLASS.replace('"mine"', '"soft_threshold"')))


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("soft", "soft_threshold:SoftThreshold", "the class calls itself 'soft_threshold'; give class and entry point"),
        ("soft", "absent:Soft", r"absent:Soft cannot be imported \(ModuleNotFoundError: No module named 'absent'\)"),
        ("soft", "soft_threshold:Soft", r"soft_threshold:Soft cannot be imported \(AttributeError: "),
        ("soft", "soft_threshold:ordered", "expected a class with a method move"),
    ],
)
def test_a_wrong_entry_point_is_refused_with_the_package(name, target, message, tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, name, target)
    with pytest.raises(ArgumentError, match=f"^policy soft of soft-threshold 0.1: {message}"):
        parse_policy(name)
    assert parse_policy("outward") == Outward()


def test_one_name_of_two_packages_is_refused(tmp_path, monkeypatch):
    for package in ("soft-one", "soft-two"):
        install(tmp_path, monkeypatch, package=package)
    with pytest.raises(ArgumentError, match=r"^policy soft_threshold: registered by soft-\w+ 0.1 and soft-\w+ 0.1; un"):
        parse_policy("soft_threshold")


def test_an_entry_point_never_replaces_a_built_in_policy(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "outward")
    assert parse_policy("outward") == Outward()


# --- stored names ---------------------------------------------------------------------------------------------------


def test_a_stored_name_of_a_file_runs_nothing(tmp_path):
    trap = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n{CLASS}"
    text = write_policy(tmp_path, trap)
    for digest in (None, "0" * 64, 3):
        with pytest.raises(ArgumentError, match=r"^policy: .*mine.py:Mine is in a file, which armlet runs only if you"):
            make_policy(text, {"factor": 2}, sha256=digest)
    assert not (tmp_path / "ran").exists()
    policy = parse_policy(f"{text}:factor=2")
    assert (tmp_path / "ran").exists()
    stored = stored_name(policy)
    assert make_policy(stored["policy"], {"factor": 2}, sha256=stored["sha256"]) == policy
    with pytest.raises(ArgumentError, match=r"changed since it was stored: pass the policy 'mine.py:Mine:factor=2'"):
        make_policy(stored["policy"], {"factor": 2}, sha256="0" * 64)


def test_a_class_of_a_session_is_recognised_in_it_alone():
    stored = stored_name(Drawn())
    assert make_policy(stored["policy"], {}, sha256=stored["sha256"]) == Drawn()
    with pytest.raises(ArgumentError, match="Drawn was a class of a Python session, which a file cannot name"):
        make_policy("Drawn", {}, sha256="session:of yesterday")


@dataclass(frozen=True)
class OtherOutward(Outward):
    """A class of one's own with the name of a built-in one."""


def test_a_class_with_the_name_of_a_built_in_one_is_never_stored_as_it():
    assert stored_name(OtherOutward())["policy"] == "OtherOutward"
    with pytest.raises(ArgumentError, match="its name 'outward' is that of a built-in policy"):
        redistribute(gate(1, 2, 40), OtherOutward())
