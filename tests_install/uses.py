"""What a user does first, and what each extra is for."""

from dataclasses import dataclass
from pathlib import Path

from tests_install.distribution import require
from tests_install.environment import Environment

STUDY = """\
title = "A study of one cell"
source = "none"
hypothesis = "Outward helps abacus."
seeds = [0]
models = [{ model = "abacus", tasks = ["arithmetic"] }]
tasks = [{ task = "arithmetic", settings = { items = 10 } }]
treatments = [{ name = "Outward", policy = "outward" }]
"""

WHERE = "import armlet; print(armlet.__version__, armlet.__file__)"
PLUGIN = (
    "from importlib.metadata import entry_points as e; [p] = e(group='vllm.general_plugins', name='armlet'); p.load()"
)


@dataclass(frozen=True)
class Extra:
    """The modules that an extra brings, and a command that asks for the extra where it is not installed."""

    modules: tuple[str, ...]
    command: tuple[str, ...] = ()


EXTRAS = {
    "gguf": Extra(("gguf", "accelerate")),
    "hub": Extra(("datasets",), ("evaluate", "abacus", "--task", "gsm8k", "--items", "2", "--out", "hub")),
    "endpoint": Extra(("openai",), ("evaluate", "served", "--endpoint", "no-address", "--out", "endpoint")),
    "cluster": Extra(("ray",), ("study", "study.toml", "--ray", "local", "--out", "cluster")),
    "page": Extra(("gradio", "plotly"), ("inspect", "--synthetic", "modes", "--html", "--out", "page")),
    "lm-eval": Extra(("lm_eval", "accelerate"), ("lm-eval", "--help")),
    "inspect-ai": Extra(("inspect_ai", "accelerate"), ("inspect-compare", "no-log", "no-log")),
    "vllm": Extra(()),  # brings nothing: vLLM itself decides on torch, and `make test-vllm` runs the plugin in it
}


def use_first(environment: Environment, version: str) -> None:
    """The first things that a user types; raises FaultError if one of them fails."""
    stated, file = environment.succeed([environment.program("python"), "-c", WHERE]).split(maxsplit=1)
    require(stated == version, f"armlet.__version__ is {stated}, the wheel's is {version}")
    inside = Path(file.strip()).resolve().is_relative_to(environment.prefix.resolve())
    require(inside, f"armlet is imported from {file.strip()}, outside the environment")
    armlet = environment.program("armlet")
    require("inspect" in environment.succeed([armlet, "--help"]), "armlet --help does not name its commands")
    environment.succeed([armlet, "inspect", "--synthetic", "modes", "--out", "figure"])
    drawn = {file.suffix for file in (environment.work / "figure").iterdir() if file.stat().st_size > 20_000}
    require({".png", ".svg"} <= drawn, f"armlet inspect drew {sorted(drawn)}, not a PNG and an SVG")


def asks_for(environment: Environment, extra: str) -> bool:
    """Whether the command that needs an extra ends with the advice to install it."""
    (environment.work / "study.toml").write_text(STUDY)
    done = environment.run([environment.program("armlet"), *EXTRAS[extra].command])
    require("Traceback" not in done.stdout, f"{extra}: {' '.join(EXTRAS[extra].command)}:\n{done.stdout}")
    return done.returncode == 2 and f"armlet[{extra}]" in done.stdout


def use_without_extras(environment: Environment) -> None:
    """Each command that needs an extra says which; raises FaultError if one does not."""
    for extra in (name for name, needed in EXTRAS.items() if needed.command):
        require(asks_for(environment, extra), f"without {extra}, {EXTRAS[extra].command} does not ask for it")


def use_extra(environment: Environment, extra: str) -> None:
    """An extra brings what it is for, and its command no longer asks for it; raises FaultError otherwise."""
    for module in EXTRAS[extra].modules:
        environment.succeed([environment.program("python"), "-c", f"import {module}"])
    if EXTRAS[extra].command:
        require(not asks_for(environment, extra), f"with {extra}, {EXTRAS[extra].command} still asks for it")
    if extra == "vllm":
        environment.succeed([environment.program("python"), "-c", PLUGIN])
