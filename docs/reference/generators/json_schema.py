"""JSON schemas of dataclasses, and the parts of other schemas."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def typed(top: type, *parts: type) -> Schema:
    """The schema of a dataclass, closed, and with the comments of its fields and of its parts' as descriptions."""
    schema = TypeAdapter(top).json_schema()
    definitions = schema.get("$defs", {})
    for part, content in ((top, schema), *((part, definitions[part.__name__]) for part in parts)):
        content["properties"] = _with_comments(part, content["properties"])
        content["additionalProperties"] = False
    return {"$schema": DIALECT, **schema}


def described(kind: type) -> Schema:
    """The properties of a dataclass, with its comments as descriptions."""
    return _with_comments(kind, TypeAdapter(kind).json_schema()["properties"])


def _with_comments(kind: type, properties: Mapping[str, Schema]) -> Schema:
    told = comments(kind)
    return {
        name: {**content, **({"description": told[name]} if told.get(name) else {})}
        for name, content in properties.items()
    }


def comments(kind: type) -> dict[str, str]:
    """What the source says about each field: in a comment on its line, or in the docstring's `Attributes`."""
    source = "\n".join(inspect.getsource(base) for base in reversed(kind.__mro__[:-1]))
    attributes = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    told = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8,}.*)*)", attributes, re.MULTILINE)
    documented = {name: " ".join(text.split()) for names, text in told for name in names.split(", ")}
    names = {field.name for field in fields(kind)}
    lines = re.findall(r"^    (\w+): [^#\n]*# (.*)$", source, re.MULTILINE)
    return documented | {name: text for name, text in lines if name in names}


def object_of(properties: Schema, required: Sequence[str] = (), *, closed: bool = True) -> Schema:
    """An object with these properties and, if it is closed, no others."""
    shape: Schema = {"type": "object", "properties": properties, "required": [*required]}
    return shape | ({"additionalProperties": False} if closed else {})


def list_of(content: Schema, **limits: int) -> Schema:
    """A list of values of a kind."""
    return {"type": "array", "items": content, **limits}


def references(definitions: Iterable[str]) -> list[Schema]:
    """References to definitions of the same schema."""
    return [{"$ref": f"#/$defs/{name}"} for name in definitions]
