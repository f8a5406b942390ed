"""`armlet quantize`: what fewer bits at the input of down cost, and which way around the outliers pays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from armlet.attachment.config import FILE, describe
from armlet.commands.arguments import (
    DeviceOption,
    DtypeOption,
    JsonOption,
    SeedOption,
    SiteName,
    check_folder,
    refuse_meta,
    unslashed,
)
from armlet.precision.findings import Row, cautions, headline, layer_rows, most_trials, rounded, unrounded
from armlet.presentation.files import json_text, write_json
from armlet.presentation.terminal import INTERRUPTED, notes, progress
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise
from armlet.runs.journal import run_folder

if TYPE_CHECKING:
    from torch import Tensor

    from armlet.precision.measure import Bench, Contraction, Trial
    from armlet.runs.journal import Journal

PASSAGES = Path(__file__).parents[1] / "precision" / "passages.txt"
"""The built-in text: prose written for this purpose."""

RESULT = "quantize.json"

ASKED = "?"
"""What stands between a question of abacus and its answer."""


def quantize(
    model: Annotated[
        str | None,
        typer.Argument(callback=unslashed, help="A folder, a hub id or abacus; SmolLM2-135M-Instruct by default."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A text in UTF-8; a small built-in one by default.")] = None,
    windows: Annotated[int, typer.Option(min=2, help="Held-out windows, from the text's beginning.")] = 24,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of a window.")] = 48,
    calibration: Annotated[int, typer.Option(min=1, help="Windows to choose by, from the text's end.")] = 4,
    limit: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Most that contracting may cost the unrounded model: a share of its perplexity on calibration text.",
        ),
    ] = 0.01,
    site: Annotated[
        SiteName | None,
        typer.Option(
            help="Contract only there: at gate, behind its activation, as vLLM serves it; or at product, the input of "
            "down. At either by default."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where all goes; the same command goes on there. Named after the run by default."),
    ] = None,
    seed: SeedOption = 0,
    dtype: DtypeOption = "auto",
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what few bits at the input of down cost, with companding, contraction and what else is used today."""
    from armlet.precision.choice import REFERENCES
    from armlet.precision.measure import Bench
    from armlet.runs.journal import open_journal
    from armlet.runs.machine import machine

    refuse_meta(device)
    if out:
        check_folder(out)
    text = _text(data) if data or model != "abacus" else None
    loaded, tokenizer, described = _load(model, dtype, device)
    longest = getattr(loaded.config.get_text_config(), "max_position_embeddings", None) or tokens
    if tokens > longest:
        raise ArgumentError(f"--tokens: the model reads {longest:,} at a time, found {tokens:,}")
    texts = _texts(tokenizer, text, windows, calibration, tokens)
    after = None if text else tokenizer.convert_tokens_to_ids(ASKED)  # abacus was not trained to guess a question
    bench = Bench(loaded, {name: ids.to(loaded.device) for name, ids in texts.items()}, REFERENCES, after)
    asked = {"windows": windows, "tokens": tokens, "calibration": calibration, "limit": limit, "site": site}
    manifest = _manifest(described, data, texts, asked)
    folder = out or run_folder(manifest)
    with open_journal(folder, manifest, machine()) as journal:
        found = _run(bench, journal, limit, site, seed)
    if found.rows:
        heading = {"source": described["model"], "dtype": described["dtype"], "data": str(data) if data else None}
        _report(found, heading | asked | {"seed": seed}, folder, as_json)
    if found.interrupted:
        notes.print(f"interrupted: {folder} keeps what there is, and the same command goes on", markup=False)
        raise typer.Exit(INTERRUPTED)


def _text(data: Path | None) -> str:
    path = data or PASSAGES
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"--data: {path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        raise ArgumentError(f"--data: {path} is no text in UTF-8") from None


def _load(model: str | None, dtype: str, device: str | None) -> tuple[Any, Any, dict[str, Any]]:
    """The model, its tokenizer, and what tells them from others."""
    from armlet.checkpoints.identity import fingerprint, model_folder
    from armlet.checkpoints.pretrained import default_model, load, parse_dtype

    parse_dtype(dtype)
    name = model or default_model()
    with notes.status(escape(f"loading {name} ...")):
        folder = model_folder(name)
        loaded, tokenizer = load(str(folder), dtype=dtype, device=device)
    described = {"model": name, "sha256": fingerprint(folder), "device": str(loaded.device)}
    return loaded, tokenizer, described | {"dtype": str(loaded.dtype).removeprefix("torch.")}


def _texts(tokenizer: Any, text: str | None, windows: int, calibration: int, tokens: int) -> "dict[str, Tensor]":
    """Windows of a text; of problems for `abacus`, which knows no prose."""
    from armlet.precision.measure import cut

    if text is None:
        return {"held-out": _problems(tokenizer, windows, tokens, "test")} | {
            "calibration": _problems(tokenizer, calibration, tokens, "train")
        }
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return cut(ids, windows, calibration, tokens, tokenizer.bos_token_id)


def _problems(tokenizer: Any, count: int, tokens: int, split: Any) -> "Tensor":
    """Worked problems of a split, each cut to a window; left out are those that are shorter, or all question."""
    import torch

    from armlet.evaluation.tasks.arithmetic import exercise

    found: list[list[int]] = []
    for index in range(100 * count):
        each = exercise(index, split=split)
        ids = tokenizer(f"{each.question}=?{each.answer}", add_special_tokens=False)["input_ids"]
        if len(ids) >= tokens > ids.index(tokenizer.convert_tokens_to_ids(ASKED)) + 1:
            found.append(ids[:tokens])
        if len(found) == count:
            return torch.tensor(found)
    raise ArgumentError(
        f"--tokens: too few problems of abacus have {tokens} tokens with some of the answer; 48 suit it"
    )


def _manifest(
    described: dict[str, Any], data: Path | None, texts: "dict[str, Tensor]", asked: dict[str, Any]
) -> dict[str, Any]:
    """Everything that decides what is chosen, and the losses."""
    import hashlib
    from importlib import metadata

    hashes = {name: hashlib.sha256(str(ids.tolist()).encode()).hexdigest() for name, ids in texts.items()}
    return {
        "engine": described,
        "tasks": [{"name": "quantize", "data": data.name if data else None, "sha256": hashes}],
        **asked,
        "versions": {name: metadata.version(name) for name in ("armlet", "torch", "transformers", "tokenizers")},
    }


class _Runner:
    """Runs trials that the journal does not have yet, and moves the bar on for each."""

    def __init__(self, bench: "Bench", journal: "Journal", tick: Callable[..., None]) -> None:
        self.bench, self.journal, self.tick = bench, journal, tick

    def __call__(self, trial: "Trial") -> Any:
        if not self.journal.has(trial.key):
            self.journal.close(trial.key, [], self.bench.run(trial))
            self.tick()
        return self.journal.closed[trial.key]


@dataclass
class _Found:
    """The contraction that pays, what the layers do, the rows of complete codes, whether Ctrl-C left some out."""

    contraction: "Contraction | None" = None
    layers: list[Row] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    interrupted: bool = False


def _run(bench: "Bench", journal: "Journal", limit: float, site: str | None, seed: int) -> _Found:
    from armlet.precision.choice import choose
    from armlet.precision.codes import CODES
    from armlet.precision.measure import Trial

    found = _Found()
    with progress("running trials", most_trials(len(bench.downs)), done=len(journal.closed)) as tick:
        run = _Runner(bench, journal, tick)
        try:
            _check_losses(run(Trial("calibration"))["nll"])
            chosen = choose(run, list(bench.downs), limit, site)
            found.contraction = chosen.contraction
            found.layers = layer_rows(run, chosen, seed)
            bare = unrounded(run, chosen, seed)
            for code in CODES:
                found.rows = [*(found.rows or bare), *rounded(run, chosen, code, seed)]
        except KeyboardInterrupt:
            found.interrupted = True
    return found


def _check_losses(losses: Sequence[float]) -> None:
    if not all(map(isfinite, losses)):
        raise ArgumentError(
            "the model's loss on the text is not a number before anything is rounded: its weights hold NaN, or its "
            "dtype overflows; try --dtype float32"
        )


def _report(found: _Found, asked: dict[str, Any], folder: Path, as_json: bool) -> None:
    """Writes the result, the setting and the figure, and prints the result."""
    from armlet.precision.choice import COMPANDED, REFERENCES, ROUNDED
    from armlet.precision.figures import draw
    from armlet.precision.tables import layers_table, methods_table, shape_table
    from armlet.presentation.style import save

    rows, layers = found.rows, found.layers
    paths = _save_setting(found.contraction, folder)
    with notes.status("drawing ..."):
        figures = save(draw(rows, layers), folder, "quantize")
    lines = headline(rows, asked["seed"])
    warned = cautions(rows, found.contraction, asked["limit"], asked["seed"]) if found.contraction else []
    result = asked | {"interrupted": found.interrupted, "headline": lines, "setting": paths, "cautions": warned}
    result |= {"layers": layers, "rows": rows, "figures": [str(path) for path in figures]}
    write_json(folder / RESULT, result)
    if as_json:
        print(json_text(result), end="")
        return
    print(*lines, sep="\n")
    Console().print(methods_table(rows))
    if any(row["code"] == str(REFERENCES[0]) for row in rows):
        Console().print(shape_table(rows, str(REFERENCES[0]), (ROUNDED, COMPANDED)))
    Console().print(layers_table(layers))
    settings = [f"setting: {path}" for path in paths]
    print(*settings, *(f"  {each}" for each in warned), *(f"figure: {path}" for path in figures), sep="\n")


def _save_setting(contraction: "Contraction | None", folder: Path) -> list[str]:
    """`armlet.json`, where a contraction was chosen; the one of an earlier run with another outcome goes."""
    if contraction is None:
        (folder / FILE).unlink(missing_ok=True)
        return []
    content = describe(contraction.policy, contraction.layers, contraction.scope, Noise(0), contraction.site)
    return [str(write_json(folder / FILE, content))]
