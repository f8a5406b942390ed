"""Measures ARM on one NVIDIA GPU and tests it there, in under eight minutes.

    make gpu                    on a machine with a GPU; writes gpu-results/gpu.json and a figure
    make gpu SMALL=1            a small form on the CPU, under Triton's interpreter: its times mean nothing
    make gpu FIGURE=gpu.json    draws the figure of a run, where matplotlib is installed

Each section is a process of its own with a budget of seconds, so that one that fails leaves the others alone.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = ("torch", "triton", "transformers", "numpy", "pytest", "hypothesis")
GRACE = 8.0
"""Seconds after a section's budget at which it is ended: a case that has begun may finish."""

NO_GPU = (
    "make gpu: no NVIDIA GPU is here (torch.cuda.is_available() is False): run it on a machine with one and a CUDA "
    "build of torch, or run its small form on the CPU: make gpu SMALL=1"
)


def problem(*, small: bool) -> str | None:
    """Why nothing can run here, in a line; None if it can."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        return (
            f"make gpu: {sys.executable} has no {', '.join(missing)}: on a machine with an NVIDIA GPU, choose a Python "
            "that has them: make gpu GPU_PYTHON=path/to/python"
        )
    import torch

    return None if small or torch.cuda.is_available() else NO_GPU


def run_section(name: str, seconds: float, folder: Path, *, small: bool) -> None:
    """Runs a section in this process."""
    import torch

    from benchmarks.gpu.form import FULL, SMALL
    from benchmarks.gpu.section import Section

    if small:
        torch.set_num_threads(1)
    section = Section(folder / f"{name}.json", seconds)
    with section.case(name):
        import_module(f"benchmarks.gpu.{name}").run(section, SMALL if small else FULL)
    section.write()


def start_section(name: str, seconds: float, folder: Path, *, small: bool) -> None:
    """Runs a section in a process of its own; records it as failed if that ends in any other way than by itself."""
    from armlet.presentation.files import write_json
    from benchmarks.gpu.results import read_section

    path = folder / f"{name}.json"
    path.unlink(missing_ok=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}
    if small:
        environment |= {"TRITON_INTERPRET": "1", "ARMLET_BACKEND": "triton", "CUDA_VISIBLE_DEVICES": ""}
        environment["PYTHONWARNINGS"] = "ignore::RuntimeWarning"  # NumPy's, of NaN that nobody looks at
    command = [sys.executable, "-m", "benchmarks.gpu", "--section", name, "--seconds", str(seconds)]
    command += ["--out", str(folder), *["--small"] * small]
    try:
        code = subprocess.run(command, cwd=ROOT, env=environment, timeout=seconds + GRACE, check=False).returncode
        reason = f"its process ended with {code}" if code else None
    except subprocess.TimeoutExpired:
        reason = f"ended {GRACE:.0f} s after its budget of {seconds:.0f} s"
    if reason:
        content = read_section(path)
        errors = [*content.get("errors", []), {"case": name, "error": reason}]
        write_json(path, content | {"status": "failed", "errors": errors})


def run_all(folder: Path, *, small: bool) -> bool:
    """Runs all sections, writes the results and the figure, and prints a summary; returns whether nothing failed."""
    from armlet.presentation.files import write_json
    from benchmarks.gpu.form import FULL, SECTIONS, SMALL
    from benchmarks.gpu.results import assembled, has_failed, lines

    form, start = SMALL if small else FULL, time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    for name in SECTIONS:
        print(f"{name}: at most {form.seconds[name]:.0f} s ...", file=sys.stderr, flush=True)
        start_section(name, form.seconds[name], folder, small=small)
    content = assembled(folder, form, time.monotonic() - start)
    content["figure"] = _figure(content, folder)
    path = write_json(folder / "gpu.json", content)
    print("\n".join([*lines(content), f"results: {path}", *(f"figure: {told}" for told in content["figure"])]))
    return not has_failed(content)


def _figure(content: dict[str, object], folder: Path) -> list[str]:
    """The files of the figure, or why there are none: a figure that fails does not cost the results."""
    from benchmarks.gpu.figure import draw

    try:
        return draw(content, folder)
    except Exception as error:
        return [f"not drawn: {type(error).__name__}: {error}"]


def main() -> None:
    """Runs everything, one section, or draws the figure of a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="the small form, on the CPU")
    parser.add_argument("--out", type=Path, default=ROOT / "gpu-results", help="folder of the results")
    parser.add_argument("--figure", type=Path, help="only draw the figure of this gpu.json, beside it")
    parser.add_argument("--section", help="run one section here, as the whole run does in a process of its own")
    parser.add_argument("--seconds", type=float, default=120.0, help="budget of that section")
    options = parser.parse_args()
    if options.figure:
        print("\n".join(_figure(json.loads(options.figure.read_text(encoding="utf-8")), options.figure.parent)))
    elif reason := problem(small=options.small):
        sys.exit(reason)
    elif options.section:
        run_section(options.section, options.seconds, options.out.absolute(), small=options.small)
    else:
        sys.exit(0 if run_all(options.out.absolute(), small=options.small) else 1)


if __name__ == "__main__":
    main()
