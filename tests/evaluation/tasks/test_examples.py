"""Few-shot examples come from a file, are never among the items, and decide the run."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from armlet.evaluation import confirm, evaluate, tune
from armlet.evaluation.engines.chat import messages
from armlet.evaluation.engines.engine import Ask
from armlet.evaluation.engines.tokens import Tokens, plain_parts
from armlet.evaluation.report.page import markdown
from armlet.evaluation.tasks.examples import PromptForm, make_form
from armlet.evaluation.tasks.problems import Problem
from armlet.evaluation.tasks.sources import arithmetic, given_task
from armlet.redistribution.errors import ArgumentError
from command_line import run
from evaluations import Fake
from tiny_checkpoints import words

SUMS = [{"id": f"e{at}", "question": f"{at}+1", "answer": f"{at}+1={at + 1}#{at + 1}"} for at in range(5)]
CHOICES = [{"question": f"Which {at}?", "choices": ["iron", "wood"], "gold": at % 2} for at in range(3)]
ROWS = [{"question": f"{a}+{b}=?", "answer": str(a + b)} for a in (2, 3) for b in range(3)]
FORM = PromptForm("Q: {question}\nShort:", (Problem("e", "1+1", "2", solution="It is 2."),))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(rows, name="examples.jsonl"):
    Path(name).write_text("\n".join(map(json.dumps, rows)))
    return name


def given(rows, name="task"):
    return given_task(name, rows, None)


def test_the_first_examples_are_those_of_the_lowest_hashes_and_more_contain_fewer():
    file = written(SUMS)
    chosen = [{example.id for example in make_form([given(ROWS)], shots, file, None).examples} for shots in range(1, 6)]
    assert all(fewer < more for fewer, more in pairwise(chosen))
    assert len(chosen[0]) == 1
    facts = make_form([given(ROWS)], 2, file, "{question}!").facts()
    assert (facts["shots"], facts["template"], facts["examples"]["file"]) == (2, "{question}!", "examples.jsonl")
    assert make_form([given(ROWS)], 0, None, None).facts() == {}


def test_an_example_shows_its_whole_worked_solution():
    gsm8k = {"question": "q", "answer": "3 + 4 = 7 apples.\n#### 7"}
    math500 = {"problem": "q", "answer": "7", "solution": "So it is \\boxed{7}."}
    program = {"prompt": "def f():\n", "canonical_solution": "  return 1"}
    code = {"task_id": "c", "test": "t", "entry_point": "f", **program}
    solutions = [given([row]).problems[0].solution for row in (gsm8k, math500, code, CHOICES[1])]
    assert solutions[:2] == [gsm8k["answer"], math500["solution"]]
    assert solutions[2:] == ["```python\ndef f():\n  return 1\n```", "wood"]
    assert given([gsm8k]).problems[0].gold == "7"


def test_a_solution_is_no_part_of_an_items_hash():
    other = {**ROWS[0], "solution": "two"}
    assert given([{"id": 1, **ROWS[0]}]).fingerprint() == given([{"id": 1, **other}]).fingerprint()


@pytest.mark.parametrize(
    ("tasks", "shots", "rows", "template", "message"),
    [
        ([given(ROWS)], 6, SUMS, None, "^examples: examples.jsonl has 5 rows, fewer than shots, 6$"),
        ([given(ROWS)], 0, SUMS, None, r"^examples: needs shots \(--shots\), too; or leave it out$"),
        ([given(ROWS)], 2, None, None, r"^shots: needs examples \(--examples\), too; or leave it out$"),
        ([given(ROWS)], 1, CHOICES, None, "^examples: examples.jsonl has problems of the kind choice, task of maths$"),
        ([given(ROWS)], 1, [*ROWS, *CHOICES], None, r"^examples: .* mixes kinds .*: put each kind .* of its own$"),
        ([given(ROWS)], 6, ROWS, None, r"^examples: examples.jsonl line 1 asks the same as task item 1, whose"),
        ([given(ROWS)], 0, None, "Answer:", r"^template: expected one \{question\}, found 0 in 'Answer:'$"),
        (
            [given(ROWS)],
            1,
            [{"question": "q"}],
            None,
            "^examples: examples.jsonl, line 1: expected problem or question",
        ),
        (
            [given([{"context": "A man", "choices": ["sits", "runs"], "gold": 0}])],
            *(0, None, "{question}", r"^template: items of task have no question to put in place of \{question\}$"),
        ),
    ],
)
def test_examples_and_templates_that_cannot_be_used_are_refused_in_one_line(tasks, shots, rows, template, message):
    file = rows and written(rows)
    with pytest.raises(ArgumentError, match=message) as caught:
        make_form(tasks, shots, file, template)
    assert "\n" not in str(caught.value)


def test_arithmetic_takes_examples_with_their_steps():
    assert make_form([arithmetic(5, difficulty=3)], 2, written(SUMS), None).examples[0].solution.endswith("#1")


def test_a_server_gets_examples_as_turns_and_the_question_in_its_template():
    turns = messages(Ask(Problem("a", "2+2", "4"), 0, "Be brief.", FORM), None, 0)
    assert [(turn["role"], turn["content"]) for turn in turns] == [
        ("system", "Be brief."),
        ("user", "Q: 1+1\nShort:"),
        ("assistant", "It is 2."),
        ("user", "Q: 2+2\nShort:"),
    ]


def test_multiple_choice_has_its_examples_as_text_in_lm_evals_format():
    first, second = given(CHOICES).problems[:2]
    ask = Ask(second, 0, "", PromptForm(None, (first,)))
    assert plain_parts(ask) == ("Question: Which 0?\nAnswer: iron\n\n", "Question: Which 1?\nAnswer:")
    ask = Ask(second, 0, "", PromptForm("{question} It is", (first,)))
    assert plain_parts(ask) == ("Which 0? It is iron\n\n", "Which 1? It is")


def test_a_tokenizer_without_a_chat_template_gets_the_format_of_plain_text_only_with_examples():
    question, example = Problem("a", "w5 w6", ""), Problem("e", "w7", "", solution="w8")
    tokens = Tokens(words(), 0)
    texts = [
        tokens.tokenizer.decode(tokens._make_prompt(Ask(question, 0, "w1", form), "between").ids)
        for form in (PromptForm(), PromptForm(None, (example,)), PromptForm("w2 {question} w3", (example,)))
    ]
    assert texts[0] == "w1 w5 w6"
    assert texts[1].count("[UNK]") == 8  # "Question", ":", "Answer" and ":", twice
    assert texts[2] == "w1 w2 w7 w3 w8 w2 w5 w6 w3"


def faked(**arguments):
    return evaluate(engine=lambda *_: Fake(), task=ROWS, treatments=[], placebos=False, filler="/", **arguments)


@pytest.mark.slow
def test_examples_and_template_are_a_part_of_the_manifest_and_of_the_report():
    plain, shown = faked(), faked(shots=2, examples=written(SUMS), template="{question} = ")
    assert plain.folder != shown.folder
    prompts = shown.to_dict()["manifest"]["prompts"]
    assert (prompts["shots"], prompts["template"]) == (2, "{question} = ")
    assert "prompts" not in plain.to_dict()["manifest"]
    assert "shots 2" in markdown(shown)


@pytest.mark.slow
def test_the_command_writes_new_lines_of_a_template_and_answers_with_examples():
    written(SUMS)
    options = ("--items", "4", "--difficulty", "1", "--no-placebos", "--policy", "inward", "--max-new-tokens", "8")
    asked = ("--shots", "2", "--examples", "examples.jsonl", "--template", r"{question}\n")
    code, out, err = run("evaluate", *options, *asked, "--json")
    assert (code, json.loads(out)["manifest"]["prompts"]["template"]) == (0, "{question}\n"), err


@pytest.mark.slow
def test_a_search_is_confirmed_with_its_examples_unless_they_changed():
    rows = [{"question": f"{at}+{at}=?", "answer": str(2 * at)} for at in range(12)]
    file = {"search": "strength", "trials": 0, "max_new_tokens": 2, "shots": 1, "examples": written(SUMS)}
    search = tune("abacus", task=rows, **file)
    written([{**row, "answer": "9"} for row in SUMS])
    with pytest.raises(ArgumentError, match=r"the examples in examples\.jsonl changed after the search; restore them"):
        confirm(search, task=rows)
    written(SUMS)
    assert confirm(search, task=rows).complete
    with pytest.raises(ArgumentError, match="asks the same as"):
        tune("abacus", task=[*rows, SUMS[0], SUMS[1]], **file | {"shots": 5})
