"""Where a setting comes from: the search or the published table that chose it, as a part of `armlet.json`.

A setting looks better than it is on the items that chose it. Its file therefore says which these were.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from armlet.redistribution.built_in import PUBLISHED
from armlet.redistribution.errors import ArgumentError, description
from armlet.redistribution.presets import published_names

ORIGIN_KEY = "origin"  # in an armlet.json
ORIGIN_VERSION = 1
OriginSource = Literal["tune", "published"]
ITEM_HASH = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class Origin:
    """What chose a setting."""

    source: OriginSource  # a search of `tune`, or the table of arXiv 2510.01032
    name: str  # the search's folder, or the model in the table
    tasks: tuple[str, ...]  # the tasks whose items chose it
    sha256: str = ""  # of the search's manifest; empty for the table
    items: tuple[str, ...] = ()  # the contents' hashes of the search's tuning items; none for the table

    def plain(self) -> dict[str, object]:
        """The value in an armlet.json, with its version."""
        searched = {"sha256": self.sha256, "items": [*self.items]} if self.source == "tune" else {}
        facts = {"source": self.source, "name": self.name, "tasks": [*self.tasks]}
        return {"version": ORIGIN_VERSION, **facts, **searched}


def parse_origin(content: object) -> Origin | None:
    """Parses the value in an armlet.json, None if there is none; raises ArgumentError for anything else."""
    if content is None:
        return None
    if not isinstance(content, Mapping):
        raise ArgumentError(f"origin: expected an object, found {description(content)}")
    facts, version = dict(content), content.get("version")
    if type(version) is not int or version < 1:
        raise ArgumentError(f"origin: version must be an integer of at least 1, found {version!r}")
    if version > ORIGIN_VERSION:
        raise ArgumentError(f"origin: has version {version}, but this armlet reads up to {ORIGIN_VERSION}: upgrade it")
    source, name, sha256 = facts.get("source"), facts.get("name"), facts.get("sha256", "")
    tasks, items = (facts.get(key, []) for key in ("tasks", "items"))
    lists = all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in (tasks, items))
    known = {"version", "source", "name", "tasks", "sha256", "items"}
    if source not in get_args(OriginSource) or not isinstance(name, str) or not isinstance(sha256, str) or not lists:
        expected = "expected source (tune or published), name, tasks, and for tune sha256 and items"
        raise ArgumentError(f"origin: {expected}, found {description(content)}")
    if unknown := [key for key in facts if key not in known]:
        raise ArgumentError(f"origin: unknown {', '.join(map(str, unknown))}; expected {', '.join(sorted(known))}")
    if wrong := [item for item in items if not ITEM_HASH.fullmatch(item)]:
        raise ArgumentError(f"origin: items must be 16 hexadecimal digits each, found {description(wrong[0])}")
    return Origin(cast("OriginSource", source), name, tuple(tasks), sha256, tuple(items))


def policy_origin(policy: object) -> Origin | None:
    """The origin that the text of a policy states, "published:MODEL/TASK"; None for anything else.

    Raises ArgumentError if the model or the task is not in the table. An object does not know where it comes from.
    """
    if not isinstance(policy, str) or policy.partition(":")[0] != PUBLISHED:
        return None
    model, _, task = policy.partition(":")[2].rpartition("/")
    name, column = published_names(model, task)
    return Origin("published", name, (column,))
