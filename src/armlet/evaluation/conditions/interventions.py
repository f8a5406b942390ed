"""A user's treatment: a function that changes the loaded model inside a `with` block, judged with ARM's pairs."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from inspect import isgenerator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from armlet.attachment.attach import attach
from armlet.attachment.config import SeveralPlacements
from armlet.attachment.placements import placements_content, read_placements
from armlet.checkpoints.identity import function_identity
from armlet.presentation.files import json_text
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.outward import Outward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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
            raise ArgumentError(f"treatment {self.name}: {_first_line(error)}") from error
        if not finished:
            raise ArgumentError(f"treatment {self.name}: it hid an error of the model; let errors pass")

    def _manager(self, model: "PreTrainedModel") -> AbstractContextManager[object]:
        manager = self.function(model)
        if hasattr(type(manager), "__enter__") and hasattr(type(manager), "__exit__"):
            return manager
        advice = "decorate it with contextlib.contextmanager" if isgenerator(manager) else "see examples/treatments.py"
        expected = f"expected a context manager, found {type(manager).__name__}"
        raise ArgumentError(f"treatment {self.name}: {expected}; {advice}")


def is_file_treatment(text: str) -> bool:
    """Whether a text names a function of a Python file, as "file.py:function"."""
    return text.rpartition(":")[0].endswith(".py") or text.endswith(".py")


def read_intervention(text: str) -> Intervention:
    """Runs the Python file of "file.py:function", and returns its function as a treatment.

    The file is read once, so that what runs is what the sha256 is of. Modules next to it cannot be imported, because
    the hash would not cover them.

    Raises ArgumentError if the file cannot be read or raises an error, or has no such function.
    """
    file, name, source = read_source(text)
    digest = hashlib.sha256(source).hexdigest()
    module = ModuleType(f"armlet_treatment_{digest[:16]}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses in it look their module up
    try:
        exec(compile(source, str(file), "exec"), vars(module))
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        raise ArgumentError(f"treatment: {file} cannot be run ({_first_line(error)})") from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        listed = ", ".join(functions) or "none"
        raise ArgumentError(f"treatment: {file} has no function {name!r}; its functions: {listed}")
    source_facts = {"file": file.name, "function": name, "sha256": digest}
    return Intervention(f"{file.name}:{name}", cast("ModelChange", function), source_facts)


def read_source(text: str) -> tuple[Path, str, bytes]:
    """The file, the name and the file's content of "file.py:function"; raises ArgumentError if it cannot be read."""
    path, _, name = text.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise ArgumentError(f"treatment: expected file.py:function, found {text!r}")
    file = Path(path)
    try:
        return file, name, file.read_bytes()
    except OSError as error:
        raise ArgumentError(f"treatment: {file} cannot be read ({error.strerror})") from error


def make_intervention(function: ModelChange) -> Intervention:
    """The treatment of a function that was passed as an object.

    What it does cannot be read from it, so it is equal only to itself: another process does not resume its run.
    """
    name = getattr(function, "__name__", type(function).__name__)
    identity = "/".join(function_identity(function))
    return Intervention(name, function, {"file": None, "function": name, "sha256": f"object:{identity}"})


def placements_intervention(arguments: SeveralPlacements, file: str | None) -> Intervention:
    """Several placements of ARM as one treatment; file: the name of their armlet.json.

    Raises ArgumentError for `Outward` in them: its noise would be the same in all samples of an answer.
    """
    placements = read_placements(arguments["policy"])
    if any(isinstance(placement.policy, Outward) for placement in placements):
        raise ArgumentError(
            "treatments: several placements are evaluated as one function, which would draw the same noise for outward "
            "in each sample; pass the placement with outward alone"
        )
    content = json_text(placements_content(placements))
    source = {"file": file, "function": "attach", "sha256": hashlib.sha256(content.encode()).hexdigest()}
    name = f"{len(placements)} placements ({source['sha256'][:8]})"
    return Intervention(name, partial(attach, **arguments), source | {"placements": content})


def _first_line(error: BaseException) -> str:
    """The type of an error, and the first line of its message."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
