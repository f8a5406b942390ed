"""A user's treatment: a function that changes the loaded model inside a `with` block, judged with ARM's pairs."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from inspect import isgenerator
from typing import TYPE_CHECKING, cast

from armlet.attachment.attach import attach
from armlet.attachment.config import SeveralPlacements
from armlet.attachment.placements import placements_content, read_placements
from armlet.checkpoints.identity import function_identity
from armlet.presentation.files import json_text
from armlet.redistribution.built_in import is_user_policy
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.outward import Outward
from armlet.redistribution.policies import policy_with
from armlet.redistribution.python_file import FileObject, first_line, read_file_object, run_file_object
from armlet.redistribution.registry import remember_class_in_file
from armlet.redistribution.rows import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TREATMENT = "treatment"  # the argument in errors

ModelChange = Callable[["PreTrainedModel"], AbstractContextManager[object]]
"""Returns a context manager in which the model is changed, and after which it is as before."""


@dataclass(frozen=True)
class Intervention:
    """A treatment that a user wrote; `with function(model):` treats the model."""

    name: str  # the name of its condition: "file.py:function", or the name of a function that was passed as an object
    function: ModelChange = field(compare=False, repr=False)
    source: Mapping[str, str | None] = field(hash=False)  # file, function and sha256, by which a run recognises it

    def plain(self) -> dict[str, object]:
        """The source, for the manifest and the report."""
        return dict(self.source)

    @contextmanager
    def applied(self, model: "PreTrainedModel") -> Iterator[None]:
        """The model with this treatment.

        Raises ArgumentError if the function returns no context manager, or it or the model with it raises an error.
        """
        finished = False
        try:
            with self._manager(model):
                yield
                finished = True
        except ArmletError:
            raise
        except (Exception, SystemExit) as error:  # a user's function may raise anything
            raise ArgumentError(f"treatment {self.name}: {first_line(error)}") from error
        if not finished:
            raise ArgumentError(f"treatment {self.name}: it hid an error of the model; let errors pass")

    def _manager(self, model: "PreTrainedModel") -> AbstractContextManager[object]:
        manager = self.function(model)
        if hasattr(type(manager), "__enter__") and hasattr(type(manager), "__exit__"):
            return manager
        advice = "decorate it with contextlib.contextmanager" if isgenerator(manager) else "see examples/treatments.py"
        expected = f"expected a context manager, found {type(manager).__name__}"
        raise ArgumentError(f"treatment {self.name}: {expected}; {advice}")


def read_intervention(text: str) -> Intervention:
    """Runs the Python file of "file.py:function", and returns its function as a treatment.

    Raises ArgumentError if the file cannot be read or raises an error, or has no such function.
    """
    named = read_file_object(text, option=TREATMENT, kind="function")
    function = run_file_object(named)
    if _is_policy_class(function):
        raise named.refused(f"{named.name} is a policy; use --policy {named.file.name}:{named.name}")
    return _file_intervention(named, function)


def read_treatment(text: str) -> "Intervention | Policy":
    """Runs the Python file of "file.py:name", and returns its function as a treatment, or its class as a policy.

    Raises ArgumentError as `read_intervention`, and for a class that is no policy.
    """
    named = read_file_object(text, option=TREATMENT, kind="function")
    value = run_file_object(named)
    if _is_policy_class(value):
        return policy_with(remember_class_in_file(named, value)(), named.settings)
    return _file_intervention(named, value)


def _is_policy_class(value: object) -> bool:
    return isinstance(value, type) and hasattr(value, "move")


def _file_intervention(named: FileObject, function: object) -> Intervention:
    if named.settings:
        raise named.refused(f"{named.name} is a function, which takes no settings, found {named.settings!r}")
    facts = {"file": named.file.name, "function": named.name, "sha256": named.sha256}
    return Intervention(f"{named.file.name}:{named.name}", cast("ModelChange", function), facts)


def make_intervention(function: ModelChange) -> Intervention:
    """The treatment of a function that was passed as an object.

    What it does cannot be read from it, so it is equal only to itself: another process does not resume its run.
    """
    name = getattr(function, "__name__", type(function).__name__)
    identity = "/".join(function_identity(function))
    return Intervention(name, function, {"file": None, "function": name, "sha256": f"object:{identity}"})


def placements_intervention(arguments: SeveralPlacements, file: str | None) -> Intervention:
    """Several placements of ARM as one treatment; file: the name of their armlet.json.

    Raises ArgumentError for `Outward` and a user's policy in them: their noise would be the same in all samples of an
    answer.
    """
    placements = read_placements(arguments["policy"])
    for policy in (placement.policy for placement in placements):
        if isinstance(policy, Outward) or is_user_policy(policy):
            raise ArgumentError(
                "treatments: several placements are evaluated as one function, which would draw the same noise for "
                f"{policy.name} in each sample; pass the placement with {policy.name} alone"
            )
    content = json_text(placements_content(placements))
    source = {"file": file, "function": "attach", "sha256": hashlib.sha256(content.encode()).hexdigest()}
    name = f"{len(placements)} placements ({source['sha256'][:8]})"
    return Intervention(name, partial(attach, **arguments), source | {"placements": content})
