"""How the loops of the CPU path are compiled: numba, every operation rounded on its own, and kept on disk."""

# numba describes its own decorators by comments, not by types.
# pyright: reportMissingImports=false, reportPrivateImportUsage=false, reportAttributeAccessIssue=false

from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.core.caching import FunctionCache
from numba.extending import intrinsic, register_jitable

# No contraction, no reassociation (fastmath): multiply-adds would change the bits. A quotient by zero is IEEE's.
OPTIONS = {"nogil": True, "fastmath": False, "error_model": "numpy", "boundscheck": False}


@cache
def _sources() -> str:
    """A digest of all the code that a loop may be made of: numba looks at the loop's own file alone."""
    here = Path(__file__).parent
    files = (*sorted(here.glob("*.py")), here.parent / "functions.py")
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


class _Cache(FunctionCache):
    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), _sources())


def compiled(function: Callable[..., Any]) -> Any:
    """`function` as machine code, made at its first call; kept on disk where a directory for that can be written."""
    loop = njit(**OPTIONS)(function)
    try:
        loop._cache = _Cache(loop.py_func)
    except RuntimeError:  # no such directory
        return loop
    return loop


def _operation(typing: Callable[..., Any]) -> Any:
    """An operation of loops, written in LLVM's terms: its first argument is numba's own."""
    return intrinsic(typing)


@_operation
def _pointer(_context: Any, _address: Any) -> Any:
    def codegen(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


LANES = 64


@_operation
def lanes_between(_context: Any, _address: Any, _first: Any, _last: Any) -> Any:
    """A uint64: bit i is set where first ≤ keys[i] ≤ last, of the 64 int16 keys at an address.

    In LLVM's own vectors: no loop over values says this so that it becomes a few comparisons.
    """

    def codegen(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        keys = ir.VectorType(ir.IntType(16), LANES)
        address, first, last = arguments
        loaded = builder.load(builder.inttoptr(address, keys.as_pointer()), align=2)
        lanes = [ir.Constant(ir.IntType(32), 0)] * LANES
        every = ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes)

        def splat(value: Any) -> Any:
            one = builder.insert_element(ir.Constant(keys, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
            return builder.shuffle_vector(one, ir.Constant(keys, ir.Undefined), every)

        inside = builder.and_(
            builder.icmp_signed(">=", loaded, splat(first)), builder.icmp_signed("<=", loaded, splat(last))
        )
        return builder.bitcast(inside, ir.IntType(LANES))

    return types.uint64(types.int64, types.int16, types.int16), codegen


@_operation
def lowest_bit(_context: Any, _word: Any) -> Any:
    """The place of the lowest set bit of a uint64 other than 0."""

    def codegen(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


@njit(**OPTIONS)
def array(address: Any, length: Any, dtype: Any) -> Any:
    """The `length` values at `address`: a tensor as an array costs more than a short row's statistics."""
    return carray(_pointer(address), (length,), dtype)


@cache
def share(function: Callable[..., Any]) -> None:
    """Lets loops call `function`, a formula that tensors take too."""
    register_jitable(**OPTIONS)(function)
