"""The page of file formats, and the schemas: their tables are the schemas', key by key."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from armlet.evaluation.tasks.sources import GOLD_KEYS, GPQA_KEYS, ID_KEYS, QUESTION_KEYS, SOLUTION_KEYS
from generators.markdown import table
from generators.schemas import schemas


def _codes(keys: Iterable[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)


HEADER = """# File formats

Files are UTF-8, and nothing is pickled. Each has a [JSON Schema](https://json-schema.org) (draft 2020-12) beside this
page. The tables below are those of the schemas, and tests compare both with files that armlet writes and reads. A key
that is not in a table is refused where armlet reads a file; in rows of data it is left alone.
"""

ARMLET = """## armlet.json

What `attachment.save(folder)`, `tune`, `limits` and `quantize` write, and `load_config`, `--config` and vLLM read: a
policy, and where it acts. All keys but `policy` have defaults, also the policy's
[settings](commands.md#policies-and-their-settings). Whether the model has these layers is checked when ARM is attached.

```json
{"version": 1, "policy": "outward", "band": 0.2, "layers": [0, 1], "scope": "token", "noise": "keyed", "seed": 0}
```

`version` is 1 for one placement, and may be left out. Version 2 has several:

```json
{
  "version": 2,
  "placements": [
    {"policy": "inward", "limit": 7.0, "side": "above", "curve": "clip", "layers": "all"},
    {"policy": "inward", "limit": 7.0, "curve": "clip", "layers": "all", "site": "up"}
  ]
}
```

The schema is that of the built-in policies. A [policy of your own](../howto/own_policy.md#in-an-armletjson) has its
name there, or its file and class with the file's `sha256`, and its settings as further keys.
"""

RUN_FOLDER = """## A run folder

What `evaluate`, `tune`, `confirm` and `study` resume in; by default in `armlet-runs/`, named after the run.

| file | content |
| --- | --- |
| `manifest.json` | what affects an answer or a verdict, and the machines; a run resumes only if it agrees |
| `items.jsonl` | the journal, which only grows: the records of a batch, then the line that closes it |
| `tasks.jsonl` | the problems, so that answers can be analysed again |
| `prompts.txt` | the prompt of each task's first item, for people |
| `lock` | empty; locked while a process uses the folder |
| `report.*`, `table.*`, `forest.*` | the report, unless `--out` names another folder |
"""

LIMITS = """## limits.json

What `armlet limits` writes ([what it means](bounds.md#costs)), and the options of the run.
"""

OTHER_KEYS = f"""Other names of these keys are read, too. If a row has several of one line, the first one here counts:

| of | in place of | read |
| --- | --- | --- |
| every row | `id` | {_codes(ID_KEYS)} |
| questions with answers | `question` | {_codes(QUESTION_KEYS)} |
| questions with answers | `answer` | {_codes(GOLD_KEYS)} |
| questions with answers | `solution` | {_codes(SOLUTION_KEYS)} |
| multiple choice | `gold` | `gold`, `answer`; as in ARC, `answerKey`, where `choices` has `label` and `text` |
| GPQA, answered by a letter | all | `Question`, {_codes(GPQA_KEYS)} |
"""

SECTIONS: Mapping[str, str] = {
    "armlet": ARMLET,
    "manifest": RUN_FOLDER + "\n### manifest.json of `evaluate`\n",
    "items": "### items.jsonl of `evaluate`\n",
    "report": "## report.json\n\nWhat `evaluate`, `confirm` and `report` write. It has no time stamp.\n",
    "limits": LIMITS,
    "study": "## A study\n\nWhat `armlet study` reads, in TOML ([an example](../howto/study.md#the-file)).\n",
    "data": """## Rows of data

What `--data` and `--examples` read: JSON Lines, an object on each line. Rows of one file are of one kind, which follows
from their keys: with `choices` they are multiple choice, with `entry_point` programs, and else questions with answers.

```json
{"question": "What is 2 + 3?", "answer": "5"}
```

```json
{"question": "The capital of France is", "choices": ["Paris", "Rome"], "gold": 0}
```

"""
    + OTHER_KEYS,
}


def pages() -> dict[str, str]:
    """The page, and a file for each schema, by path."""
    files = {
        f"schemas/{name}.schema.json": json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
        for name, schema in schemas().items()
    }
    return {"formats.md": _page(schemas()), **files}


def _page(described: Mapping[str, Any]) -> str:
    lines, shown = [HEADER], set[str]()
    for name, text in SECTIONS.items():
        lines += [text, f"Schema: [{name}.schema.json](schemas/{name}.schema.json)", ""]
        lines += _tables(described[name], shown)
        shown |= {name, *described[name].get("$defs", {})}
    return "\n".join(lines)


def _tables(schema: Mapping[str, Any], shown: Set[str]) -> Iterator[str]:
    """A table for each object of a schema that has properties and is not shown before."""
    parts = {"": schema, **schema.get("$defs", {})}
    for name, part in parts.items():
        if name not in shown and "type" in part and part.get("properties"):
            yield from [f"**{name.replace('_', ' ')}**", ""] if name else []
            yield from table(("key", "type", "default", "meaning"), _rows(part))
            yield ""


def _rows(part: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, content in part["properties"].items():
        default = f"`{json.dumps(content['default'])}`" if "default" in content else ""
        default = "needed" if key in part.get("required", ()) else default
        yield f"`{key}`", _type(content), default, re.sub(r"\bNone\b", "null", content.get("description", ""))


def _type(content: Mapping[str, Any]) -> str:
    """A type in words."""
    if "$ref" in content:
        return content["$ref"].rpartition("/")[2].replace("_", " ")
    if "anyOf" in content:
        return " or ".join(dict.fromkeys(map(_type, content["anyOf"])))
    if "const" in content or "enum" in content:
        return ", ".join(f"`{json.dumps(value)}`" for value in content.get("enum", [content.get("const")]))
    kind = content.get("type", "any")
    if kind == "array" and "items" in content:
        return f"list of {_type(content['items'])}"
    return " or ".join([kind] if isinstance(kind, str) else kind)
