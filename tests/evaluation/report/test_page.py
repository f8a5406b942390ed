"""The report says what the findings say, shows every text as text, needs nothing else, and is the same each time."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest

from armlet.evaluation.report.page import (
    MAX_TEXT_IN_HTML,
    MAX_TEXT_IN_MARKDOWN,
    SHOWN_IN_HTML,
    SHOWN_IN_MARKDOWN,
    in_markdown,
    markdown,
    page,
    write,
)
from armlet.evaluation.report.sentences import run_settings, title
from armlet.evaluation.report.tables import accuracy_grid
from armlet.evaluation.search.trials import SearchMap, TrialResult
from armlet.presentation.files import WriteError
from evaluations import TREATMENTS, Fake, choices, found, sums

HOSTILE = '<script>alert(1)</script> | a ` * _ [x](http://evil) & "q" \' 😀 $\\frac{1}{2}$\n\nnext --> </pre>'
MODEL = "a/<img src=x onerror=alert(1)>|$m$"
VOID = {"meta", "br", "img", "link", "input", "hr"}

CELLS = [TrialResult(0, {"band": band, "ceiling": 1.0}, "0", 40, 0.5, 0.01, -0.01, None) for band in (0.1, 0.2)]
MAP = SearchMap(CELLS, "band", "ceiling", "band × ceiling | <b>")


class Elements(HTMLParser):
    """Elements with their attributes, and texts by element; what is opened must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts, self.stack = [], {}, []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack:
            self.texts.setdefault(self.stack[-1], []).append(data)

    def tags(self):
        return {tag for tag, _ in self.found}


def cells(line):
    return [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]


@pytest.fixture(scope="module")
def plain():
    return found(sums(60), combine=True)


@pytest.fixture(scope="module")
def hostile():
    return found(sums(60, name="<b>t|</b>$x$"), engine=Fake(wrong=HOSTILE + "x" * 5000, name=MODEL))


RUNS = {
    "one task": lambda: found(sums(40)),
    "choices": lambda: found(choices(40)),
    "several tasks": lambda: found(sums(30), choices(30), fillings=()),
    "samples": lambda: found(sums(30), temperature=0.7, samples=4, treatments=TREATMENTS[:1], fillings=()),
    "best of": lambda: found(sums(30), best_of=3, fillings=(), placebos=False),
    "partial": lambda: found(sums(40), choices(20), engine=Fake(after=14), batch=20),
    "no item": lambda: found(sums(5), engine=Fake(after=1)),
    "no discordant item": lambda: found(sums(5), engine=Fake({"treated": 0.68}), treatments=(), fillings=()),
    "no placebos": lambda: found(sums(20), placebos=False, fillings=()),
}


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_every_run_can_be_reported(tmp_path, run):
    findings = RUNS[run]()
    paths = write(findings, tmp_path / "new")
    assert [path.name for path in paths] == [
        *("report.json", "report.md", "report.html"),
        *(("table.csv", "table.tex") if findings.tasks else ()),
        *(("forest.png", "forest.svg", "forest.pdf") if findings.tasks and findings.tasks[0].comparisons else ()),
    ]
    assert json.loads(paths[0].read_text(encoding="utf-8")) == json.loads(json.dumps(findings.to_dict()))
    text = paths[2].read_text(encoding="utf-8")
    assert Elements(text).found[0][0] == "html"
    for verdict in findings.verdicts:
        assert verdict.sentence in unescape(text)
        assert f"- {in_markdown(verdict.sentence)}\n" in markdown(findings)


@pytest.mark.slow
def test_the_same_findings_give_the_same_bytes(tmp_path, plain):
    one, other = (write(plain, tmp_path / name, map=MAP) for name in "ab")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


@pytest.mark.slow
def test_nothing_is_fetched_and_nothing_runs(tmp_path, hostile):
    text = write(hostile, tmp_path, map=MAP)[2].read_text(encoding="utf-8")
    parsed = Elements(text)
    assert not parsed.tags() & {"script", "img", "link", "iframe", "object", "image", "b"}
    for _, attributes in parsed.found:
        assert not any(name.startswith("on") for name in attributes)
        targets = (attributes.get(name, "#") for name in ("href", "xlink:href", "src"))
        assert all(target.startswith("#") for target in targets)
    assert re.findall(r"url\((?!#)|@import", text) == []
    policies = [a["content"] for tag, a in parsed.found if tag == "meta" and "http-equiv" in a]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


@pytest.mark.slow
def test_every_id_stands_there_once_and_every_reference_finds_one(tmp_path, plain):
    text = write(plain, tmp_path, map=MAP)[2].read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', text)
    drawn = [id for id in ids if not re.search(r"-DejaVu", id)]
    assert len(drawn) == len(set(drawn))
    references = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    assert references
    assert set(references) <= set(ids)


def test_hostile_texts_are_shown_as_they_are(hostile):
    parsed = Elements(page(hostile, ()))
    assert parsed.texts["h1"] == [f"Does ARM help {MODEL.removeprefix('a/')}?"]
    shown = {text for text in parsed.texts["pre"] if text.startswith("<script>")}
    assert shown
    assert {text[: len(HOSTILE)] for text in shown} == {HOSTILE}


def test_long_texts_are_cut(hostile):
    cut = [text for text in Elements(page(hostile, ())).texts["pre"] if len(text) > 100]
    assert {(len(text), text[-1]) for text in cut} == {(MAX_TEXT_IN_HTML, "…")}
    assert max(map(len, markdown(hostile).splitlines())) < 3 * MAX_TEXT_IN_MARKDOWN


def test_a_markdown_cell_neither_ends_early_nor_makes_a_tag(hostile):
    text = markdown(hostile)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    heads = [at for at, line in enumerate(tables) if set(line) <= set("| -")]
    for at, end in zip(heads, [*(at - 1 for at in heads[1:]), len(tables)], strict=True):
        assert {len(cells(line)) for line in tables[at - 1 : end]} == {len(cells(tables[at]))}
    assert not re.search(r"<(?!\s)", text)
    assert "](" not in text


@pytest.mark.slow
@pytest.mark.parametrize("sign", ["\u202e", "\u2066"])
def test_a_sign_that_turns_the_direction_of_text_is_replaced_in_markdown(sign):
    assert in_markdown(f"a{sign}b") == "a\ufffdb"
    findings = found(sums(5, name=f"sums{sign}"), fillings=(), placebos=False)
    assert sign not in markdown(findings)


@pytest.mark.parametrize("letter", list("\\`*_|"))
def test_markdowns_own_letters_are_escaped(letter):
    assert in_markdown(f"a{letter}\n{letter} b") == f"a\\{letter} \\{letter} b"


def test_the_accuracy_table_is_the_same_in_both(plain):
    rows = [row for rows in accuracy_grid(plain.tasks[0]).groups.values() for row in rows]
    lines = [cells(line) for line in markdown(plain).splitlines() if line.startswith("|")]
    for row in rows:
        assert [in_markdown(cell) for cell in row] in lines
        cells_of_row = "".join(f"<td>{cell}</td>" for cell in row[1:])
        assert cells_of_row in re.sub(' data-of="[^"]*"', "", page(plain, ()))


def test_placebos_are_set_apart(plain):
    body = re.findall(r'<tbody class="apart">(.*?)</tbody>', page(plain, ()), re.DOTALL)
    assert [re.findall(r'scope="row">([^<]+)', part) for part in body] == [
        ["identity", "draw-only"],
        ["matched (outward band=0.2)", "matched (inward layers=0/1)"],
        ["zeroed (outward band=0.2)"],
        ["A/A"],
        ["temperature"],
        ["outward band=0.2", "inward layers=0/1"],
        ["outward band=0.2"],
    ]


@pytest.mark.slow
def test_a_partial_run_says_what_is_missing():
    findings = found(sums(40), choices(20), engine=Fake(after=14), batch=20)
    missing = "partial: arithmetic: 20 of 40 items; arc_easy: 0 of 20 items"
    assert f'<p class="banner">{missing}</p>' in page(findings, ())
    assert "**partial: arithmetic: 20 of 40 items; arc\\_easy: 0 of 20 items**" in markdown(findings)


def test_a_whole_run_has_no_banner(plain):
    assert 'class="banner"' not in page(plain, ())
    assert "partial" not in markdown(plain)


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, False])
def test_whether_the_placebos_hold_is_told_in_words_and_by_a_mark(exact):
    findings = found(sums(60), engine=Fake(exact=exact))
    same = findings.tasks[0].same_as_baseline["identity"]
    assert (same == 60) is exact
    said = f"arithmetic: identity matches the baseline's answers exactly for {same} of 60 items"
    mark, kind = ("✓", "ok") if exact else ("✗", "fails")
    assert f'<span class="mark {kind}">{mark}</span>{said}' in unescape(page(findings, ()))
    assert f"- {mark} {said}" in markdown(findings)


def with_arm(findings, name, change):
    """The findings with another record of what ARM did under a condition of the first task."""
    task = findings.tasks[0]
    changed = [replace(each, arm=change(each.arm)) if each.name == name else each for each in task.conditions]
    return replace(findings, tasks=[replace(task, conditions=changed)])


def test_a_layer_in_which_nothing_moved_is_told(plain):
    idle = with_arm(plain, "inward layers=0/1", lambda arm: {**arm, "1": replace(arm["1"], moved=0)})
    assert "✗ arithmetic: inward layers=0/1: 200 tokens run in 2 layers" in (text := markdown(idle))
    assert "no values moved in layer 1" in text


@pytest.mark.slow
def test_discordant_items_are_counted_whole_and_shown_in_part():
    findings = found(sums(400), engine=Fake({"treated": 0.0}), treatments=TREATMENTS[:1], fillings=(), placebos=False)
    row = findings.tasks[0].comparisons[0].comparison
    assert row.lost > SHOWN_IN_HTML
    text = page(findings, ())
    assert f"outward band=0.2 on arithmetic: {row.gained} gained, {row.lost} lost" in text
    assert f"<summary>{row.lost} lost (the first {SHOWN_IN_HTML} are shown)</summary>" in text
    assert text.count("<article>") == min(row.gained, SHOWN_IN_HTML) + SHOWN_IN_HTML
    assert len(re.findall(r"^  - (?:gained|lost), item", markdown(findings), re.MULTILINE)) == SHOWN_IN_MARKDOWN


@pytest.mark.slow
def test_a_run_without_discordant_items_shows_none():
    findings = found(sums(5), engine=Fake({"treated": 0.68}, exact=True), fillings=(), placebos=False)
    findings = replace(findings, tasks=[replace(findings.tasks[0], discordant=[])])
    assert "outward band=0.2 on arithmetic: 0 gained, 0 lost</h3>" in page(findings, ())
    assert "<article>" not in page(findings, ())


def test_a_long_table_is_folded_away_and_a_short_one_is_not(plain):
    assert "<summary>by layer</summary>" not in page(plain, ())
    many = with_arm(plain, "inward layers=0/1", lambda arm: {str(layer): arm["0"] for layer in range(30)})
    assert "<summary>by layer</summary>" in page(many, ())


@pytest.mark.slow
def test_words_are_explained_for_what_was_run_alone():
    with_placebos, without = (found(sums(5), fillings=(), placebos=placebos) for placebos in (True, False))
    assert ["- **placebo**" in markdown(each) for each in (with_placebos, without)] == [True, False]
    assert not any("- **filler**" in markdown(each) for each in (with_placebos, without))


def test_settings_name_model_hash_tasks_sampling_versions_and_machine(plain):
    text = page(plain, ())
    for words in ("made-up/model", "ab" * 32, plain.settings.tasks[0].sha256, "max_new_tokens 64", "made up"):
        assert f"{words}" in text
    for name in ("armlet", "torch", "transformers"):
        assert f"{name} {plain.settings.versions[name]}" in text


def test_settings_have_units_and_a_template_as_it_is_typed_and_none_that_is_not_recorded(plain):
    assert run_settings(plain)["batch"] == "50"
    budget, prompts = {"budget": 45.0, "timed_items": 250}, {"template": "Q: {question}\nA:"}
    settings = replace(plain.settings, batch=None, budget=budget, prompts=prompts)
    shown = run_settings(replace(plain, settings=settings))
    assert shown["budget"] == "45 s for answering; the first 250 items of each task were timed"
    assert shown["prompts"] == "template Q: {question}\\nA:"
    assert "batch" not in shown


def test_the_title_names_a_model_without_its_path(plain):
    engine = {**plain.settings.engine, "model": "../models/smollm2-135m-instruct"}
    assert (
        title(replace(plain, settings=replace(plain.settings, engine=engine))) == "Does ARM help smollm2-135m-instruct?"
    )


def test_what_is_counted_as_a_token_is_said_once(plain):
    for text in (markdown(plain), unescape(page(plain, ()))):
        assert text.count("also those after the end of shorter answers") == 1


@pytest.mark.slow
def test_the_map_is_a_figure_a_table_and_data(tmp_path, plain):
    data, short, long = (path.read_text(encoding="utf-8") for path in write(plain, tmp_path, map=MAP)[:3])
    assert json.loads(data)["map"] == json.loads(json.dumps(MAP.to_dict()))
    assert json.loads(data)["map"]["rows"][1] | {"band": 0.2, "ceiling": 1.0} == json.loads(data)["map"]["rows"][1]
    assert "| 0.2 | 1 | +1.0 [−1.0, +∞] | 40 |" in short
    assert "## band × ceiling \\| &lt;b&gt;" in short
    assert re.findall('<figure class="([a-z]*)"', long) == ["wide", "narrow", "wide", "narrow"]


@pytest.mark.slow
def test_figures_have_the_colours_of_the_page_in_both_modes(tmp_path, plain):
    text = write(plain, tmp_path, map=MAP)[2].read_text(encoding="utf-8")
    style, body = text.split("</style>", 1)
    drawn = "".join(re.findall(r"<svg.*?</svg>", body, re.DOTALL))
    used = set(re.findall(r"var\((--[a-z]+)\)", drawn))
    assert used >= {"--ink", "--soft", "--page", "--band", "--outward", "--inward"}
    light, dark = style.split("prefers-color-scheme: dark", 1)
    assert all(f"{name}:" in light and f"{name}:" in dark for name in used)
    assert not re.findall(r"(?:fill|stroke): #(?:000000|222222|666666|ffffff)", drawn)


def test_a_table_is_readable_without_its_head(plain):
    rows = re.findall(r'<tr><th scope="row">outward band=0\.2</th>(.*?)</tr>', page(plain, ()))
    headings = re.findall(r'data-of="([^"]*)"', rows[0])
    assert [unescape(heading) for heading in headings] == list(accuracy_grid(plain.tasks[0]).headings[1:])


CHROMIUM = shutil.which("chromium")

FRAME = """<iframe src="report.html" style="width:390px;height:900px;border:0"></iframe><script>
onload = () => {
  const all = [...frames[0].document.querySelectorAll("*")];
  const wide = all.filter(each => each.scrollWidth > each.clientWidth + 1 && each.clientWidth
    && getComputedStyle(each).overflowX !== "visible");
  document.title = "wide: " + wide.map(each => each.tagName).join() + ";";
}</script>"""
"""Lists what scrolls sideways in a page 390 pixels wide."""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_nothing_scrolls_sideways_on_a_telephone(tmp_path, hostile):
    write(hostile, tmp_path, map=MAP)
    (tmp_path / "frame.html").write_text(FRAME)
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom")
    command = [str(CHROMIUM), *options, (tmp_path / "frame.html").as_uri()]
    text = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    assert re.findall("wide: (.*?);", text.partition("</title>")[0]) == [""]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, plain):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be written"):
        write(plain, tmp_path / "file")
