"""Builds the sdist and the wheel, and checks what is in them."""

import hashlib
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

LARGEST = 5_000_000
"""Bytes that a wheel may have."""

SHIPPED = {"armlet/__init__.py", "armlet/py.typed", "armlet/checkpoints/abacus/model.safetensors"}


class FaultError(Exception):
    """Something that a user would run into."""


def require(holds: bool, fault: str) -> None:
    """Raises FaultError with the text if something does not hold."""
    if not holds:
        raise FaultError(fault)


def run_tool(*command: str | Path) -> None:
    """Runs a tool of the checkout's environment; raises FaultError with its output if it fails."""
    done = subprocess.run([sys.executable, "-m", *map(str, command)], capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")


def build_wheel(root: Path, folder: Path) -> Path:
    """Builds the checkout at `root` into `folder`, checks both files, and returns the wheel's path.

    Raises FaultError if a check fails, or if the sdist gives another wheel than the checkout.
    """
    run_tool("build", "--outdir", folder / "sdist", root)  # the sdist, and a wheel from the sdist
    run_tool("build", "--wheel", "--outdir", folder / "tree", root)
    [wheel], [again] = (folder / "tree").glob("*.whl"), (folder / "sdist").glob("*.whl")
    require(contents(wheel) == contents(again), "the sdist's wheel differs from the checkout's")
    files = [*(folder / "sdist").glob("*.tar.gz"), wheel]
    run_tool("twine", "check", "--strict", *files)
    run_tool("check_wheel_contents", wheel)
    check_wheel(wheel)
    for file in files:
        print(f"{file.name}: {file.stat().st_size:,} bytes")
    return wheel


def contents(wheel: Path) -> dict[str, str]:
    """The digest of each file in a wheel, by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def metadata(wheel: Path) -> Message:
    """A wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return BytesParser().parsebytes(archive.read(name))


def check_wheel(wheel: Path) -> None:
    """Raises FaultError if a wheel is too large, has tests, lacks a file, or does not state its licence by PEP 639."""
    require(wheel.stat().st_size < LARGEST, f"{wheel.name}: more than {LARGEST:,} bytes")
    names, stated = set(contents(wheel)), metadata(wheel)
    foreign = sorted(name for name in names if not name.startswith("armlet") or "/test" in name)
    require(not foreign, f"{wheel.name}: has {foreign[:3]}")
    require(names >= SHIPPED, f"{wheel.name}: lacks {sorted(SHIPPED - names)}")
    require(stated["License-Expression"] == "Apache-2.0", "METADATA: License-Expression is not Apache-2.0")
    require(stated.get_all("License-File") == ["LICENSE"], "METADATA: License-File is not LICENSE")
    require("License" not in stated, "METADATA: states License, too, which PEP 639 replaced")
    require(any(name.endswith(".dist-info/licenses/LICENSE") for name in names), f"{wheel.name}: has no LICENSE")
