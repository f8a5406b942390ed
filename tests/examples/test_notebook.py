"""The notebook runs from top to bottom, in under three minutes on two cores."""

from pathlib import Path
from time import monotonic

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "examples" / "armlet.ipynb"
SECONDS = 180


@pytest.fixture(scope="module")
def notebook(smollm2_folder, tmp_path_factory):
    """The notebook after all of its cells have run, with the model's folder in place of its hub id."""
    content = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in content.cells), "a notebook is stored without its outputs"
    for cell in content.cells:
        cell.source = cell.source.replace("HuggingFaceTB/SmolLM2-135M-Instruct", str(smollm2_folder))
    start = monotonic()
    folder = str(tmp_path_factory.mktemp("notebook"))
    NotebookClient(content, timeout=SECONDS, resources={"metadata": {"path": folder}}).execute()
    content.metadata["seconds"] = monotonic() - start
    return content


def outputs(notebook, source):
    """The outputs of the cell that contains this text."""
    (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and source in cell.source]
    return cell.outputs


@pytest.mark.slow
def test_it_runs_in_under_three_minutes(notebook):
    assert notebook.metadata["seconds"] < SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("source", ["inspection.inspect", "answers.generate", "findings = armlet", "task=items"])
def test_a_result_is_shown_as_tables_and_a_figure(notebook, source):
    (html,) = [
        output.data["text/html"] for output in outputs(notebook, source) if output.output_type == "execute_result"
    ]
    assert (html.count("<pre"), html.count("<img")) == (1, 1)


@pytest.mark.slow
def test_the_verdict_of_ten_items_is_that_nothing_is_shown(notebook):
    assert "no difference shown" in str(outputs(notebook, "task=items"))


@pytest.mark.slow
def test_no_cell_writes_an_error_or_a_warning(notebook):
    texts = [str(output.get("text", "")) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [text for text in texts if "Warning" in text or "Error" in text] == []
