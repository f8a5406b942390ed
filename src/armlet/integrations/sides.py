"""What two runs of another tool, without and with ARM, must have in common."""

from collections.abc import Mapping

from armlet.redistribution.errors import ArgumentError


def check_same(baseline: Mapping[str, object], treated: Mapping[str, object]) -> None:
    """Raises ArgumentError if a setting other than ARM differs."""
    for key in sorted(baseline.keys() | treated.keys()):
        if baseline.get(key) != treated.get(key):
            raise ArgumentError(
                f"the runs differ by more than ARM: {key} is {baseline.get(key)!r} in the first, {treated.get(key)!r} "
                "in the second"
            )
