"""Serves the page on this computer alone: no other address, no other host's page, no setting from the environment."""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from time import sleep
from typing import Any

from armlet.presentation.terminal import note
from armlet.redistribution.errors import ArgumentError

LOOPBACK, NAMES = "127.0.0.1", ("127.0.0.1", "localhost")
FONTS: dict[str, Any] = {
    "font": ["system-ui", "sans-serif"],
    "font_mono": ["ui-monospace", "monospace"],
}  # of no other host
READABLE: dict[str, Any] = {
    "body_text_color_subdued": "#57606a",
    "block_info_text_color": "#57606a",
    "button_primary_background_fill": "#0b5cad",
    "button_primary_background_fill_hover": "#084a8c",
}
"""Where gradio's own colours have too little contrast."""

LARGEST_UPLOAD = 1  # bytes: the page takes no file

Scope = MutableMapping[str, Any]
AsgiCall = Callable[..., Awaitable[Any]]


def import_gradio() -> None:
    """Imports gradio, without its analytics and without its settings in the environment.

    They could open the page to other computers, and folders to its readers. Raises ArgumentError if gradio or plotly is
    not installed.
    """
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
        import plotly  # noqa: F401 - said now, and not when the first figure is drawn
    except ImportError as error:
        from armlet.presentation.page import PAGE_EXTRA

        raise ArgumentError(f"the page needs an extra package: {PAGE_EXTRA}") from error


class ThisPageAlone:
    """Refuses requests that name another host, or that a page of another address makes.

    A page on the web can let its name point to this computer, and so read what the model says, or send requests.
    """

    def __init__(self, app: AsgiCall, port: int) -> None:
        self.app, self.hosts = app, {f"{name}:{port}" for name in NAMES}

    async def __call__(self, scope: Scope, receive: AsgiCall, send: AsgiCall) -> None:
        """Passes a request on, or answers it with 403."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope.get("headers", ())}
        origin = headers.get(b"origin")
        known = origin is None or origin.removeprefix("http://") in self.hosts
        if scope["type"] == "lifespan" or (headers.get(b"host") in self.hosts and known):
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"This page is for the computer that it runs on alone."})


def serve_page(blocks: Any, port: int, browser: bool) -> None:
    """Starts the server of a page, and opens the page in the default browser if `browser` is set."""
    from gradio import themes
    from starlette.middleware import Middleware

    from armlet.playground.views import page_style

    for name in ("NO_PROXY", "no_proxy"):  # gradio asks its own address whether it answers
        os.environ[name] = ",".join([*filter(None, [os.environ.get(name)]), *NAMES])
    theme = themes.Default(primary_hue=themes.colors.blue, neutral_hue=themes.colors.slate, **FONTS).set(**READABLE)
    here: Any = {"server_name": LOOPBACK, "server_port": port, "share": False, "inbrowser": browser}
    off: Any = {"ssr_mode": False, "mcp_server": False, "enable_monitoring": False, "pwa": False, "footer_links": []}
    guard: Any = {"app_kwargs": {"middleware": [Middleware(ThisPageAlone, port=port)]}, "max_file_size": LARGEST_UPLOAD}
    blocks.queue(default_concurrency_limit=4)
    blocks.launch(prevent_thread_lock=True, quiet=True, theme=theme, css=page_style(), **here, **off, **guard)


def wait_for_end(blocks: Any) -> None:
    """Waits for Ctrl-C, and then closes the page at once, also where a browser still shows it."""
    try:
        while True:
            sleep(3600)
    except KeyboardInterrupt:
        blocks.server.force_exit = True
        blocks.close(verbose=False)
        note("the page is closed")
