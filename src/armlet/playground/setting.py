"""What a page shows: text, layer, policy and its knobs, as a frozen value that a link can store and restore."""

from dataclasses import dataclass, fields, replace
from typing import Any, get_type_hints
from urllib.parse import parse_qsl, urlencode

from armlet.attachment.config import describe, layer_indices
from armlet.evaluation.conditions.placebos import GATE_PLACEBOS, placebo, placebo_names
from armlet.playground.knobs import page_policy
from armlet.presentation.arguments import whole_number
from armlet.presentation.files import json_text
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise
from armlet.redistribution.rows import Policy

TEXT, MODES, HEAVY_TAIL = "text", "modes", "heavy-tail"
SAMPLE_NAMES = (TEXT, MODES, HEAVY_TAIL)
DEFAULT_TEXT = "A baker fills 7 trays with 12 rolls each and sells 59 of them. How many rolls are left?"
NO_PLACEBO = ""
NO_EXPERT = -1  # all routed experts
LARGEST_SEED_OF_PAGE = 2**53 - 1  # above it, a browser's numbers are rounded
LONGEST_LINK_TEXT = 4000  # characters of a text in a link; browsers refuse much longer ones


@dataclass(frozen=True)
class Setting:
    """Everything that a reader of the page chose; two equal settings show the same page."""

    sample: str = TEXT  # one of `SAMPLE_NAMES`
    text: str = DEFAULT_TEXT
    layer: int = 0
    everywhere: bool = False  # whether the model's answers are with ARM in all layers, and not in `layer` alone
    expert: int = NO_EXPERT
    policy: str = "outward"  # text, as on the command line
    placebo: str = NO_PLACEBO  # one of `GATE_PLACEBOS` in place of the policy
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sample not in SAMPLE_NAMES:
            raise ArgumentError(f"sample: expected one of {', '.join(SAMPLE_NAMES)}, found {self.sample!r}")
        whole_number("layer", self.layer, 0)
        whole_number("expert", self.expert, NO_EXPERT)
        whole_number("seed", self.seed, 0, LARGEST_SEED_OF_PAGE)
        names = placebo_names(self.chosen(), first=True)
        if self.placebo and self.placebo not in names:
            reason = " (zeroed is the control of outward alone)" if self.placebo in GATE_PLACEBOS else ""
            raise ArgumentError(f"placebo: expected one of {', '.join(names)}, found {self.placebo!r}{reason}")

    def chosen(self) -> Policy:
        """The policy of the knobs; raises ArgumentError as `page_policy`."""
        return page_policy(self.policy)

    def acting(self) -> Policy:
        """What acts in the layer: the policy, or the placebo in its place."""
        return placebo(self.placebo, self.chosen()) if self.placebo else self.chosen()

    def layers(self) -> int | str:
        """The layers with ARM, as `attach` takes them."""
        return "all" if self.everywhere else self.layer

    def link(self) -> str:
        """The query of a link that restores this setting; what is at its default is left out.

        Raises ArgumentError for a text that is too long for a link.
        """
        if len(self.text) > LONGEST_LINK_TEXT:
            problem = f"a link stores {LONGEST_LINK_TEXT:,} characters, and the text has {len(self.text):,}"
            raise ArgumentError(f"text: {problem}; shorten it")
        changed = {name: value for name, value in vars(self).items() if value != getattr(DEFAULT, name)}
        return "?" + urlencode(
            {name: int(value) if isinstance(value, bool) else value for name, value in changed.items()}
        )

    def armlet_json(self) -> str:
        """The content of an armlet.json with this setting; a placebo is not stored, because it is only a control."""
        layers = layer_indices(self.layers())
        return json_text(describe(self.chosen(), layers, "token", Noise(self.seed)))

    def python(self) -> str:
        """The line of Python that attaches ARM with this setting."""
        layers = '"all"' if self.everywhere else str(self.layer)
        noise = f", noise=Noise({self.seed})" if self.seed else ""
        imports = "from armlet import Noise, attach" if self.seed else "from armlet import attach"
        attach = f'with attach(model, "{self.policy}", layers={layers}{noise}) as arm:'
        return f"{imports}\n\n{attach}\n    ...  # run the model here"


DEFAULT = Setting()


def from_link(query: str) -> Setting:
    """The setting of a link's query; raises ArgumentError for a name unknown or twice, or a value out of range."""
    hints: dict[str, Any] = get_type_hints(Setting)
    known, values = {field.name for field in fields(Setting)}, dict[str, object]()
    for name, text in parse_qsl(query.lstrip("?"), keep_blank_values=True):
        if name.startswith("__"):  # gradio's own, such as __theme
            continue
        if name not in known:
            raise ArgumentError(f"link: unknown {name!r}; expected {', '.join(sorted(known))}")
        if name in values:
            raise ArgumentError(f"link: {name} is in it twice; leave one")
        values[name] = text if hints[name] is str else _number(name, text)
    if "everywhere" in values:
        values["everywhere"] = bool(whole_number("everywhere", values["everywhere"], 0, 1))
    return replace(DEFAULT, **values)  # type: ignore[arg-type] - checked by the setting itself


def _number(name: str, text: str) -> int:
    if not text.lstrip("-").isdecimal() or not text.isascii() or len(text) > len(str(LARGEST_SEED_OF_PAGE)):
        raise ArgumentError(f"{name}: expected a whole number in a link, found {text!r}")
    return int(text)
