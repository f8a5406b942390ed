"""Clean environments outside the checkout, made by pip or by uv."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests_install.distribution import FaultError, require

LEAKS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL")
"""Variables by which the checkout would reach into an environment."""

LONGEST = 1800
"""Seconds that one command may take."""


def variables() -> dict[str, str]:
    """The environment of every command: nothing of the checkout, no hub, and pip's folder of wheels for uv, too."""
    kept = {name: value for name, value in os.environ.items() if name not in LEAKS}
    if wheels := kept.get("PIP_FIND_LINKS"):  # uv reads no setting of pip's
        kept.setdefault("UV_FIND_LINKS", wheels.replace(" ", ","))
    return kept | {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg", "COLUMNS": "120", "UV_NO_CONFIG": "1"}


@dataclass(frozen=True)
class Environment:
    """An environment in `folder`, with its own working directory beside it."""

    folder: Path
    installer: str

    @classmethod
    def create(cls, folder: Path, python: Path, installer: str) -> "Environment":
        """Makes an empty environment of an interpreter, with the installer's own command."""
        environment = cls(folder, installer)
        environment.work.mkdir(parents=True)
        making = [uv(), "venv", "-q", "--python", python] if installer == "uv" else [python, "-m", "venv"]
        environment.succeed([*making, environment.prefix])
        return environment

    @property
    def prefix(self) -> Path:
        """The environment itself."""
        return self.folder / "environment"

    @property
    def work(self) -> Path:
        """The working directory of every command."""
        return self.folder / "work"

    def program(self, name: str) -> Path:
        """The path of a program of the environment."""
        return self.prefix / ("Scripts" if os.name == "nt" else "bin") / name

    def pip(self, *arguments: str | Path) -> None:
        """Runs `pip` or `uv pip` on the environment. No file is compiled ahead, to save time."""
        python, (command, *rest) = self.program("python"), arguments
        if self.installer == "uv":
            self.succeed([uv(), "pip", command, "-q", "--python", python, *rest])
            return
        ahead = ["--no-compile"] if command == "install" else []
        self.succeed([python, "-m", "pip", "-q", command, *ahead, *rest])

    def run(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
        """Runs a command in the working directory; standard error is part of the output."""
        words, both = [str(word) for word in command], subprocess.STDOUT
        try:
            return subprocess.run(
                words, cwd=self.work, env=variables(), text=True, timeout=LONGEST, stdout=subprocess.PIPE, stderr=both
            )
        except subprocess.TimeoutExpired as error:
            raise FaultError(f"{' '.join(words)}: still running after {LONGEST} s") from error

    def succeed(self, command: Sequence[str | Path]) -> str:
        """Runs a command and returns its output; raises FaultError if it fails."""
        done = self.run(command)
        require(done.returncode == 0, f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}")
        return done.stdout


def uv() -> Path:
    """The uv beside this Python, or on the path."""
    beside = shutil.which("uv", path=Path(sys.executable).parent) or shutil.which("uv")
    require(beside is not None, "uv is not installed; run make first")
    return Path(str(beside))


def find_python(version: str) -> Path | None:
    """An interpreter of a version such as "3.12": this one, on the path, pyenv's, or uv's; None if none can be had."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    named = [sys.executable, shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for candidate in filter(None, named):
        if _is_version(candidate, version):
            return Path(candidate)
    installing = [uv(), "python", "install", "-q", version]
    if subprocess.run(installing, env=variables(), capture_output=True, check=False).returncode:
        return None
    finding = [uv(), "python", "find", "--managed-python", version]
    return Path(subprocess.run(finding, env=variables(), capture_output=True, text=True, check=True).stdout.strip())


def _is_version(python: str | Path, version: str) -> bool:
    asking = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(asking, capture_output=True, text=True, check=False).stdout.strip() == version
