"""Shared options, in groups that a command accepts as one parameter, and the output of a command's result."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, CallbackParam, Context, Option
from typer.models import OptionInfo

from armlet.attachment.config import ARMLET_FILE, all_placements, load_config
from armlet.checkpoints.given import model_name
from armlet.commands.policy_help import policy_option
from armlet.evaluation.tasks.arithmetic import DIFFICULTY
from armlet.evaluation.tasks.sources import ARITHMETIC, ARITHMETIC_ITEMS
from armlet.presentation.arguments import output_folder
from armlet.presentation.interruption import INTERRUPTED
from armlet.presentation.options import SeedOption
from armlet.presentation.result import Result
from armlet.presentation.terminal import note, print_json, print_tables, working
from armlet.prompts.questions import read_prompts
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.python_file import names_python_file, settings_text
from armlet.redistribution.registry import class_in_file

POLICY = (
    "outward, inward, transport or cut, with settings as in outward:band=0.2,share=0.02/0.25, or file.py:Class of your "
    "own; help lists them"
)

FAILED = 1  # exit code if a part of the work failed
FIGURE_KINDS = (".png", ".svg", ".pdf")
ScopeName = Literal["token", "sequence", "call"]
SiteName = Literal["gate", "up", "product"]
ExpertsName = Literal["all", "routed", "shared"]


def folder_option(help: str) -> OptionInfo:
    """An option for an output folder, which is checked before anything slow."""

    def check(option: CallbackParam, folder: Path | None) -> Path | None:
        return folder and output_folder(option.opts[0], folder)

    return Option(callback=check, help=help)


def _named(model: str | None) -> str | None:
    return None if model is None else model_name(model)


def _check_plotly(html: bool) -> bool:
    """Raises ArgumentError before anything slow if a page is wanted and plotly is not installed."""
    if html:
        from armlet.presentation.page import plotly_objects

        plotly_objects()
    return html


ModelArgument = Annotated[str | None, Argument(help="A folder or hub id; SmolLM2-135M-Instruct by default.")]
PolicyOption = Annotated[str, policy_option(POLICY + ".")]
LayersOption = Annotated[str, Option(help="An index, several (0,3), a range (0-5), or all.")]
ScopeOption = Annotated[ScopeName, Option(help="Values over which statistics are taken.")]
SiteOption = Annotated[SiteName, Option(help="After the gate's activation, after up, or after their product.")]
ExpertsOption = Annotated[ExpertsName, Option(help="Which experts of a mixture of experts.")]
DtypeOption = Annotated[
    str, Option(help="Dtype of the weights: auto (the checkpoint's), float32, bfloat16, float16 or float64.")
]
DeviceOption = Annotated[str | None, Option(help="Device that runs the model, such as cuda; the CPU by default.")]
HtmlOption = Annotated[
    bool,
    Option("--html", callback=_check_plotly, help="Also write one interactive page that needs no network."),
]
JsonOption = Annotated[bool, Option("--json", help="Print only the result, as JSON, to stdout.")]


@dataclass(frozen=True)
class ComputeOptions:
    """Seed, dtype and device of a model."""

    seed: SeedOption = 0
    dtype: DtypeOption = "auto"
    device: DeviceOption = None


@dataclass(frozen=True)
class PlaceOptions:
    """Where ARM is attached, and the scope of its statistics."""

    layers: LayersOption = "0"
    scope: ScopeOption = "token"
    site: SiteOption = "gate"
    experts: ExpertsOption = "all"


@dataclass(frozen=True)
class PromptOptions:
    """The prompts for a model."""

    prompt: Annotated[list[str] | None, Option(help="A prompt. May be repeated; built-in ones by default.")] = None
    prompts: Annotated[Path | None, Option(help="A text file with a prompt on each line.")] = None

    def texts(self) -> list[str]:
        """The prompts of --prompt and then of the --prompts file; none for built-in ones."""
        return [*(self.prompt or []), *(read_prompts(self.prompts) if self.prompts else [])]


@dataclass(frozen=True)
class TaskOptions:
    """The model and the tasks."""

    model: Annotated[
        str | None, Argument(callback=_named, help="A folder or hub id; the embedded abacus by default.")
    ] = None
    task: Annotated[
        list[str] | None,
        Option(
            help="arithmetic (the default), math500, aime24, aime25, gsm8k, gpqa, humaneval, or a hub dataset "
            "as owner/name:config:split. May be repeated."
        ),
    ] = None
    data: Annotated[list[Path] | None, Option(help="A task from local JSON Lines. May be repeated.")] = None
    items: Annotated[
        int | None, Option(min=1, help=f"Items per task; by default all, or {ARITHMETIC_ITEMS} for arithmetic.")
    ] = None
    difficulty: Annotated[int | None, Option(help=f"Difficulty of arithmetic; {DIFFICULTY} by default.")] = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of `evaluate` and `tune`."""
        tasks = [*(self.task or ()), *(self.data or ())]
        return {"model": self.model, "task": tasks or ARITHMETIC, "items": self.items, "difficulty": self.difficulty}


def refuse_unused(context: Context, names: Iterable[str], because: str) -> None:
    """Refuses options, by the command's parameter names, that are on the command line but would have no effect."""
    for name in names:
        source = context.get_parameter_source(name)
        if source and source.name == "COMMANDLINE":
            raise ArgumentError(f"--{name.replace('_', '-')}: {because}; leave it out")


def is_class_of(text: str, config: Path) -> bool:
    """Whether a text names the class, in a file, of a policy of an armlet.json, and no settings; runs the file.

    Beside the armlet.json, such a text only lets armlet run the file.
    """
    if not names_python_file(text) or settings_text(text):
        return False
    policy, _ = class_in_file(text)
    return any(type(placement["policy"]) is policy for placement in all_placements(load_config(config)))


@contextmanager
def saying_where_to_resume() -> Iterator[None]:
    """Exits with 130 after a Ctrl-C that says where a run resumes, and prints that."""
    try:
        yield
    except KeyboardInterrupt as interruption:
        if not interruption.args:
            raise
        note(str(interruption))
        sys.exit(INTERRUPTED)


def show(
    result: Result,
    out: Path | None,
    as_json: bool,
    *,
    save: Callable[[Path], Sequence[Path]] | None = None,
    figures_key: str = "",
    setting_key: str = "",
) -> None:
    """Saves a result into a folder; prints it as JSON, or as tables, sentences and paths; exits with 130 after Ctrl-C.

    A result that cannot be saved is printed before the error.

    save: writes the result into the folder, `result.save` by default.
    figures_key, setting_key: keys of the paths of the figures and of armlet.json in JSON.
    """
    paths, error, save = list[Path](), None, save or result.save
    try:
        with working("writing"):
            paths = [*save(out)] if out else []
    except (ArmletError, OSError) as failure:
        error = failure
    figures = [str(path) for path in paths if path.suffix in FIGURE_KINDS]
    if as_json:
        setting = [str(path) for path in paths if path.name == ARMLET_FILE]
        keys = {key: value for key, value in ((figures_key, figures), (setting_key, setting)) if key}
        print_json({**result.to_dict(), **keys})
    else:
        print_tables(*result.tables())
        others = [path for path in paths if path.suffix not in FIGURE_KINDS]
        lines = [*result.sentences(), *(f"figure: {f}" for f in figures), *(f"written: {path}" for path in others)]
        for line in lines:
            print(line)
    if error:
        raise error
    if result.interrupted:
        sys.exit(INTERRUPTED)
