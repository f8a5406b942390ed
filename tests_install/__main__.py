"""`make test-install`: the wheel in one clean environment; with ALL=1, in every one that PLANS lists.

Each environment is deleted when its turn is over. The last line counts what passed, failed and could not be tried.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests_install.distribution import FaultError, build_wheel, metadata, require
from tests_install.environment import Environment, find_python
from tests_install.uses import EXTRAS, use_extra, use_first, use_without_extras

ROOT = Path(__file__).parents[1]
NEWEST, OLDEST, TORCH = "constraints.txt", "constraints-oldest.txt", "torch alone"


@dataclass(frozen=True)
class Plan:
    """An environment to make. `pins` names a file of versions, or TORCH: the newest of all but torch.

    torch is never left open, because an index may offer a build for GPUs of several GB.
    """

    python: str
    installer: str
    pins: str = NEWEST
    extra: str = ""

    def __str__(self) -> str:
        return f"Python {self.python}, {self.installer}, {self.pins}" + (
            f", armlet[{self.extra}]" if self.extra else ""
        )


FIRST = Plan(f"{sys.version_info[0]}.{sys.version_info[1]}", "pip")
PLANS = (
    FIRST,
    *(Plan(python, "uv") for python in ("3.11", "3.12", "3.13")),
    *(Plan(FIRST.python, installer, OLDEST) for installer in ("pip", "uv")),
    Plan(FIRST.python, "uv", TORCH),
    *(Plan(FIRST.python, "uv", NEWEST, extra) for extra in EXTRAS),
)


def main(arguments: argparse.Namespace) -> int:
    """Builds, checks and installs; returns the exit status."""
    failed = untried = passed = 0
    with tempfile.TemporaryDirectory(prefix="armlet-install-") as folder:
        wheel = build_wheel(ROOT, Path(folder))
        for plan in chosen(arguments):
            with timed(plan):
                python = find_python(plan.python)
                if python is None:
                    untried += 1
                    print("not tried: this Python can be had neither here nor through uv", end="")
                    continue
                fault = try_plan(plan, python, wheel, Path(folder))
                passed, failed = passed + (not fault), failed + bool(fault)
                print(fault or "passed", end="")
        if arguments.dist and not failed:
            keep(wheel, Path(folder), arguments.dist)
    print(f"{passed} passed, {failed} failed, {untried} skipped")
    return bool(failed)


def chosen(arguments: argparse.Namespace) -> list[Plan]:
    """The plans that the options ask for; raises FaultError if there is none."""
    if not arguments.all and arguments.only is None:
        return [FIRST]
    plans = [plan for plan in PLANS if (arguments.only or "") in str(plan)]
    require(bool(plans), f"--only: no environment has {arguments.only!r} in its line")
    return plans


def keep(wheel: Path, folder: Path, dist: Path) -> None:
    """Copies the sdist and the wheel that passed."""
    dist.mkdir(parents=True, exist_ok=True)
    for file in (wheel, *(folder / "sdist").glob("*.tar.gz")):
        shutil.copy2(file, dist)


def options() -> argparse.ArgumentParser:
    """The options of `python -m tests_install`."""
    parser = argparse.ArgumentParser(prog="tests_install", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every environment of PLANS")
    parser.add_argument("--only", metavar="TEXT", help="those of PLANS whose line has this text, such as 'uv, '")
    parser.add_argument("--dist", type=Path, help="a folder for the files, if all passed")
    return parser


@contextmanager
def timed(plan: Plan) -> Iterator[None]:
    """Prints a plan's name before, and its time after."""
    print(f"{plan}: ", end="", flush=True)
    start = time.monotonic()
    yield
    print(f" ({time.monotonic() - start:.0f} s)", flush=True)


def try_plan(plan: Plan, python: Path, wheel: Path, folder: Path) -> str:
    """Installs the wheel by a plan and uses it; returns what failed, or nothing."""
    with tempfile.TemporaryDirectory(prefix="environment-", dir=folder) as place:
        try:
            environment = Environment.create(Path(place), python, plan.installer)
            environment.pip("install", "-c", pins(plan, Path(place)), f"{wheel}[{plan.extra}]" if plan.extra else wheel)
            environment.pip("check")
            if plan.extra:
                use_extra(environment, plan.extra)
            else:
                use_first(environment, str(metadata(wheel)["Version"]))
            if plan == FIRST:
                use_without_extras(environment)
        except FaultError as fault:
            return f"FAILED\n{fault}"
    return ""


def pins(plan: Plan, place: Path) -> Path:
    """The file of versions that a plan installs with."""
    if plan.pins != TORCH:
        return ROOT / plan.pins
    lines = (ROOT / NEWEST).read_text().splitlines(keepends=True)
    (place / "pins.txt").write_text("".join(line for line in lines if line.startswith("torch==")))
    return place / "pins.txt"


if __name__ == "__main__":
    try:
        sys.exit(main(options().parse_args()))
    except FaultError as error:
        sys.exit(f"test-install: {error}")
