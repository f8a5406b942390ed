"""Writes docs/reference/models.md from docs/reference/models.csv: `python docs/reference/which_models.py`."""

import csv
from collections import defaultdict
from pathlib import Path

DOCS = Path(__file__).parent
TRANSFORMERS = "5.24"
"""The version of transformers that the table is of."""

SECTIONS = {"no": "Refused", "fault": "Known faults", "not run": "Not tried", "not built": "Not tried"}
HEADER = """# Which models

`attach` finds gated MLPs by their structure, not by name. This page says what it does with each class of transformers
{version} that `AutoModelForCausalLM`, `AutoModelForImageTextToText` and `AutoModelForMultimodalLM` load: **{works} of
{all} work**. Your own models and those from elsewhere work if their MLPs have the same structure; `attach` refuses all
others, and says why.

This page is about `attach`. What vLLM can serve depends on its own classes and kernels
([mixtures of experts](../howto/serve.md#mixtures-of-experts),
[what is refused](../howto/serve.md#what-is-refused-and-why)).

Each class is built tiny from its configuration and run on text: alone, with padding on the left and on the right, and
in `generate`; at the site `up`, alone and with padding on the left. Tests check without the code of `attach` where ARM
stands, which draws each token gets, that `report()` counts them, that no gated MLP of a treated layer is left out, and
that `detach()` is exact.

- **gate**, **up**, **product**: the sites (`site=`), with the default `experts="all"`. *Yes*: every layer. *Some
  layers*: `attach` refuses the others, whose MLP is of another kind. *Routed experts only*, *shared experts only*: with
  `experts="routed"` or `"shared"`; without it, such a layer is refused. **up** is the output of the linear, before a
  clamp, a softcap or a + 1 in the model's code.
- **experts**: in a mixture, which experts can be reached at one of the sites; empty in models without experts.

Encoder-decoder classes are not in these mappings. T5Gemma's decoder works; T5's gives no positions and is refused.

The table is [models.csv](models.csv), and `python docs/reference/which_models.py` writes this page from it.
`tests/attachment/test_every_class.py` compares it with the installed transformers.
"""


def page() -> str:
    """The page, from the table."""
    with (DOCS / "models.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    working = [row for row in rows if {row["gate"], row["up"], row["product"]} - SECTIONS.keys()]
    lines = [HEADER.format(version=TRANSFORMERS, works=len(working), all=len(rows)), "## Works", ""]
    lines += [
        "| model type | class | gate | up | product | experts | why not all |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {' | '.join(row.values())} |" for row in working]
    for section in dict.fromkeys(SECTIONS.values()):
        lines += _grouped(section, [row for row in rows if row not in working and SECTIONS[row["gate"]] == section])
    return "\n".join(lines) + "\n"


def _grouped(title: str, rows: list[dict[str, str]]) -> list[str]:
    """A section with the model types by reason, the most frequent reason first."""
    types: dict[str, dict[str, None]] = defaultdict(dict)
    for row in rows:
        types[row["reason"]][row["model_type"]] = None
    groups = sorted(types.items(), key=lambda item: -len(item[1]))
    return ["", f"## {title}", "", *(f"- **{reason}**: {', '.join(names)}" for reason, names in groups)] if rows else []


if __name__ == "__main__":
    (DOCS / "models.md").write_text(page(), encoding="utf-8")
