"""Writes JSON, CSV and text files in UTF-8, each whole or not at all."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from armlet.redistribution.errors import ArmletError


class WriteError(ArmletError, OSError):
    """A file cannot be written.

    Make room or get the right to write there, or choose another folder, and repeat the call. Results of runs are kept
    in their run folder.
    """


def json_text(content: object) -> str:
    """Indented JSON; raises ValueError for NaN and Infinity, which JSON cannot express."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """CSV with a header line. There must be at least one row, all with the same keys; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_json(path: Path, content: object) -> Path:
    """Writes a JSON file as `write_text` does; returns its path."""
    return write_text(path, json_text(content))


def write_text(path: Path, text: str) -> Path:
    """Writes a text file, whole or not at all, and creates missing folders; returns its path.

    Raises WriteError if the file cannot be written. An existing file stays as it was.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        return partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise WriteError(f"{path}: cannot be written ({error.strerror})") from error
