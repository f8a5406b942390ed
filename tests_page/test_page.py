"""The page of `armlet play` in a real browser: what it shows, how fast, and that nothing leaves this computer."""

import http.client
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
from playwright.sync_api import expect

from armlet import Noise, redistribute
from armlet.checkpoints.given import load_or_use
from armlet.inspection.distributions import distributions
from armlet.playground.effect import effect_of
from armlet.playground.knobs import knobs_of_policy, page_knobs
from armlet.playground.reading import Reader
from armlet.playground.setting import Setting, from_link
from armlet.playground.tour import TOUR

WIDTHS = (390, 768, 1440)
MODEL = "models/smollm2-135m-instruct"
SECOND_TEXT = "Why is the sky blue?"
LOOPBACK = "127.0.0.1"

# Refuses, in the server's process, every connection and every name outside this computer.
GUARD = """
import sys
def watch(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in ("127.0.0.1", "::1"):
        print("LEFT", arguments[1], file=sys.stderr, flush=True)
    if event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", "localhost", "::1", None):
        print("LEFT", arguments[0], file=sys.stderr, flush=True)
sys.addaudithook(watch)
import torch
torch.set_num_threads(2)
from armlet.cli import main
main(sys.argv[1:])
"""


# What would open the page to others, or send it elsewhere, if gradio read it.
HOSTILE = {
    "GRADIO_ALLOWED_PATHS": "/",
    "GRADIO_SERVER_NAME": "0.0.0.0",
    "GRADIO_SHARE": "True",
    "GRADIO_ROOT_PATH": "/elsewhere",
    "GRADIO_NUM_WORKERS": "2",
    "GRADIO_ANALYTICS_ENABLED": "True",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
}


def free_port():
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


class Server:
    """`armlet play` in a process of its own, with what it said."""

    def __init__(self, model, log):
        self.port, self.log = free_port(), log
        command = [sys.executable, "-c", GUARD, "play", model, "--port", str(self.port), "--no-browser"]
        with log.open("w") as file:
            self.process = subprocess.Popen(command, stderr=file, text=True, env=os.environ | HOSTILE)
        end = monotonic() + 180
        while not any("the page is at" in line for line in self.lines):
            assert self.process.poll() is None, self.log.read_text()
            assert monotonic() < end, self.log.read_text()
            sleep(0.1)

    @property
    def lines(self):
        return self.log.read_text().splitlines()

    @property
    def address(self):
        return f"http://{LOOPBACK}:{self.port}/"

    def memory(self):
        """Resident memory, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


@contextmanager
def serving(model, folder):
    server = Server(model, folder / "stderr.txt")
    try:
        yield server
    finally:
        server.process.terminate()
        server.process.wait(30)
    assert [line for line in server.lines if "LEFT" in line] == []
    assert not any("Traceback" in line for line in server.lines), server.log.read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(MODEL, tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture(scope="module")
def reader():
    return Reader(load_or_use(MODEL, None))


def opened(tab, server, query="", width=1440, **options):
    """A tab in which everything was drawn."""
    new = tab(width, **options)
    new.page.goto(server.address + query)
    new.page.wait_for_selector("#distribution .main-svg", timeout=60_000)
    new.page.wait_for_selector("#layers table, #layers .note", timeout=60_000)
    return new


def link(page):
    """The setting that the page says."""
    return from_link(page.locator("#exports a").get_attribute("href"))


def drawn(page):
    """The data of the distribution's figure as numbers."""
    return page.evaluate(
        "[...document.querySelector('#distribution .js-plotly-plot')._fullData]"
        ".map(t => ({x: [...t.x], y: [...t.y], name: t.name, custom: t.customdata ? [...t.customdata] : null}))"
    )


MOVE = """async ([id, value]) => {
  const plot = document.querySelector('#distribution .js-plotly-plot');
  const input = document.querySelector(`[id="${id}"] input[type=range]`);
  const start = performance.now();
  const frame = (done) => requestAnimationFrame(() => done(performance.now() - start));
  const drawn = new Promise((done) => plot.once('plotly_afterplot', () => frame(done)));
  input.value = value;
  input.dispatchEvent(new Event('input', {bubbles: true}));
  input.dispatchEvent(new Event('change', {bubbles: true}));
  return await Promise.race([drawn, new Promise((done) => setTimeout(() => done(null), 20000))]);
}"""


KNOB_VALUES = {"band": 0.3, "ceiling": 0.9, "share_low": 0.05, "share_high": 0.4, "proportion": 0.2, "knee": 0.9}
KNOB_VALUES |= {"spread": 0.5, "threshold": 0.05, "limit": 0.5, "strength": 0.5}

SET = """([id, value]) => {
  const input = document.querySelector(`[id="${id}"] input[type=range]`);
  input.value = value;
  input.dispatchEvent(new Event('input', {bubbles: true}));
  input.dispatchEvent(new Event('change', {bubbles: true}));
}"""

AFTER = """counts => {
  const traces = document.querySelector('#distribution .js-plotly-plot')._fullData.slice(0, 5);
  const after = traces.find(trace => trace.name.startsWith('after'));
  return after && counts.every((count, at) => count === after.customdata[at]);
}"""
"""Whether the outline of the upper row has these counts."""


def set_slider(page, knob, value):
    page.wait_for_selector(f'[id="{knob}"] input[type=range]', state="attached", timeout=20_000)
    page.evaluate(SET, [knob, value])


def wait_for_setting(page, knob, value):
    """The setting that the page says, once the knob has the value in it."""
    end = monotonic() + 20
    while True:
        setting = link(page)
        if knobs_of_policy(setting.policy).get(knob) == value:
            return setting
        assert monotonic() < end, f"{knob} = {value} is not in {setting}"
        page.wait_for_timeout(100)


def move(page, knob, value):
    """Moves a slider; returns the milliseconds until the distribution was drawn."""
    milliseconds = page.evaluate(MOVE, [knob, value])
    assert milliseconds is not None, f"{knob} = {value} was never drawn"
    return milliseconds


def choose(page, control, name):
    page.locator(f"#{control}").get_by_label(name, exact=False).first.check()


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (768, "dark"), (1440, "light"), (1440, "dark")])
def test_the_page_fits_and_has_no_serious_violation(tab, server, width, scheme):
    new = opened(tab, server, width=width, color_scheme=scheme)
    assert new.page.evaluate("document.documentElement.scrollWidth") <= width
    assert new.serious_violations() == []
    assert new.hosts == {LOOPBACK}


def test_what_is_drawn_is_what_redistribute_computes(tab, server, reader):
    page = opened(tab, server).page
    setting = link(page)
    assert setting == Setting()
    reading = reader.read(setting)
    after = redistribute(reading.values[None], setting.chosen(), noise=Noise(0))[0]
    upper, _ = distributions(effect_of(reading, setting).panel)
    before_counts = np.histogram(reading.values.numpy(), upper.edges)[0]
    after_counts = np.histogram(after.numpy(), upper.edges)[0]
    traces = {trace["name"]: trace for trace in drawn(page)[:5]}
    assert traces["before"]["custom"] == before_counts.tolist()
    assert traces["after Outward"]["custom"] == after_counts.tolist()
    share = (after != reading.values).double().mean().item()
    assert f"{100 * share:.1f}" in page.locator("#summary").inner_text()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_knob_is_in_the_setting_and_the_figure(tab, server, reader, width):
    page = opened(tab, server, width=width).page
    page.get_by_text("More settings").click()
    for policy, label in {"outward": "Outward", "inward": "Inward", "transport": "Transport", "cut": "Cut"}.items():
        choose(page, "policy", label)
        for knob in (knob for knob in page_knobs() if knob.policy in (policy, "") and not knob.choices):
            value = KNOB_VALUES.get(knob.name, 0.5)
            set_slider(page, knob.key, value)
            setting = wait_for_setting(page, knob.key, value)
            assert setting.chosen().name == policy
        panel = effect_of(reader.read(setting), setting).panel
        page.wait_for_function(AFTER, arg=distributions(panel)[0].after.tolist(), timeout=20_000)
        set_slider(page, "any-strength", 1)
        wait_for_setting(page, "any-strength", 1)


def test_twenty_moves_are_drawn_in_time_and_the_last_one_is_drawn(tab, server):
    page = opened(tab, server).page
    page.wait_for_timeout(3000)
    times = [move(page, "outward-band", round(0.1 + 0.01 * step, 2)) for step in range(20)]
    expect(page.locator("#exports a")).to_have_attribute("href", re.compile(r"band%3D0.29$"), timeout=20_000)
    assert statistics.median(times) < 400, times


def test_moves_faster_than_drawing_end_at_the_last_one(tab, server, reader):
    page = opened(tab, server).page
    for step in range(20):
        set_slider(page, "outward-band", round(0.2 + 0.01 * step, 2))
    expect(page.locator("#exports a")).to_have_attribute("href", re.compile(r"band%3D0.39$"), timeout=30_000)
    page.wait_for_timeout(1500)
    setting = link(page)
    panel = effect_of(reader.read(setting), setting).panel
    upper, _ = distributions(panel)
    assert {t["name"]: t for t in drawn(page)[:5]}["after Outward"]["custom"] == upper.after.tolist()


def test_updates_do_not_move_the_page(tab, server):
    page = opened(tab, server).page
    page.wait_for_timeout(2000)
    page.evaluate(
        "window.shifts = 0; new PerformanceObserver(list => list.getEntries().forEach(e => window.shifts += e.value))"
        ".observe({type: 'layout-shift', buffered: false})"
    )
    for step in range(5):
        move(page, "outward-band", 0.2 + 0.05 * step)
    page.wait_for_timeout(1500)
    assert page.evaluate("window.shifts") < 0.01


def test_a_typed_text_is_read_and_its_tokens_shown(tab, server, reader):
    page = opened(tab, server).page
    page.locator("#text textarea").fill(SECOND_TEXT)
    words = reader.read(Setting(text=SECOND_TEXT)).words
    expect(page.locator("#tokens button")).to_have_count(len(words), timeout=20_000)
    expect(page.locator("#next-token tbody tr")).to_have_count(10, timeout=20_000)
    page.locator("#tokens button").nth(3).click()
    expect(page.locator("#tokens button").nth(3)).to_have_attribute("aria-pressed", "true", timeout=20_000)


def test_layer_and_part_are_chosen_by_click_and_by_key(tab, server):
    page = opened(tab, server).page
    page.locator("#layers button", has_text=re.compile("^11$")).click()
    expect(page.locator("#exports a")).to_have_attribute("href", re.compile("layer=11"), timeout=20_000)
    part = page.locator("#map [data-part=up]")
    expect(part.locator("title")).to_contain_text("values, from", timeout=20_000)
    part.click()
    expect(page.locator("#tensor-title h3")).to_have_text("up", timeout=20_000)
    page.locator("#map [data-part=Q]").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#tensor-title h3")).to_have_text("Q", timeout=20_000)


def test_answers_are_written_and_the_first_difference_is_marked(tab, server):
    page = opened(tab, server, "?policy=outward%3Aband%3D1%2Cproportion%3D0.5").page
    page.locator("#answer").click()
    expect(page.locator("#answers .note").last).to_contain_text(
        "The first token that differs is marked", timeout=120_000
    )
    assert page.locator("#answers mark").count() == 2
    columns = page.locator("#answers section p")
    assert columns.nth(0).inner_text() != columns.nth(1).inner_text()


def test_off_is_exact_and_placebos_change_nothing_or_say_what_they_do(tab, server):
    page = opened(tab, server).page
    page.locator("#compare").click()
    expect(page.locator("#lamp .exact")).to_contain_text("Off is exact", timeout=60_000)
    page.get_by_text("More settings").click()
    choose(page, "placebo", "identity")
    expect(page.locator("#summary dd").first).to_have_text("0.0 %", timeout=20_000)
    expect(page.locator("#next-token .note")).to_contain_text("(KL): 0 nats", timeout=20_000)
    choose(page, "placebo", "zeroed")
    expect(page.locator("#summary .note")).to_contain_text("zeroed", timeout=20_000)


def test_a_filler_is_measured(tab, server):
    page = opened(tab, server).page
    page.locator("#measure-filler").click()
    expect(page.locator("#fillers tbody tr")).to_have_count(11, timeout=120_000)
    expect(page.locator("#filler-plot .main-svg").first).to_be_visible()


def test_files_are_made(tab, server):
    page = opened(tab, server).page
    page.locator("#draw-files").click()
    for name in ("inspect.png", "inspect.svg", "armlet.json"):
        expect(page.locator("#files")).to_contain_text(name.partition(".")[0], timeout=60_000)


def test_a_link_restores_the_state(tab, server):
    setting = Setting(text=SECOND_TEXT, layer=4, everywhere=True, policy="inward:limit=30,curve=clip", seed=7)
    page = opened(tab, server, setting.link()).page
    expect(page.locator("#exports a")).to_have_attribute("href", setting.link(), timeout=20_000)
    assert page.locator("#text textarea").input_value() == SECOND_TEXT


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?policy=sideways", "the page has knobs for outward"),
        ("?layer=99", "expected one from 0 to 29"),
        ("?colour=red", "unknown 'colour'"),
        ("?layer=two", "expected a whole number"),
        ("?layer=1&layer=2", "layer is in it twice"),
    ],
)
def test_a_wrong_link_is_a_sentence(tab, server, query, sentence):
    new = tab()
    new.page.goto(server.address + query)
    new.page.wait_for_selector("#distribution .main-svg", timeout=60_000)  # of the default setting
    expect(new.page.locator("#link-message .message")).to_contain_text(sentence, timeout=30_000)


def test_a_text_that_is_too_long_says_how_long_it_may_be(tab, server):
    page = opened(tab, server).page
    page.locator("#text textarea").fill("word " * 400)
    expect(page.locator("#message .message")).to_contain_text("256 at most", timeout=30_000)
    page.locator("#text textarea").fill(SECOND_TEXT)
    expect(page.locator("#message .message")).to_have_count(0, timeout=30_000)


def test_two_readers_do_not_mix(tab, server):
    first = opened(tab, server).page
    second = opened(tab, server, Setting(text=SECOND_TEXT, policy="inward", layer=3).link()).page
    move(first, "outward-band", 0.3)
    move(second, "inward-knee", 0.9)
    expect(first.locator("#exports a")).to_have_attribute("href", "?policy=outward%3Aband%3D0.3", timeout=20_000)
    expected = Setting(text=SECOND_TEXT, policy="inward:knee=0.9", layer=3).link()
    expect(second.locator("#exports a")).to_have_attribute("href", expected, timeout=20_000)


@pytest.mark.parametrize("stop", TOUR, ids=lambda stop: stop.name)
def test_a_stop_of_the_tour_sets_the_page(tab, server, stop):
    page = opened(tab, server, "?policy=cut&layer=2").page
    page.get_by_role("button", name=stop.name).click()
    expect(page.locator("#tour-text")).to_contain_text(stop.text[:40], timeout=20_000)
    expect(page.locator("#exports a")).to_have_attribute("href", stop.setting.link(), timeout=30_000)
    if stop.filler:
        expect(page.locator("#fillers tbody tr")).to_have_count(11, timeout=60_000)


def status(server, path="", **headers):
    """The HTTP status of a request with these headers; Host is the page's own by default."""
    connection = http.client.HTTPConnection(LOOPBACK, server.port, timeout=20)
    connection.request("GET", f"/{path}", headers={name.title(): value for name, value in headers.items()})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def test_only_this_page_may_ask_for_anything(server):
    here = f"{LOOPBACK}:{server.port}"
    assert status(server) == status(server, origin=f"http://{here}") == 200
    assert status(server, host=f"localhost:{server.port}") == 200
    assert status(server, host="evil.example") == 403
    assert status(server, host=f"evil.example:{server.port}") == 403
    for origin in ("http://evil.example", "null", f"https://{here}", f"http://{LOOPBACK}:1"):
        assert status(server, "config", origin=origin) == 403


def test_no_file_can_be_read(server):
    for path in ("/etc/passwd", str(Path(__file__).resolve()), str(Path("models").resolve())):
        assert status(server, f"gradio_api/file={path}") in (403, 404)


def test_the_server_listens_on_loopback_alone(server):
    tables = (Path(f"/proc/{server.process.pid}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6"))
    rows = [line.split() for table in tables for line in table]
    listening = [row[1] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == server.port]
    assert listening == [f"0100007F:{server.port:04X}"]  # 127.0.0.1, and no other address


def test_ctrl_c_ends_it_at_once_also_while_a_browser_shows_it(tab, tmp_path):
    other = Server("abacus", tmp_path / "stderr.txt")
    opened(tab, other)
    start = monotonic()
    other.process.send_signal(signal.SIGINT)
    assert other.process.wait(30) == 0
    assert monotonic() - start < 5
    assert other.lines[-1] == "the page is closed"


def test_the_page_opens_in_five_seconds_after_the_model_is_loaded(server):
    (line,) = [line for line in server.lines if "the page is at" in line]
    assert float(re.search(r"after ([\d.]+) s", line)[1]) < 5


def browser_memory(page, session):
    """What the page holds after a garbage collection: megabytes of JavaScript, and elements."""
    page.wait_for_timeout(2000)  # a figure is freed a second after it was replaced
    session.send("HeapProfiler.collectGarbage")
    return session.send("Runtime.getHeapUsage")["usedSize"] / 2**20, session.send("Memory.getDOMCounters")["nodes"]


def test_many_updates_do_not_grow_memory(tab, server):
    """A hundred here; tests/playground/test_events.py makes a thousand, without the browser."""
    page = opened(tab, server).page
    session = page.context.new_cdp_session(page)
    for step in range(30):
        move(page, "outward-band", round(0.1 + 0.01 * step, 2))
    start, (start_heap, start_nodes) = server.memory(), browser_memory(page, session)
    for step in range(100):
        move(page, "outward-band", round(0.1 + 0.01 * (step % 30), 2))
    heap, nodes = browser_memory(page, session)
    assert server.memory() - start < 50
    assert heap - start_heap < 50
    assert nodes - start_nodes < 20_000  # a figure has 1,900; each one that stays would add to 190,000
