"""`armlet play`: a page to see inside a layer and move the knobs."""

from typing import Annotated

from typer import Argument, Option

from armlet import playground
from armlet.commands import options
from armlet.redistribution.errors import ArgumentError


def play(
    model: Annotated[
        str | None,
        Argument(help="A folder or hub id; SmolLM2 of make demo where it is there, else the embedded abacus."),
    ] = None,
    *,
    port: Annotated[int | None, Option(min=1, max=65535, help="Port; the first free one from 7860.")] = None,
    browser: Annotated[bool, Option(help="Open the page in the browser.")] = True,
    share: Annotated[bool, Option("--share", hidden=True)] = False,
    dtype: options.DtypeOption = "auto",
    device: options.DeviceOption = None,
) -> None:
    """Open a page, on this computer alone, to see inside a layer, move the knobs and compare what the model says."""
    if share:
        raise ArgumentError(
            "share: the page is for this computer alone, and a public link would let strangers run your model; "
            "for another computer of yours, use ssh -L 7860:127.0.0.1:7860"
        )
    playground.play(model, port=port, browser=browser, dtype=dtype, device=device)
