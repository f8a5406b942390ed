"""The page's events, without a browser: what each shows, alone and after an error, and that nothing stays in memory."""

import gc
import os
from pathlib import Path

import pytest

from armlet.playground.events import Events
from armlet.playground.page import Page
from armlet.playground.setting import Setting
from armlet.playground.tour import TOUR
from playgrounds import TEXT, reader

STEPS = ("draw", "show_tokens", "predict", "show_parts", "measure_layers")


def events_of(family="llama", **changes):
    """The events of a page, and the values of its controls."""
    opened = reader(family, **changes)
    page = Page("tiny", opened.layer_count, opened.expert_count, [stop.name for stop in TOUR])
    values = {control: getattr(control, "value", None) for control in page.controls}
    return Events(page, opened, Path()), values | {page.text: TEXT, page.policy: "outward"}


def message(shown):
    return shown[0] if 'class="message"' in str(shown[0]) else ""


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "mixtral", "deepseek_v2", "gemma2"])
def test_every_step_shows_something_and_no_message(family):
    events, values = events_of(family)
    for layer in (0, 1):
        for step in STEPS:
            shown = getattr(events, step)(values | {events.page.layer: layer})
            assert message(shown) == "", step
            assert all(part is not None for part in shown)


def test_an_error_stands_where_its_result_would_be():
    events, values = events_of()
    wrong = values | {events.page.text: "w3 " * 300}
    for step in STEPS:
        assert "300 tokens, and this page takes 256 at most" in message(getattr(events, step)(wrong)), step
    assert "What is drawn is from before." in message(events.draw(wrong))
    assert message(events.draw(values)) == ""


def test_an_unexpected_error_is_a_sentence_and_its_whole_on_the_terminal(monkeypatch, capsys):
    events, values = events_of()
    monkeypatch.setattr("armlet.playground.events.distributions", lambda *_: 1 / 0)
    assert "This did not work (ZeroDivisionError: division by zero)" in message(events.draw(values))
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [1.5, None, -1])
def test_a_seed_that_is_no_whole_number_is_refused_and_not_rounded(seed):
    events, values = events_of()
    assert "seed: expected an integer from 0" in message(events.draw(values | {events.page.seed: seed}))


@pytest.mark.slow
def test_text_is_escaped_wherever_it_is_shown():
    events, values = events_of()
    hostile = values | {events.page.text: "w3 <img src=x onerror=alert(1)>"}
    for step in STEPS:
        assert "<img" not in str(getattr(events, step)(hostile))


def test_what_needs_the_model_says_so_for_a_sample():
    events, values = events_of()
    sample = values | {events.page.sample: "modes"}
    assert message(events.draw(sample)) == ""
    for step in ("predict", "show_parts", "measure_layers"):
        assert "choose &#39;your text&#39;" in getattr(events, step)(sample)[0]
    assert "choose &#39;your text&#39;" in events.compare(sample)[0]
    assert "choose &#39;your text&#39;" in next(events.answer(sample))


@pytest.mark.slow
def test_the_placebos_are_compared_with_the_policy():
    events, values = events_of()
    (table,) = events.compare_placebos(values)
    for name in ("outward", "identity", "draw-only", "matched", "zeroed"):
        assert name in table
    (table,) = events.compare_placebos(values | {events.page.policy: "inward"})
    assert "zeroed" not in table


def test_a_restored_setting_is_what_the_controls_say():
    events, values = events_of()
    setting = Setting(text="w5", layer=2, policy="inward:limit=448,side=above", placebo="matched", seed=9)
    restored = [getattr(part, "value", part) for part in events.restorer(setting)()]
    plain = [part["value"] if isinstance(part, dict) and "value" in part else part for part in restored]
    changed = {
        control: part
        for control, part in zip(events.page.restored, plain, strict=True)
        if not isinstance(part, dict)  # left as it is
    }
    assert events.page.setting(values | changed) == setting


@pytest.mark.slow
def test_a_thousand_updates_do_not_grow_memory_by_50_mb():
    events, values = events_of()
    band = events.page.knobs["outward-band"]

    def update(step):
        moved = values | {band: 0.1 + 0.01 * (step % 30), events.page.layer: step % 3}
        for name in STEPS[:4] if step % 10 == 0 else STEPS[:1]:
            assert message(getattr(events, name)(moved)) == ""

    def megabytes():
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    for step in range(60):
        update(step)
    start = megabytes()
    for step in range(1000):
        update(step)
    assert megabytes() - start < 50
