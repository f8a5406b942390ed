"""How the kernels of the CPU path are compiled: by numba, every operation rounded on its own, cached on disk."""

# numba describes its own decorators by comments, not by types.
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

# No contraction, no reassociation (fastmath): multiply-adds would change the bits. A quotient by zero is IEEE's.
OPTIONS = {"nogil": True, "fastmath": False, "error_model": "numpy", "boundscheck": False}


@cache
def _sources() -> str:
    """A digest of all the code that a kernel may contain: numba only looks at the file of the kernel itself."""
    here = Path(__file__).parent
    files = (*sorted(here.glob("*.py")), here.parents[1] / "functions.py")
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class _Cache(FunctionCache):
    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), _sources())


def compiled(function: Callable[..., Any]) -> Any:
    """`function` as machine code, compiled at its first call; cached on disk where that is possible."""
    return _cached_on_disk(njit(**OPTIONS)(function), function)


def _cached_on_disk(native: Any, function: Callable[..., Any]) -> Any:
    with suppress(RuntimeError):  # no such directory
        native._cache = _Cache(function)
    return native


_compiling = threading.Lock()


class NativeFunction:
    """A C function of int64s without a result: compiled when it is first needed, and cached as `compiled` caches.

    It does not need the interpreter lock, so threads of any library may call it.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function

    @cached_property
    def call(self) -> Callable[..., None]:
        """For Python."""
        return self._compiled.ctypes

    @cached_property
    def address(self) -> int:
        """For C."""
        return self._compiled.address

    @cached_property
    def _compiled(self) -> Any:
        with _compiling:
            native = self.__dict__.get("_compiled")
            if native is None:  # else another thread was first, and may be running its own: it must not be replaced
                arguments = (types.int64,) * self.function.__code__.co_argcount
                native = CFunc(self.function, (arguments, types.void), {}, dict(OPTIONS))
                _cached_on_disk(native, self.function).compile()
                self.__dict__["_compiled"] = native
            return native


def _operation(result: Any, *arguments: Any) -> Callable[[Callable[..., object]], Any]:
    """Makes an operation for kernels, of these types, out of a function that writes it in LLVM's terms."""
    names = [Parameter(f"argument_{i}", Parameter.POSITIONAL_ONLY) for i in range(1 + len(arguments))]

    def decorate(write: Callable[..., object]) -> Any:
        def typing(_context: object, *_types: object) -> tuple[Any, Callable[..., object]]:
            return result(*arguments), lambda _target, builder, _signature, values: write(builder, *values)

        typing.__signature__ = Signature(names)  # type: ignore[attr-defined] - how many arguments, for numba
        return intrinsic(typing)

    return decorate


@_operation(types.voidptr, types.int64)
def _pointer(builder: ir.IRBuilder, address: ir.Value) -> object:
    return builder.inttoptr(address, cgutils.voidptr_t)


LANES, SAMPLE = 64, 32
"""How many keys are compared at once, and how many are sampled from a row for a first guess."""


@_operation(types.uint64, types.int64, types.int16, types.int16)
def lanes_between(builder: ir.IRBuilder, address: ir.Value, first: ir.Value, last: ir.Value) -> object:
    """A uint64: bit i is set where first ≤ keys[i] ≤ last, of the 64 int16 keys at an address.

    In LLVM's vectors: no loop over values compiles to so few comparisons.
    """
    keys = builder.load(_vector_at(builder, address, LANES), align=2)
    not_below = builder.icmp_signed(">=", keys, _splat(builder, first, LANES))
    not_above = builder.icmp_signed("<=", keys, _splat(builder, last, LANES))
    return builder.bitcast(builder.and_(not_below, not_above), ir.IntType(LANES))


@_operation(types.void, types.int64, types.int64)
def count_smaller(builder: ir.IRBuilder, source: ir.Value, target: ir.Value) -> None:
    """Of `SAMPLE` int16 keys at an address, how many are smaller than each, to another address."""
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
    """The place of the lowest set bit of a uint64 other than 0."""
    return builder.cttz(word, ir.Constant(ir.IntType(1), 1))


@_operation(types.int64, types.int64, types.int64)
def add_to(builder: ir.IRBuilder, address: ir.Value, number: ir.Value) -> object:
    """Adds to the int64 at an address, atomically; returns its value before."""
    return builder.atomic_rmw("add", builder.inttoptr(address, ir.IntType(64).as_pointer()), number, "monotonic")


@_operation(types.void, *[types.int64] * 8)
def call_mover(builder: ir.IRBuilder, mover: ir.Value, *arguments: ir.Value) -> None:
    """Calls a policy's function of one row, which writes the moved values and stores how many there are in the job.

    Its arguments: the address of a `RowJob`, the row's index, the addresses of its float32 values and of the results,
    the smallest and the largest signed key, and the address of `key_arrays` and `selection_arrays`.
    """
    kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * len(arguments))
    builder.call(builder.inttoptr(mover, kind.as_pointer()), arguments)


@njit(**OPTIONS)
def array(address: Any, length: Any, dtype: Any) -> Any:
    """The `length` values at `address`: passing a tensor as an array takes longer than a short row's statistics."""
    return carray(_pointer(address), (length,), dtype)


for formula in ("polynomial", "log_of_parts", "central_quantile", "tail_quantile", "far_quantile", "part_of_the_way"):
    register_jitable(**OPTIONS)(getattr(functions, formula))  # kernels may call it, too
