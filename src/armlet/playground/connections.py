"""Which control of the page leads to which event, and in what order the parts of the page follow."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from armlet.playground import views
from armlet.playground.events import Events, Values
from armlet.playground.page import Page
from armlet.playground.tour import TOUR

SHOW = """() => {
  const { top, bottom } = document.getElementById('NAME').getBoundingClientRect();
  if (top > 0.7 * innerHeight || bottom < 0) document.getElementById('NAME').scrollIntoView();
}"""
SHOW_SUMMARY, SHOW_FILLERS = SHOW.replace("NAME", "summary"), SHOW.replace("NAME", "fillers")
FREE_OLD_FIGURES = """() => new MutationObserver(changes => {
  const nodes = changes.flatMap(change => [...change.removedNodes]);
  const removed = nodes.filter(node => node.nodeType === Node.ELEMENT_NODE);
  const figures = removed.flatMap(node => [node, ...node.querySelectorAll('.js-plotly-plot')]);
  const free = () => figures.forEach(figure => figure._fullLayout && !figure.isConnected && Plotly.purge(figure));
  setTimeout(free, 1000);
}).observe(document.body, { childList: true, subtree: true })"""
"""Frees each figure a second after gradio replaced it: Plotly would keep it for the sake of the window's resizes."""

SAY_STOPPED = "() => document.querySelectorAll('#answers .note').forEach(line => { line.textContent = 'Stopped.' })"
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
Step = Callable[[Values], Any]


class Connections:
    """Connects every control of a page with its events."""

    def __init__(self, page: Page, events: Events) -> None:
        self.page, self.events = page, events

    def connect(self) -> None:
        """Connects everything.

        A knob redraws the distribution first, and then, as separate steps, what takes longer: the tokens, the next
        token, the parts of the layer. Of knob moves that come faster than they are drawn, the last one is drawn.
        """
        page, events = self.page, self.events
        page.blocks.load(None, js=FREE_OLD_FIGURES, **QUIET)
        fast = [events.draw, events.show_tokens, events.predict, events.show_parts]
        loaded = page.blocks.load(events.restore_link, outputs=[page.link_message, *page.restored], **QUIET)
        self._steps(loaded, [*fast, events.measure_layers])
        controls = [page.sample, page.expert, page.policy, page.seed, page.placebo, page.everywhere, page.counts]
        # Not `input`, which misses what is pasted, and what gradio itself corrects.
        self._on([control.change for control in (*controls, *page.knobs.values())], fast)
        self._on([page.text.change, page.layer.change], [*fast, events.measure_layers])
        self._on([page.part.change], [events.show_parts])
        page.policy.change(events.show_knobs, page.policy, [group for _, group in page.groups], **QUIET)
        page.layers.click(events.chosen_number, outputs=page.layer, js=SHOW_SUMMARY, **QUIET)
        page.map.click(events.chosen_name, outputs=page.part, **QUIET)
        self._steps(page.tokens.click(events.chosen_number, outputs=page.token, **QUIET), [events.show_tokens])
        self._connect_tour()
        self._connect_buttons()

    def _on(self, triggers: Sequence[Any], steps: Sequence[Step]) -> None:
        self._steps(gr.on(triggers, **self._step(steps[0])), steps[1:])

    def _steps(self, event: Any, steps: Sequence[Step]) -> None:
        """Adds steps after an event."""
        for step in steps:
            event = event.then(**self._step(step))

    def _step(self, step: Step) -> dict[str, Any]:
        """The arguments of an event that calls a step with all controls and shows what it returns."""
        page = self.page
        outputs: dict[str, Any] = {
            "draw": [page.message, page.summary, page.distribution],
            "show_tokens": [page.tokens, page.quadrants, page.exports],
            "predict": [page.next_token],
            "show_parts": [page.tensor_title, page.map, page.part, page.tensor],
            "measure_layers": [page.layers],
        }
        shown = {"inputs": set(page.controls), "outputs": outputs[step.__name__]}
        return {"fn": step, **shown, "trigger_mode": "always_last", **QUIET}

    def _connect_tour(self) -> None:
        """A stop changes controls, and these redraw the page."""
        page, events = self.page, self.events
        for stop, button in zip(TOUR, page.tour, strict=True):
            told = button.click(lambda text=stop.text: views.help_text(text), outputs=page.tour_text, **QUIET)
            event = told.then(events.restorer(stop.setting), outputs=page.restored, **QUIET)
            if stop.filler:
                event = event.then(events.measure_filler, **self._filler())
            event.then(None, js=SHOW_FILLERS if stop.filler else SHOW_SUMMARY, **QUIET)

    def _connect_buttons(self) -> None:
        page, events = self.page, self.events
        controls: Any = set(page.controls)
        asked: Any = {*controls, page.answer_tokens}
        writing = page.answer.click(events.answer, asked, page.answers, concurrency_limit=4, **QUIET)
        page.stop.click(None, js=SAY_STOPPED, cancels=[writing], **QUIET)
        page.measure_filler.click(events.measure_filler, **self._filler())
        page.compare.click(events.compare, controls, page.lamp, **QUIET)
        page.compare_placebos.click(events.compare_placebos, controls, page.placebos, **QUIET)
        page.draw_files.click(events.draw_files, controls, [page.files_message, page.files], **QUIET)

    def _filler(self) -> dict[str, Any]:
        """The inputs and outputs of the filler's measurement."""
        page = self.page
        inputs = {*page.controls, page.filler, page.filler_count, page.filler_position}
        return {"inputs": inputs, "outputs": [page.fillers, page.filler_plot], **QUIET}
