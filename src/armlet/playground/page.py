"""The page: its components, section by section, in gradio. events.py says what they do."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import gradio as gr
from gradio.components import Component

from armlet.playground import views
from armlet.playground.glossary import GLOSSARY, INTRODUCTION, KNOB_HELP, MAIN_KNOBS, POLICY_CHOICES
from armlet.playground.knobs import RANGES, PageKnob, page_knobs, policy_of_knobs
from armlet.playground.reading import LONGEST_PROMPT
from armlet.playground.setting import DEFAULT, HEAVY_TAIL, LARGEST_SEED_OF_PAGE, MODES, NO_EXPERT, TEXT, Setting
from armlet.playground.two_answers import LONGEST_ANSWER
from armlet.prompts.fillers import Position

SAMPLE_CHOICES = [("your text", TEXT), ("a sample with five peaks", MODES), ("a sample with long tails", HEAVY_TAIL)]
PLACEBO_CHOICES = [("off", ""), *((name, name) for name in views.PLACEBO_NAMES)]
FILLER_POSITIONS = [name for name in get_args(Position) if name != "answer"]
LAST_TOKEN = -1
FIRST_PART = "ARM"
CLICKS = """
const pick = (event) => {
  const target = event.target.closest('[data-NAME]');
  if (target) trigger('click', { chosen: target.dataset.NAME });
};
element.addEventListener('click', pick);
element.addEventListener('keydown', (event) => {
  if ((event.key === 'Enter' || event.key === ' ') && event.target.closest('svg [data-NAME]')) {
    event.preventDefault();
    pick(event);
  }
});
"""
"""Sends a click, or a key on a part of a drawing, with what was chosen."""

COPIES = """
element.addEventListener('click', async (event) => {
  const button = event.target.closest('[data-copy]');
  if (!button) return;
  const source = button.parentElement.querySelector('a') ?? button.closest('figure').querySelector('pre');
  await navigator.clipboard.writeText(source.href ?? source.textContent);
  button.textContent = 'Copied';
});
"""
"""Copies a code, or the address of a link, beside the button."""


class Page:
    """The components of the page for one model, by name."""

    def __init__(self, model: str, layer_count: int, experts: int, tour: Sequence[str]) -> None:
        with gr.Blocks(title="armlet playground", analytics_enabled=False, delete_cache=(3600, 3600)) as self.blocks:
            self._html("header", views.render("header", introduction=INTRODUCTION, model=model))
            self.link_message = self._html("link-message")
            self._make_tour(tour)
            with gr.Row(equal_height=False):
                with gr.Column(scale=4, min_width=320):
                    self._make_text(layer_count, experts)
                    self._make_knobs()
                with gr.Column(scale=7, min_width=340):
                    self._make_distribution()
            self._make_answers()
            self._make_tokens()
            self._make_layer()
            self._make_layers()
            self._make_fillers()
            self._make_checks()
            self._make_exports()
            self._heading("Words on this page", "")
            self._html("glossary", views.render("glossary", glossary=GLOSSARY))

    def _html(self, name: str, value: str = "", script: str | None = None) -> gr.HTML:
        return gr.HTML(value, elem_id=name or None, js_on_load=script, apply_default_css=False)

    def _heading(self, title: str, sentence: str) -> None:
        self._html("", views.render("heading", title=title, sentence=sentence))

    def _plot(self, name: str, label: str) -> gr.Plot:
        return gr.Plot(elem_id=name, label=label, show_label=False)

    def _make_tour(self, names: Sequence[str]) -> None:
        self._html("tour-title", views.help_text("Five things to try, in a minute:"))
        with gr.Row(elem_id="tour"):
            self.tour = [gr.Button(name, size="sm", elem_classes="tour") for name in names]
        self.tour_text = self._html("tour-text")

    def _make_text(self, layer_count: int, experts: int) -> None:
        self.text = gr.Textbox(
            DEFAULT.text, label="Text", info=f"Up to {LONGEST_PROMPT} tokens.", lines=3, max_lines=8, elem_id="text"
        )
        self.sample = gr.Radio(SAMPLE_CHOICES, value=TEXT, label="Values of", elem_id="sample")
        several: dict[str, Any] = {"visible": layer_count > 1, "elem_id": "layer"}  # a slider needs two values
        self.layer = gr.Slider(0, max(layer_count - 1, 1), value=0, step=1, label="Layer, from 0", **several)
        self.everywhere = gr.Checkbox(
            False, label="Act in every layer at once, for what the model says", elem_id="everywhere"
        )
        choices: list[Any] = [("all", NO_EXPERT), *((str(index), index) for index in range(experts))]
        self.expert = gr.Dropdown(
            choices, value=NO_EXPERT, label="Expert to show", visible=bool(experts), elem_id="expert"
        )

    def _make_knobs(self) -> None:
        self.policy = gr.Radio(POLICY_CHOICES, value="outward", label="What happens to the gate", elem_id="policy")
        self.knobs: dict[str, Any] = {}
        self.groups: list[tuple[str, gr.Group]] = []
        self._make_knob_groups(main=True)
        with gr.Accordion("More settings", open=False):
            self._make_knob_groups(main=False)
            seed: dict[str, Any] = {"minimum": 0, "maximum": LARGEST_SEED_OF_PAGE, "elem_id": "seed"}
            self.seed = gr.Number(0, label="seed", info="Other random draws; only Outward draws.", **seed)
            self.placebo = gr.Radio(
                PLACEBO_CHOICES,
                value="",
                label="Placebo in its place",
                info="A control: see Checks.",
                elem_id="placebo",
            )

    def _make_knob_groups(self, *, main: bool) -> None:
        """Makes the main knobs of every policy, or the others; the page shows those of the chosen policy."""
        chosen = [knob for knob in page_knobs() if (knob.name in MAIN_KNOBS) == main]
        for policy in dict.fromkeys(knob.policy for knob in chosen):
            with gr.Group(visible=policy in ("", "outward")) as group:
                self.knobs |= {knob.key: _knob(knob) for knob in chosen if knob.policy == policy}
            self.groups += [(policy, group)] if policy else []

    def _make_distribution(self) -> None:
        self.message = self._html("message")
        self.summary = self._html("summary")
        self.distribution = self._plot("distribution", "The activated gate before and after")
        sentence = (
            "Grey: the gate's values before; above all of them, below those near zero. In colour: after. Dashed: where "
            "a value goes, on the scale to the right. A policy looks at each token alone, so the line of all tokens "
            "together may go up and down."
        )
        self._html("caption", views.help_text(sentence))
        choices = [("logarithmic, to see the ends", "log"), ("linear", "linear")]
        self.counts = gr.Radio(choices, value="log", label="Scale of the upper counts", elem_id="counts")
        self.next_token = self._html("next-token")

    def _make_answers(self) -> None:
        self._heading("Two answers", "The model's answer to your text, without the change and with it.")
        with gr.Row(elem_id="answer-row"):
            label = "Length of each answer, in tokens"
            self.answer_tokens = gr.Slider(1, LONGEST_ANSWER, value=32, step=1, label=label, elem_id="answer-tokens")
            self.answer = gr.Button("Write both answers", variant="primary", elem_id="answer")
            self.stop = gr.Button("Stop", elem_id="stop")
        self.answers = self._html("answers")

    def _make_tokens(self) -> None:
        sentence = (
            "Darker: more of the token's values moved. Choose a token to see its gate × up, a point for each channel."
        )
        self._heading("Token by token", sentence)
        self.token = gr.State(LAST_TOKEN)
        self.tokens = self._html("tokens", script=CLICKS.replace("NAME", "token"))
        self.quadrants = self._plot("quadrants", "Gate and up of the chosen token")

    def _make_layer(self) -> None:
        sentence = (
            "Point at a part for its shape and range; choose it to see its values. On a small screen, it scrolls."
        )
        self._heading("The layer", sentence)
        self.map = self._html("map", script=CLICKS.replace("NAME", "part"))
        self.part = gr.Dropdown(
            [FIRST_PART], value=FIRST_PART, label="Part", allow_custom_value=True, elem_id="part"
        )  # its choices come with the layer
        self.tensor_title = self._html("tensor-title")
        self.tensor = self._plot("tensor", "The values of the chosen part")

    def _make_layers(self) -> None:
        self._heading("All layers", "What each layer's gate looks like before any change. The table scrolls.")
        self.layers = self._html("layers", script=CLICKS.replace("NAME", "layer"))

    def _make_fillers(self) -> None:
        self._heading(
            "Filler", "Meaningless tokens in the text: what they do to attention and gate in this layer, without ARM."
        )
        with gr.Row():
            self.filler = gr.Textbox("/", label="Filler", elem_id="filler", max_lines=1)
            self.filler_count = gr.Slider(1, 100, value=40, step=1, label="How many", elem_id="filler-count")
            self.filler_position = gr.Dropdown(
                FILLER_POSITIONS, value="between", label="Where", elem_id="filler-position"
            )
            self.measure_filler = gr.Button("Measure", elem_id="measure-filler")
        self.fillers = self._html("fillers")
        label = "Attention that each token receives, without and with filler"
        self.filler_plot = gr.Plot(elem_id="filler-plot", label=label, show_label=False, visible=False)

    def _make_checks(self) -> None:
        sentence = (
            "Does switching ARM off leave a trace? Does a control do as much as the policy? Of the placebos, identity "
            "and draw-only must change nothing; matched moves as many values at random; zeroed sets those of Outward "
            "to 0."
        )
        self._heading("Checks", sentence)
        with gr.Row():
            self.compare = gr.Button("Compare 'off' with the untouched model, bit for bit", elem_id="compare")
            self.compare_placebos = gr.Button("Compare the policy with its placebos", elem_id="compare-placebos")
        self.lamp = self._html("lamp", views.dark_lamp())
        self.placebos = self._html("placebos")

    def _make_exports(self) -> None:
        self._heading("Take it with you", "The setting for Python, for vLLM, as a file, and as a link to this page.")
        self.exports = self._html("exports", script=COPIES)
        self.draw_files = gr.Button("Make the figure as PNG and SVG, and armlet.json", elem_id="draw-files")
        self.files_message = self._html("files-message")
        files: dict[str, Any] = {"file_count": "multiple", "interactive": False, "elem_id": "files", "visible": False}
        self.files = gr.File(label="Files", **files)

    @property
    def controls(self) -> list[Component]:
        """Every control, as the inputs of an event."""
        return [*self.restored, self.counts, self.token, self.part]

    @property
    def restored(self) -> list[Component]:
        """The controls that a link sets."""
        plain = (self.sample, self.text, self.layer, self.everywhere, self.expert, self.policy, self.seed, self.placebo)
        return [*plain, *self.knobs.values()]

    def setting(self, values: Mapping[Any, Any]) -> Setting:
        """The setting that the controls' values say; raises ArgumentError for a value out of range."""
        knob_values = {key: values[knob] for key, knob in self.knobs.items()}
        return Setting(
            sample=values[self.sample],
            text=values[self.text],
            layer=int(values[self.layer]),
            everywhere=values[self.everywhere],
            expert=values[self.expert],
            policy=policy_of_knobs(values[self.policy], knob_values),
            placebo=values[self.placebo],
            seed=_whole(values[self.seed]),
        )


def _whole(number: float | None) -> Any:
    """A number field's value, as an int where it is whole; others are refused by the setting, and not rounded."""
    return int(number) if number is not None and number == int(number) else number


def _knob(knob: PageKnob) -> gr.Slider | gr.Radio:
    label, help = KNOB_HELP[knob.name]
    place: dict[str, Any] = {"label": label, "info": help, "elem_id": knob.key}
    if knob.choices:
        return gr.Radio([*knob.choices], value=knob.value, **place)
    low, high, step = RANGES[knob.name]
    return gr.Slider(low, high, value=float(knob.value), step=step, **place)
