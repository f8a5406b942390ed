"""The one file of results: the card, the versions, the sections and the aims; and the lines that are printed."""

import json
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from armlet.runs.machine import machine
from benchmarks.gpu.aims import judge
from benchmarks.gpu.form import SECTIONS, Form

PACKAGES = ("torch", "triton", "transformers", "numpy", "numba", "pytest", "hypothesis", "matplotlib")
SMI = ("name", "driver_version", "memory.total", "power.limit", "clocks.max.sm", "clocks.max.mem", "compute_mode")
NOT_MEASURED = "not measured: the small form's times are those of an interpreter on the CPU"


def assembled(folder: Path, form: Form, seconds: float) -> dict[str, Any]:
    """Everything that is written to `gpu.json`."""
    sections = {name: read_section(folder / f"{name}.json") for name in SECTIONS}
    return {
        "form": "small" if form.is_small else "full",
        "times mean something": not form.is_small,
        "seconds": round(seconds, 1),
        "gpu": _gpu(),
        "machine": machine(),
        "versions": _versions(),
        "aims": NOT_MEASURED if form.is_small else judge(sections),
        "sections": sections,
    }


def read_section(path: Path) -> dict[str, Any]:
    """What a section wrote, also if it ended before its time; a failure if it wrote nothing."""
    if not path.exists():
        return {"status": "failed", "errors": [{"case": path.stem, "error": "it wrote no results"}]}
    return json.loads(path.read_text(encoding="utf-8"))


def has_failed(content: dict[str, Any]) -> bool:
    """Whether a section failed."""
    return any(section["status"] == "failed" for section in content["sections"].values())


def lines(content: dict[str, Any]) -> list[str]:
    """The summary that is printed."""
    told = []
    for name, section in content["sections"].items():
        told.append(
            f"{name}: {section['status']} in {section.get('seconds', '?')} s {section.get('reason') or ''}".strip()
        )
        told += [f"  failed: {error['case']}: {error['error'].splitlines()[-1]}" for error in section.get("errors", [])]
        told += [f"  dropped for lack of time: {case}" for case in section.get("dropped", [])]
    if isinstance(content["aims"], str):
        return [*told, f"aims: {content['aims']}"]
    for aim in content["aims"]:
        verdict = {None: "not measured", True: "met", False: "missed"}[aim["met"]]
        worst = "" if aim["met"] is None else f": {aim['worst']:.3g} {aim['unit']} ({aim['where']})"
        told.append(f"aim {verdict}: {aim['aim']}{worst}")
    return told


def _gpu() -> dict[str, str] | None:
    """The card as nvidia-smi describes it; its name alone without that program; None without a card."""
    program = shutil.which("nvidia-smi")
    if program is None:
        name = machine()["gpu"]
        return None if name is None else {"name": str(name)}
    command = [program, f"--query-gpu={','.join(SMI)}", "--format=csv,noheader", "--id=0"]
    values = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().split(", ")
    return dict(zip(SMI, values, strict=False))


def _versions() -> dict[str, str | None]:
    import torch

    return {"python": platform.python_version(), "cuda": torch.version.cuda} | {
        name: _version(name) for name in PACKAGES
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
