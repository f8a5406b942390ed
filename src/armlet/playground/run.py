"""`play`: opens a model and serves the page on this computer alone."""

import atexit
import socket
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import monotonic
from typing import TYPE_CHECKING, Any

from armlet.attachment.attached import refuse_attached
from armlet.checkpoints.given import Model, load_or_use
from armlet.checkpoints.pretrained import DEFAULT_FOLDER, Dtype
from armlet.playground.server import LOOPBACK, import_gradio, serve_page, wait_for_end
from armlet.presentation.arguments import whole_number
from armlet.presentation.terminal import note
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIRST_PORT, PORTS = 7860, 100
"""Where a free port is looked for, if none is given."""


def play(
    model: Model | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    port: int | None = None,
    browser: bool = True,
    dtype: Dtype = "auto",
    device: str | None = None,
    block: bool = True,
) -> Any:
    """Serves a page with a model's layer, its gate before and after each policy, and knobs, on this computer alone.

    The page makes no request to another host, sends nothing, and stores nothing but files that its reader asks for.

    Args:
        model: a folder, a hub id or a loaded language model; SmolLM2-135M-Instruct of `make demo` by default, else the
            embedded abacus.
        tokenizer: the tokenizer of a loaded model.
        port: the port on 127.0.0.1; the first free one from 7860 by default.
        browser: whether to open the page in the default browser.
        dtype: dtype of the weights: "auto" (the model's), "float32", "bfloat16", "float16", "float64", or as torch's.
        device: device of the model, such as "cuda"; where a loaded model is, or the CPU.
        block: whether to return only after Ctrl-C.

    Returns:
        With `block=False`, gradio's Blocks, whose `close()` ends the page.

    Raises:
        ArgumentError: gradio is not installed, the port is taken or out of range, or another argument is wrong.
        AlreadyAttachedError: ARM is attached to the model, so that the baseline would be treated.
        CheckpointError, UnsupportedModelError: the model cannot be loaded, or has no gated MLP.
    """
    chosen_port = _free_port() if port is None else _checked_port(port)
    import_gradio()
    given: Model = (str(DEFAULT_FOLDER) if DEFAULT_FOLDER.is_dir() else "abacus") if model is None else model
    opened = load_or_use(given, tokenizer, dtype=dtype, device=device)
    refuse_attached(opened.model, "play")
    start = monotonic()
    from armlet.playground.connections import Connections
    from armlet.playground.events import Events
    from armlet.playground.page import Page
    from armlet.playground.reading import Reader
    from armlet.playground.tour import TOUR

    reader = Reader(opened)
    page = Page(opened.name, reader.layer_count, reader.expert_count, [stop.name for stop in TOUR])
    with page.blocks:
        Connections(page, Events(page, reader, _folder())).connect()
    serve_page(page.blocks, chosen_port, browser)
    note(f"the page is at http://{LOOPBACK}:{chosen_port} after {monotonic() - start:.1f} s; Ctrl-C ends it")
    if block:
        wait_for_end(page.blocks)
        return None
    return page.blocks


def _folder() -> Path:
    """A folder for the files that readers of the page ask for, which is removed when Python ends."""
    folder = Path(mkdtemp(prefix="armlet-"))
    atexit.register(rmtree, folder, ignore_errors=True)
    return folder


def _checked_port(port: int) -> int:
    """The port; raises ArgumentError if it is out of range or taken."""
    number = whole_number("port", port, 1, 65535)
    if not _is_free(number):
        raise ArgumentError(f"port: {number} is taken or not allowed; choose another, or leave it out")
    return number


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        if _is_free(port):
            return port
    raise ArgumentError(f"port: none from {FIRST_PORT} to {FIRST_PORT + PORTS - 1} is free; choose another")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
