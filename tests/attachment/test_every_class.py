"""Every class of transformers that a user may load: `attach` does with it what docs/reference/models.csv says."""

import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version

import captures
import operations
from armlet.attachment import mixtures, positions, sites
from armlet.attachment.experts import RoutedExperts
from armlet.attachment.gated_mlps import UpOutput
from armlet.attachment.sites import SITES, UP
from sweeping import all_classes, read_table, table_row, try_class

DOCS = Path(__file__).parents[2] / "docs" / "reference"
sys.path.insert(0, str(DOCS))
try:
    from which_models import TRANSFORMERS, page
finally:
    sys.path.remove(str(DOCS))

AT_ONCE = 12
CLASSES = all_classes()
pytestmark = pytest.mark.skipif(
    Version(transformers.__version__) < Version(TRANSFORMERS), reason="the table is that of a newer transformers"
)


@pytest.fixture
def one_quiet_thread():
    threads, verbosity = torch.get_num_threads(), transformers.logging.get_verbosity()
    torch.set_num_threads(1)  # tiny matrices
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of models, which nobody here can mend
        yield
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity(verbosity)


@pytest.mark.slow
@pytest.mark.usefixtures("one_quiet_thread")
@pytest.mark.parametrize("first", range(0, len(CLASSES), AT_ONCE), ids=lambda first: CLASSES[first][0])
def test_attach_does_with_each_class_what_the_table_says(first):
    table, faults, lines = read_table(), [], []
    for pair in CLASSES[first : first + AT_ONCE]:
        row, problems = table_row(*pair)
        faults += [f"{'/'.join(pair)}: {problem}" for problem in dict.fromkeys(problems)]
        if table.get(pair) != row:
            lines.append(row.line)
    assert not faults, "\n".join(faults)
    assert not lines, "if these lines are right, put them into docs/reference/models.csv:\n" + "\n".join(lines)


def test_each_row_of_the_table_is_a_class_of_transformers():
    assert read_table().keys() <= set(CLASSES)


def test_most_classes_work():
    assert sum(row.works for row in read_table().values()) >= 190


def test_the_page_is_that_of_the_table():
    assert (DOCS / "models.md").read_text(encoding="utf-8") == page(), "run: python docs/reference/which_models.py"


@pytest.mark.slow
@pytest.mark.usefixtures("one_quiet_thread")
@pytest.mark.parametrize("pair", [("llama", "LlamaForCausalLM"), ("mixtral", "MixtralForCausalLM")], ids=lambda p: p[0])
class TestTheSweepCanFail:
    def test_at_positions_that_count_padding(self, pair, monkeypatch):
        def locate(columns, padding, _position_ids):
            return columns[None], None if padding is None else padding[:, columns] != 0, None

        monkeypatch.setattr(positions, "locate", locate)
        problems = try_class(*pair)[1]
        assert all("padding left" in problem or "generate" in problem for problem in problems)
        assert_at_each_site("other draws", problems)

    def test_at_an_arm_that_acts_on_padding(self, pair, monkeypatch):
        locate = positions.locate
        monkeypatch.setattr(positions, "locate", lambda *arguments: (locate(*arguments)[0], None, None))
        problems = try_class(*pair)[1]
        assert any("padding right" in problem for problem in problems)
        assert_at_each_site("padding left", problems)

    def test_at_an_arm_in_another_place(self, pair, monkeypatch):
        monkeypatch.setattr(operations, "MULTIPLICATIONS", ("add",))  # as if the model added what it multiplies
        assert any("not the product with up" in problem for problem in try_class(*pair)[1])

    def test_at_the_draws_of_another_layer(self, pair, monkeypatch):
        uniforms = captures.uniforms
        monkeypatch.setattr(captures, "uniforms", lambda width, layer, *rest: uniforms(width, layer + 1, *rest))
        assert_at_each_site("other draws", try_class(*pair)[1])


@pytest.mark.slow
@pytest.mark.usefixtures("one_quiet_thread")
class TestTheSweepCanFailAtUp:
    def test_at_another_linear(self, monkeypatch):
        monkeypatch.setattr(sites, "up_output", lambda _mlp, _down: UpOutput("gate_proj"))
        assert places_at_up(try_class("llama", "LlamaForCausalLM")[1]) == {"silu reads ARM's output"}

    def test_at_the_half_of_gate_in_a_linear(self, monkeypatch):
        monkeypatch.setattr(sites, "up_output", lambda _mlp, _down: UpOutput("gate_up_proj", 0))
        assert places_at_up(try_class("phi3", "Phi3ForCausalLM")[1]) == {"silu reads ARM's output"}

    def test_at_the_columns_of_gate_in_experts(self, monkeypatch):
        monkeypatch.setattr(mixtures, "up_columns", lambda _experts, width: slice(width))
        problems = try_class("mixtral", "MixtralForCausalLM")[1]
        assert places_at_up(problems) == {"silu reads ARM's output"}
        unknown = [problem for problem in problems if "rows that are not those of" in problem]
        assert {problem.split(", ")[1] for problem in unknown if problem.startswith("up, ")}  # other implementations
        assert all(problem.startswith("up") for problem in problems)

    def test_at_an_arm_after_the_models_clamp(self, monkeypatch):
        before = RoutedExperts.redistributed
        clamped = lambda arm, a: before(arm, a.clamp(-7, 7) if arm.site.site == UP else a)  # noqa: E731
        monkeypatch.setattr(RoutedExperts, "redistributed", clamped)
        assert places_at_up(try_class("gpt_oss", "GptOssForCausalLM")[1]) == {"ARM's input comes from clamp"}

    def test_at_a_linear_without_arm(self, monkeypatch):
        monkeypatch.setattr(operations, "product_with_up", lambda steps, index: (None, steps[index].output))
        problems = try_class("llama", "LlamaForCausalLM")[1]
        assert "up: model.layers.0.mlp is in a layer with ARM, but has none" in problems


def places_at_up(problems):
    """What is said of the places of ARM at the site up, without what should be there."""
    return {match.group(1) for problem in problems if (match := re.match(r"up: model\.\S+: (.*?),", problem))}


def assert_at_each_site(text, problems):
    """Whether the problems of each site contain one with this text."""
    for site in SITES:
        assert any(problem.startswith(site) and text in problem for problem in problems), f"{site}: {problems}"
