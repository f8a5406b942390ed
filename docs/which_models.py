"""Writes docs/models.md from docs/models.csv: `python docs/which_models.py`."""

import csv
from collections import defaultdict
from pathlib import Path

DOCS = Path(__file__).parent
LACKING = ("no", "not run", "not built")
HEADER = """# Which models

`attach` finds gated MLPs by their structure, so this list is no list of supported names: it is what happens to each class of
transformers {version} that `AutoModelForCausalLM`, `AutoModelForImageTextToText` and `AutoModelForMultimodalLM` load. Each is built tiny
from its configuration and run: alone, padded on either side, and in `generate`. For each that works, a test checks where ARM stands, which draws
each token gets, that the report counts them, and that `detach()` is exact. The table is [models.csv](models.csv); `tests/attachment/test_every_class.py`
holds it against the installed transformers, and `python docs/which_models.py` writes this page.

{works} of {all} work. Models from elsewhere, or of your own, work the same way if their MLP has this structure; `attach` refuses the others, and says why.

- **gate**, **product**: the sites (`site=`). *some layers*: the other layers have no MLP, or one without a gate; `attach` refuses them.
- **experts**: which experts of a mixture can be reached (`experts=`).
"""


def page() -> str:
    """The page, from the table."""
    with (DOCS / "models.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    working = [row for row in rows if row["gate"] not in LACKING or row["product"] not in LACKING]
    untried = [row for row in rows if row["gate"] in ("not run", "not built")]
    refused = [row for row in rows if row not in working and row not in untried]
    header = HEADER.format(version="5.24", works=len(working), all=len(rows))
    return (
        "\n".join([header, *_working(working), *_grouped("Refused", refused), *_grouped("Not tried", untried)]) + "\n"
    )


def _working(rows: list[dict[str, str]]) -> list[str]:
    lines = [
        "## Works",
        "",
        "| model type | class | gate | product | experts | but |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return lines + [f"| {' | '.join(row.values())} |" for row in rows] + [""]


def _grouped(title: str, rows: list[dict[str, str]]) -> list[str]:
    """Model types by the reason."""
    reasons: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        reasons[row["reason"]].add(row["model_type"])
    groups = sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        f"## {title}",
        "",
        *(f"- **{reason}**: {', '.join(sorted(types, key=str.lower))}" for reason, types in groups),
        "",
    ]


if __name__ == "__main__":
    (DOCS / "models.md").write_text(page(), encoding="utf-8")
