"""What the page's events compute: each reads the controls, and returns what it shows."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path
from tempfile import mkdtemp
from traceback import print_exception
from typing import Any

import gradio as gr

from armlet.attachment.config import ARMLET_FILE
from armlet.evaluation.conditions.placebos import placebo_names
from armlet.inspection.distributions import distributions
from armlet.inspection.figures import draw_inspection
from armlet.inspection.interactive import distribution_figure
from armlet.layer.layer_map import PART_NAMES, layer_map
from armlet.playground import plots, views
from armlet.playground.effect import GateEffect, effect_of
from armlet.playground.every_layer import EveryLayer
from armlet.playground.exports import make_exports
from armlet.playground.filler import explain_filler
from armlet.playground.knobs import RANGES, knobs_of_policy
from armlet.playground.page import Page
from armlet.playground.parts import different, layer_tensors, part_texts
from armlet.playground.predictions import Predictor
from armlet.playground.reading import Reader, Reading
from armlet.playground.setting import TEXT, Setting, from_link
from armlet.playground.two_answers import stream_answers
from armlet.presentation.files import write_text
from armlet.presentation.style import save
from armlet.redistribution.errors import ArgumentError, ArmletError

NO_UP = "The values of up cannot be read in this layer, so gate × up cannot be shown."
NO_MODEL = "A sample is not computed by the model: choose 'your text' to see this."
Values = Mapping[Any, Any]


PageEvent = Callable[[Any, Values], tuple[Any, ...]]


def told(outputs: int) -> Callable[[PageEvent], PageEvent]:
    """Makes an error of an event a sentence in the first of its outputs; the others stay as they were."""

    def decorate(event: PageEvent) -> PageEvent:
        @wraps(event)
        def safe(events: "Events", values: Values) -> tuple[Any, ...]:
            try:
                return event(events, values)
            except Exception as error:
                older = " What is drawn is from before." if outputs > 1 else ""
                return (views.message(_sentence(error) + older), *(gr.skip() for _ in range(outputs - 1)))

        return safe

    return decorate


class Events:
    """What the page of one model can ask for. It keeps nothing of a reader of the page, so readers cannot mix."""

    def __init__(self, page: Page, reader: Reader, folder: Path) -> None:
        """folder: where the files are written that readers of the page ask for."""
        self.page, self.reader, self.folder = page, reader, folder
        self.predictor, self.every_layer = Predictor(reader), EveryLayer(reader)

    @told(outputs=3)
    def draw(self, values: Values) -> tuple[Any, ...]:
        """Redistributes the layer's gate, and shows its distribution."""
        setting = self.page.setting(values)
        reading = self.reader.read(setting)
        effect, logarithmic = effect_of(reading, setting), values[self.page.counts] == "log"
        shown = distributions(effect.panel, reading.axis)
        return (
            "",
            views.summary(setting, reading, effect),
            distribution_figure(shown, effect.name, logarithmic=logarithmic),
        )

    @told(outputs=3)
    def show_tokens(self, values: Values) -> tuple[Any, ...]:
        """Shows the tokens, the chosen one's gate × up, and the setting to take along."""
        setting = self.page.setting(values)
        reading = self.reader.read(setting)
        effect, token = effect_of(reading, setting), _token(reading, values[self.page.token])
        quadrants = gr.update(visible=False)
        if reading.up is not None:
            quadrants = gr.update(value=plots.gate_up_scatter(reading, effect, token), visible=True)
        exports = views.exports(make_exports(self.reader, setting))
        tokens = views.token_strip(reading, effect, token)
        return tokens + (views.help_text(NO_UP) if reading.words and reading.up is None else ""), quadrants, exports

    @told(outputs=1)
    def predict(self, values: Values) -> tuple[Any, ...]:
        """Runs the whole model for the next token, without ARM and with it."""
        setting = self.page.setting(values)
        if setting.sample != TEXT:
            return (views.help_text(NO_MODEL),)
        return (views.next_token(setting, self.predictor.next_token(setting)),)

    @told(outputs=4)
    def show_parts(self, values: Values) -> tuple[Any, ...]:
        """Shows the layer with the range of each part, and the values of the chosen one, with ARM as set."""
        setting = self.page.setting(values)
        if setting.sample != TEXT:
            return (views.help_text(NO_MODEL), "", gr.skip(), gr.update(visible=False))
        reading = self.reader.read(setting)
        tensors = layer_tensors(self.reader, reading, effect_of(reading, setting), setting)
        place = {"layer": setting.layer, "activation": reading.activation, "experts": reading.experts}
        buttons = [name for name in PART_NAMES if name in tensors]
        drawing = layer_map(
            **place, simplified=bool(reading.not_covered), buttons=buttons, descriptions=part_texts(tensors)
        )
        if not tensors:
            return (views.tensor_title(reading, ""), drawing, gr.skip(), gr.update(visible=False))
        name = values[self.page.part] if values[self.page.part] in tensors else next(iter(tensors))
        figure = gr.update(value=plots.tensor_map(tensors[name], name, reading.words), visible=True)
        return (
            views.tensor_title(reading, name),
            drawing,
            gr.update(choices=different(tensors), value=name),
            figure,
        )

    @told(outputs=1)
    def measure_layers(self, values: Values) -> tuple[Any, ...]:
        """Measures every layer's gate without ARM."""
        setting = self.page.setting(values)
        if setting.sample != TEXT:
            return (views.help_text(NO_MODEL),)
        return (views.layers(self.every_layer.measures(setting.text), setting.layer),)

    def answer(self, values: Values) -> Iterator[str]:
        """Writes both answers, token by token."""
        try:
            setting = self._model_setting(values)
            for pair in stream_answers(self.reader, setting, int(values[self.page.answer_tokens])):
                yield views.answers(setting, pair)
        except Exception as error:
            yield views.message(_sentence(error))

    @told(outputs=2)
    def measure_filler(self, values: Values) -> tuple[Any, ...]:
        """Measures the filler in the chosen layer."""
        page, setting = self.page, self._model_setting(values)
        count = int(values[page.filler_count])
        asked = values[page.filler], count, values[page.filler_position]
        explanation = explain_filler(self.reader, setting, *asked)
        (findings,), start = explanation.findings, explanation.setup.prompts[0].insert_at
        figure = plots.received_attention(*findings.received, start, count)
        return views.fillers(explanation, setting.layer, count), gr.update(value=figure, visible=True)

    @told(outputs=1)
    def compare(self, values: Values) -> tuple[Any, ...]:
        """Compares the logits with ARM off to the untouched model's."""
        setting = self._model_setting(values)
        return (views.lamp(setting, *self.predictor.off_is_exact(setting)),)

    @told(outputs=1)
    def compare_placebos(self, values: Values) -> tuple[Any, ...]:
        """Compares what the policy and each of its placebos do to the gate and to the next token."""
        setting = replace(self._model_setting(values), placebo="")
        sides = [replace(setting, placebo=name) for name in ("", *placebo_names(setting.chosen(), first=True))]
        effects = [effect_of(self.reader.read(side), side) for side in sides]
        return (views.placebos(sides, effects, [self.predictor.next_token(side) for side in sides]),)

    def _model_setting(self, values: Values) -> Setting:
        """The setting; raises ArgumentError for a sample, which the model does not compute."""
        setting = self.page.setting(values)
        if setting.sample != TEXT:
            raise ArgumentError(NO_MODEL)
        return setting

    @told(outputs=2)
    def draw_files(self, values: Values) -> tuple[Any, ...]:
        """Writes the figure of `armlet inspect` for this setting, and armlet.json, into a new folder."""
        setting = self.page.setting(values)
        reading = self.reader.read(setting)
        folder = Path(mkdtemp(dir=self.folder))
        paths = save(_figure(self.reader.opened.name, reading, effect_of(reading, setting)), folder, "inspect")
        paths.append(write_text(folder / ARMLET_FILE, setting.armlet_json()))
        return "", gr.update(value=[str(path) for path in paths], visible=True)

    def show_knobs(self, policy: str) -> list[dict[str, Any]]:
        """Shows the knobs of one policy."""
        return [gr.update(visible=name == policy) for name, _ in self.page.groups]

    def chosen_number(self, event: gr.EventData) -> int:
        """The number of the token or the layer that was clicked."""
        return int(event.chosen)

    def chosen_name(self, event: gr.EventData) -> str:
        """The name of the part that was clicked."""
        return str(event.chosen)

    def restore_link(self, request: gr.Request) -> list[Any]:
        """Sets the controls as the page's address says; with a sentence if it cannot be read."""
        try:
            setting = from_link(request.url.query)  # request.query_params keeps one of a name that is there twice
            self.reader.check(setting)
            return ["", *self._restored(setting)]
        except ArmletError as error:
            return [views.message(str(error)), *(gr.skip() for _ in self.page.restored)]

    def restorer(self, setting: Setting) -> Callable[[], list[Any]]:
        """A function that sets the controls to a setting."""
        return lambda: self._restored(setting)

    def _restored(self, setting: Setting) -> list[Any]:
        """The values of `Page.restored`; a slider whose range a value is outside of becomes longer."""
        name = setting.chosen().name
        plain = [setting.sample, setting.text, setting.layer, setting.everywhere, setting.expert, name]
        values = knobs_of_policy(setting.policy)
        knobs = [self._restored_knob(key, values[key]) if key in values else gr.skip() for key in self.page.knobs]
        return [*plain, setting.seed, setting.placebo, *knobs]

    def _restored_knob(self, key: str, value: float | str) -> Any:
        if isinstance(value, str):
            return value
        low, high, _ = RANGES[key.partition("-")[2]]
        return gr.update(value=value, minimum=min(low, value), maximum=max(high, value))


def _sentence(error: Exception) -> str:
    """An error in a sentence; one that is not armlet's is shown as a whole on the terminal."""
    if isinstance(error, ArmletError):
        return str(error).rstrip(".") + "."
    print_exception(error, file=sys.stderr)
    return f"This did not work ({type(error).__name__}: {error}). The terminal says more."


def _token(reading: Reading, chosen: int) -> int:
    """The chosen token, or the last one that has a row."""
    return chosen if 0 <= chosen < len(reading.words) else int(reading.positions.max()) if reading.words else 0


def _figure(model: str, reading: Reading, effect: GateEffect) -> Any:
    source = "a synthetic sample" if reading.layer is None else Path(model).name
    title = f"Activated gate of {source}"
    place = {"layer": reading.layer, "activation": reading.activation, "axis": reading.axis}
    kind = {"experts": reading.experts, "simplified": bool(reading.not_covered)}
    return draw_inspection([effect.panel], title=title, **place, **kind)
