"""What two runs of another tool, without and with ARM, must have in common, and what of them is shown."""

from collections.abc import Mapping

from armlet.redistribution.errors import ArgumentError

SECRETS = frozenset({"token", "hf_token", "auth_token", "use_auth_token", "api_key"})
"""Arguments of models that are neither compared nor shown."""


def without_secrets(arguments: Mapping[str, object]) -> dict[str, object]:
    """A model's arguments without `SECRETS`."""
    return {name: value for name, value in arguments.items() if name not in SECRETS}


def check_same(baseline: Mapping[str, object], treated: Mapping[str, object]) -> None:
    """Raises ArgumentError if a setting other than ARM differs."""
    for key in sorted(baseline.keys() | treated.keys()):
        if baseline.get(key) != treated.get(key):
            raise ArgumentError(
                f"the runs differ by more than ARM: {key} is {baseline.get(key)!r} in the first, {treated.get(key)!r} "
                "in the second"
            )
