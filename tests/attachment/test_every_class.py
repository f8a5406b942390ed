"""Every class of transformers that a user may load: what `attach` does to it is what docs/models.csv says."""

import re
import sys
import warnings
from itertools import batched
from pathlib import Path

import pytest
import torch
import transformers

from sweeping import all_classes, read_table, try_class

CLASSES_PER_TEST = 12
KNOWN_FAULTS: dict[tuple[str, str], str] = {}
"""A class → what is wrong with it, as a pattern; an entry whose fault is gone fails the test, too."""


@pytest.fixture(autouse=True)
def _one_quiet_thread():
    threads, verbosity = torch.get_num_threads(), transformers.logging.get_verbosity()
    torch.set_num_threads(1)  # tiny matrices
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of models that nobody here can mend
        yield
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity(verbosity)


@pytest.mark.slow
@pytest.mark.parametrize(
    "pairs", batched(all_classes(), CLASSES_PER_TEST), ids=lambda pairs: f"{pairs[0][0]} to {pairs[-1][0]}"
)
def test_attach_does_to_each_class_what_the_table_says(pairs):
    table, faults, lines = read_table(), [], []
    for pair in pairs:
        row, problems = try_class(*pair)
        known = KNOWN_FAULTS.get(pair)
        wrong = [problem for problem in problems if not known or not re.search(known, problem)]
        if known and not problems:
            wrong.append("works now: remove it from KNOWN_FAULTS")
        faults += [f"{'/'.join(pair)}: {problem}" for problem in dict.fromkeys(wrong)]
        if table.get(pair) != row:
            lines.append(row.line)
    assert not faults, "\n".join(faults)
    assert not lines, "docs/models.csv has other lines, or none; if these are right, put them there:\n" + "\n".join(
        lines
    )


def test_each_row_of_the_table_is_a_class_of_transformers():
    assert read_table().keys() <= set(all_classes())


def test_the_page_is_what_the_table_says():
    docs = Path(__file__).parents[2] / "docs"
    sys.path.insert(0, str(docs))
    try:
        from which_models import page
    finally:
        sys.path.remove(str(docs))
    assert (docs / "models.md").read_text(encoding="utf-8") == page(), "run: python docs/which_models.py"
