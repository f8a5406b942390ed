"""The command line: one function for each command, and one table of them.

Bad input exits 2 with one line on stderr; Ctrl-C exits 130 with what there is; `--json` puts the result on stdout and
nothing else.
"""

import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from typer.exceptions import TyperException

from armlet.layer.config import describe, json_text, load_config, parse_layers, parse_policy, write_json
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.noise import Noise
from armlet.redistribution.outward import Outward

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from armlet.analysis.inspection import Inspection, Sample

BAD_INPUT, INTERRUPTED = 2, 130
FIGURE_HOLDS = 3

notes = Console(stderr=True)


class Scope(StrEnum):
    """Over which values statistics are taken."""

    token = "token"
    sequence = "sequence"
    call = "call"


class Synthetic(StrEnum):
    """Samples in place of a model's gate."""

    modes = "modes"
    heavy_tail = "heavy-tail"


POLICY = "outward, inward or transport, with settings if need be: outward:band=0.2,share=0.02/0.25"
ScopeOption = Annotated[Scope, typer.Option(help="Over which values statistics are taken.")]
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of the keyed noise, of samples and of sampling.")]
Dtype = Annotated[str, typer.Option(help="Of the weights: auto (the checkpoint's), float32, bfloat16 or float16.")]
Device = Annotated[str | None, typer.Option(help="Where the model runs, such as cuda; the CPU by default.")]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout, and nothing else.")]


def inspect(
    model: Annotated[str | None, typer.Argument(help="A folder or hub id; SmolLM2-135M-Instruct by default.")] = None,
    layer: Annotated[int, typer.Option(help="Which layer, from 0; the figure's Layer 1 is 0.")] = 0,
    policy: Annotated[list[str] | None, typer.Option(help=POLICY + ". May be repeated; all three by default.")] = None,
    scope: ScopeOption = Scope.token,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A prompt. May be repeated; built-in ones by default.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="A text file with a prompt on each line.")] = None,
    synthetic: Annotated[Synthetic | None, typer.Option(help="A sample in place of a model.")] = None,
    out: Annotated[Path, typer.Option(help="Where the figure and inspect.json go.")] = Path("armlet-inspect"),
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Show what each policy does to the activated gate of a layer: a table, and a figure as PNG and SVG."""
    from armlet.analysis.inspection import inspect_gates
    from armlet.analysis.tables import inspection_table

    policies = [parse_policy(text) for text in policy or ("outward", "inward", "transport")]
    if len(policies) > FIGURE_HOLDS:
        raise ArgumentError(f"--policy: the figure holds up to {FIGURE_HOLDS}, found {len(policies)}")
    if synthetic and (model or prompt or prompts or layer):
        raise ArgumentError("--synthetic draws a sample: name no model, layer or prompt with it")
    _check_folder(out)
    sample = _drawn(synthetic, seed) if synthetic else _measured(model, _asked(prompt, prompts), layer, dtype, device)
    if sample.interrupted and not sample.gates:
        raise typer.Exit(INTERRUPTED)
    with notes.status("measuring ..."):
        inspection = inspect_gates(sample.gates, policies, scope=scope, seed=seed, layer=layer)
    with notes.status("drawing ..."):
        figure = _figure(inspection, sample, layer, out)
    title = f"activated gate of {sample.source}, layer {layer}, {inspection.tokens} tokens, scope {scope}"
    title += f"; {inspection.passed} tokens with NaN or Inf in their scope left out" if inspection.passed else ""
    result = {"source": sample.source, "layer": layer, "scope": scope, "seed": seed, "figure": figure}
    result |= {"prompts": len(sample.gates), "interrupted": sample.interrupted} | inspection.plain()
    write_json(out / "inspect.json", result)
    if as_json:
        print(json_text(result), end="")
    else:
        Console().print(inspection_table(inspection, title))
        print(*(f"figure: {path}" for path in figure), sep="\n")
    if sample.interrupted:
        raise typer.Exit(INTERRUPTED)


def generate(
    model: Annotated[str, typer.Argument(help="A folder or hub id.")],
    prompt: Annotated[str, typer.Argument(help="What to ask: the user's turn of the chat template, if there is one.")],
    policy: Annotated[str, typer.Option(help=POLICY + ".")] = "outward",
    layers: Annotated[str, typer.Option(help="An index, several (0,3), a range (0-5), or all.")] = "0",
    scope: ScopeOption = Scope.token,
    config: Annotated[Path | None, typer.Option(help="An armlet.json: policy, layers, scope and noise.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of each answer.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="Of sampling; 0 for greedy.")] = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="Where generate.json and armlet.json go; nowhere by default.")
    ] = None,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Answer a prompt without ARM and with it, side by side; marked: the first token at which the answers part."""
    from armlet.analysis.answers import Answers, answer
    from armlet.analysis.tables import answers_table
    from armlet.layer.attach import attach

    described = {"policy": parse_policy(policy), "layers": parse_layers(layers), "scope": scope, "noise": Noise(seed)}
    if config and described != {"policy": Outward(), "layers": [0], "scope": "token", "noise": Noise(0)}:
        raise ArgumentError(
            "--config names policy, layers, scope and seed: leave --policy, --layers, --scope, --seed out"
        )
    arguments = load_config(config) if config else described
    seed = getattr(arguments["noise"], "seed", seed) % 2**63  # of sampling too: --config gives the saved answer again
    if out:
        _check_folder(out)
    loaded, tokenizer = _load(model, dtype, device)
    answers = Answers()
    with attach(loaded, **arguments) as attachment, _progress("generating", 2 * max_new_tokens) as tick:
        how: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed, "tick": tick}
        with attachment.paused():
            answers.baseline = answer(loaded, tokenizer, prompt, **how)
        if not answers.baseline.interrupted:
            answers.treated = answer(loaded, tokenizer, prompt, **how)
    used = describe(attachment.policy, attachment.layers, attachment.scope, attachment.noise)
    result = {"model": model, "prompt": prompt, "armlet": used, "report": attachment.report()} | answers.plain()
    if out:
        attachment.save(out)
        write_json(out / "generate.json", result)
    if as_json:
        print(json_text(result), end="")
    else:
        Console().print(answers_table(tokenizer, answers, attachment))
    if answers.interrupted:
        raise typer.Exit(INTERRUPTED)


COMMANDS: dict[str, Callable[..., None]] = {"inspect": inspect, "generate": generate}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0, 2 for bad input, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    app = typer.Typer(
        help="The Activation Redistribution Module inside any open-weight model: see it, use it, measure it.",
        add_completion=False,
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_version)
    for name, command in COMMANDS.items():
        app.command(name)(command)
    try:
        _check_text(arguments)
        sys.exit(app(arguments or ["--help"], prog_name="armlet", standalone_mode=False))
    except TyperException as error:
        _fail(error.format_message())
    except (ArmletError, OSError) as error:
        _fail(str(error))


def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        print(importlib.metadata.version("armlet"))
        raise typer.Exit


def _fail(message: str) -> None:
    print(f"armlet: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def _check_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:  # from a terminal of another encoding; neither tokenizers nor JSON take it
            raise ArgumentError(f"{argument!r} is no UTF-8 text") from None


def _check_folder(out: Path) -> None:
    """Refuses, before anything takes its time, a folder that cannot be made or written to."""
    nearest = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        reason = "may not be written to" if nearest.is_dir() else "is a file"
        raise ArgumentError(f"--out: {out} cannot be written, {nearest} {reason}")


def _asked(prompt: list[str] | None, prompts: Path | None) -> list[str]:
    from armlet.analysis.prompts import BUILT_IN, read_prompts

    asked = [*(prompt or []), *(read_prompts(prompts) if prompts else [])]
    return asked or list(BUILT_IN)


def _drawn(synthetic: Synthetic, seed: int) -> "Sample":
    from armlet.analysis.inspection import Sample
    from armlet.analysis.synthetic import synthetic as draw_sample

    axis = (-4.0, 4.0) if synthetic is Synthetic.modes else None
    return Sample(f"the synthetic sample '{synthetic}'", gates=[draw_sample(synthetic, seed=seed)], axis=axis)


def _measured(model: str | None, asked: list[str], layer: int, dtype: str, device: str | None) -> "Sample":
    """The activated gates of a model; those of the prompts so far where Ctrl-C cuts it short."""
    from armlet.analysis.inspection import Sample, activated_gates, activation_name
    from armlet.layer.pretrained import default_model

    name = model or default_model()
    loaded, tokenizer = _load(name, dtype, device)
    sample = Sample(name, activation_name(loaded, layer))
    with _progress("running prompts", len(asked)) as tick:
        try:
            for gate in activated_gates(loaded, tokenizer, asked, layer):
                sample.gates.append(gate)
                tick()
        except KeyboardInterrupt:
            sample.interrupted = True
            notes.print("interrupted: this is what there is")
    return sample


def _figure(inspection: "Inspection", sample: "Sample", layer: int, out: Path) -> list[str]:
    from armlet.analysis.figures import draw_inspection, save

    panels = [effect.panel for effect in inspection.effects]
    title = f"Activated gate of {Path(sample.source).resolve().name}, {inspection.tokens} tokens"
    figure = draw_inspection(panels, title=title, layer=layer, activation=sample.activation, axis=sample.axis)
    return [str(path) for path in save(figure, out, "inspect")]


def _load(model: str, dtype: str, device: str | None) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    from armlet.layer.pretrained import load

    if device == "meta":
        raise ArgumentError("--device: 'meta' holds no values; name cpu, or cuda where there is one")
    with notes.status(f"loading {model} ..."):
        loaded = load(model, dtype=dtype, device=device)
    from transformers.utils import logging

    logging.set_verbosity_error()  # this process is the command's own, and stderr is for what the user must know
    return loaded


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr, where that is a terminal, that one call moves on by one."""
    with Progress(console=notes, transient=True, disable=not notes.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
