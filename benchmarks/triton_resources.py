"""Lists the GPU resources of the Triton kernel by compiling it ahead of time; this needs no GPU and times nothing.

`ptxas` reports registers per thread, spilled bytes and shared memory; `fma` and `ftz` count PTX instructions that
would change bits: products fused with sums, and denormals flushed to zero. Run it without TRITON_INTERPRET.
"""

import argparse
import json
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from armlet.redistribution.backends.triton import moves as cuda
from armlet.redistribution.backends.triton.rows import redistribute_rows
from armlet.redistribution.cut import Cut
from armlet.redistribution.inward import Inward
from armlet.redistribution.outward import Outward

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
KERNELS = {
    "outward": (Outward(), None),
    "outward, silu and up": (Outward(), "silu"),
    "outward, gelu_tanh and up": (Outward(), "gelu_tanh"),
    "outward by proportion": (Outward(proportion=0.25, ceiling_of="magnitude", write="add", strength=0.5), None),
    "inward, log": (Inward(), None),
    "inward, clip": (Inward(curve="clip"), None),
    "inward, tanh": (Inward(curve="tanh"), None),
    "inward, limit above, clip": (Inward(limit=2.0, side="above", curve="clip"), None),
    "cut": (Cut(), None),
}
COLUMNS = ("sm", "dtype", "kernel", "width", "warps", "registers", "spilled", "shared", "fma", "ftz")


def source(kernel: str, width: int, dtype: torch.dtype) -> ASTSource:
    """The kernel's source with keyed noise, as a launch on aligned tensors would compile it."""
    policy, activation = KERNELS[kernel]
    constants = {**cuda.constants(policy, width, dtype, activation, False), "uniforms": None, "mask": None}
    absent = ("strengths",) if kernel.startswith("outward") else ("strengths", "keys", "positions")
    constants |= dict.fromkeys(absent)
    rows = {"values": POINTERS[dtype], "target": POINTERS[dtype], "moved_counts": "*i64", "passed_rows": "*i1"}
    types = {**rows, "keys": "*i32", "positions": "*i64"}
    types |= {name: "fp32" for name, value in cuda.launch_numbers(policy, width).items() if isinstance(value, float)}
    names = redistribute_rows.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    aligned = [name for name in names if signature[name].startswith("*") or (name == "width" and width % 16 == 0)]
    return ASTSource(
        redistribute_rows, signature, constants, {(names.index(n),): [["tt.divisibility", 16]] for n in aligned}
    )


def measure(kernel: str, width: int, dtype: str, sm: int) -> dict[str, object]:
    """Compiles a kernel; returns one line of the table."""
    options = cuda.compile_options(width)
    triton.knobs.compilation.always_compile = True
    triton.knobs.nvidia.dump_ptxas_log = True
    with redirect_stdout(StringIO()) as report:
        compiled = triton.compile(
            source(kernel, width, DTYPES[dtype]), target=GPUTarget("cuda", sm, 32), options=options
        )
    registers, spilled = (re.findall(p, report.getvalue()) for p in (r"Used (\d+) regis", r"(\d+) bytes spill stores"))
    ptx = compiled.asm["ptx"]
    return {
        "sm": sm,
        "dtype": dtype,
        "kernel": kernel,
        "width": width,
        "warps": options["num_warps"],
        "registers": int(registers[0]),
        "spilled": int(spilled[0]),
        "shared": compiled.metadata.shared,
        "fma": len(re.findall(r"\bfma\.", ptx)),
        "ftz": len(re.findall(r"\.ftz\b", ptx)),
    }


def main() -> None:
    """Prints the table, and writes it to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sm", type=int, nargs="+", default=[80, 90])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=DTYPES)
    parser.add_argument("--widths", type=int, nargs="+", default=[1536, 8192, 8960, 18944, 32768])
    parser.add_argument("--kernels", nargs="+", default=list(KERNELS), choices=KERNELS)
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    print(" | ".join(COLUMNS))
    lines = []
    for sm in options.sm:
        for dtype in options.dtypes:
            for kernel in options.kernels:
                for width in options.widths:
                    lines.append(measure(kernel, width, dtype, sm))
                    print(" | ".join(str(lines[-1][column]) for column in COLUMNS), flush=True)
    if options.out:
        options.out.write_text(json.dumps({"triton": triton.__version__, "kernels": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
