"""Compiles the CPU kernels with numba: each operation is rounded separately, and kernels are cached on disk."""

# numba's decorators have no types.
# pyright: reportMissingImports=false, reportPrivateImportUsage=false, reportAttributeAccessIssue=false

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache, cached_property
from hashlib import sha256
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.extending import intrinsic, register_jitable

from armlet.redistribution import functions

# No contraction or reassociation (fastmath), which would change bits. Division by zero follows IEEE.
OPTIONS = {"nogil": True, "fastmath": False, "error_model": "numpy", "boundscheck": False}


@cache
def _sources() -> str:
    """Returns a digest of all source code that kernels may contain; numba only checks the kernel's own file."""
    folder = Path(__file__).parent
    files = (*sorted(folder.glob("*.py")), folder.parents[1] / "functions.py")
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class _Cache(FunctionCache):
    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), _sources())


def compiled(function: Callable[..., Any]) -> Any:
    """Returns `function` as machine code, compiled at its first call and cached on disk if possible."""
    return _cached_on_disk(njit(**OPTIONS)(function), function)


def _cached_on_disk(native: Any, function: Callable[..., Any]) -> Any:
    with suppress(RuntimeError):  # no directory for the cache
        native._cache = _Cache(function)
    return native


_compiling = threading.Lock()


class NativeFunction:
    """A C function with int64 arguments and no result, compiled at its first use and cached like `compiled`.

    It does not need the interpreter lock, so threads of any library may call it.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function

    @cached_property
    def call(self) -> Callable[..., None]:
        """The function as a Python callable."""
        return self._compiled.ctypes

    @cached_property
    def address(self) -> int:
        """The function's address, for C."""
        return self._compiled.address

    @cached_property
    def _compiled(self) -> Any:
        with _compiling:
            native = self.__dict__.get("_compiled")
            if native is None:  # else another thread was first; its function may be running and must not be replaced
                arguments = (types.int64,) * self.function.__code__.co_argcount
                native = CFunc(self.function, (arguments, types.void), {}, dict(OPTIONS))
                _cached_on_disk(native, self.function).compile()
                self.__dict__["_compiled"] = native
            return native


def _operation(result: Any, *arguments: Any) -> Callable[[Callable[..., object]], Any]:
    """Makes an operation for kernels, with these types, from a function that builds its LLVM instructions."""
    names = [Parameter(f"argument_{i}", Parameter.POSITIONAL_ONLY) for i in range(1 + len(arguments))]

    def decorate(write: Callable[..., object]) -> Any:
        def typing(_context: object, *_types: object) -> tuple[Any, Callable[..., object]]:
            return result(*arguments), lambda _target, builder, _signature, values: write(builder, *values)

        typing.__signature__ = Signature(names)  # type: ignore[attr-defined] - gives numba the number of arguments
        return intrinsic(typing)

    return decorate


@_operation(types.voidptr, types.int64)
def _pointer(builder: ir.IRBuilder, address: ir.Value) -> object:
    return builder.inttoptr(address, cgutils.voidptr_t)


LANES, SAMPLE = 64, 32
"""The numbers of keys compared at once, and sampled from a row for a first estimate."""


@_operation(types.uint64, types.int64, types.int16, types.int16)
def lanes_between(builder: ir.IRBuilder, address: ir.Value, first: ir.Value, last: ir.Value) -> object:
    """Returns a uint64 whose bit i is set if first ≤ keys[i] ≤ last, for the 64 int16 keys at an address.

    Uses LLVM vectors, because no loop over values compiles to so few comparisons.
    """
    keys = builder.load(_vector_at(builder, address, LANES), align=2)
    not_below = builder.icmp_signed(">=", keys, _splat(builder, first, LANES))
    not_above = builder.icmp_signed("<=", keys, _splat(builder, last, LANES))
    return builder.bitcast(builder.and_(not_below, not_above), ir.IntType(LANES))


@_operation(types.void, types.int64, types.int64)
def count_smaller(builder: ir.IRBuilder, source: ir.Value, target: ir.Value) -> None:
    """Stores at `target`, for each of `SAMPLE` int16 keys at `source`, the number of smaller keys."""
    keys = builder.load(_vector_at(builder, source, SAMPLE), align=2)
    counts = ir.Constant(keys.type, [0] * SAMPLE)
    for lane in range(SAMPLE):
        key = builder.extract_element(keys, ir.Constant(ir.IntType(32), lane))
        smaller = builder.icmp_signed("<", _splat(builder, key, SAMPLE), keys)
        counts = builder.sub(counts, builder.sext(smaller, keys.type))
    builder.store(counts, _vector_at(builder, target, SAMPLE), align=2)


def _vector_at(builder: ir.IRBuilder, address: ir.Value, lanes: int) -> object:
    return builder.inttoptr(address, ir.VectorType(ir.IntType(16), lanes).as_pointer())


def _splat(builder: ir.IRBuilder, value: Any, lanes: int) -> object:
    vector, index = ir.VectorType(value.type, lanes), ir.IntType(32)
    vector_of_one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(index, 0))
    first = ir.Constant(ir.VectorType(index, lanes), [0] * lanes)
    return builder.shuffle_vector(vector_of_one, ir.Constant(vector, ir.Undefined), first)


@_operation(types.int64, types.uint64)
def lowest_bit(builder: ir.IRBuilder, word: ir.Value) -> object:
    """Returns the index of the lowest set bit of a non-zero uint64."""
    return builder.cttz(word, ir.Constant(ir.IntType(1), 1))


@_operation(types.int64, types.int64, types.int64)
def add_to(builder: ir.IRBuilder, address: ir.Value, number: ir.Value) -> object:
    """Adds to the int64 at an address atomically; returns its previous value."""
    return builder.atomic_rmw("add", builder.inttoptr(address, ir.IntType(64).as_pointer()), number, "monotonic")


@_operation(types.void, *[types.int64] * 8)
def call_mover(builder: ir.IRBuilder, mover: ir.Value, *arguments: ir.Value) -> None:
    """Calls a policy's row function, which writes the moved values and stores their number in the job.

    Arguments of the function: the address of a `RowJob`, the row's index, the addresses of its float32 values and of
    the results, the smallest and largest signed key, and the address of `key_arrays` and `selection_arrays`.
    """
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * len(arguments))
    builder.call(builder.inttoptr(mover, kind.as_pointer()), arguments)


@njit(**OPTIONS)
def array(address: Any, length: Any, dtype: Any) -> Any:
    """Returns `length` values at `address` as an array; passing tensors as arrays takes longer than a short row."""
    return carray(_pointer(address), (length,), dtype)


FORMULAS = ("polynomial", "log_of_parts", "tanh_of_parts", "part_of_the_way")
for formula in (*FORMULAS, "central_quantile", "tail_quantile", "far_quantile"):
    register_jitable(**OPTIONS)(getattr(functions, formula))  # so that kernels can call it
