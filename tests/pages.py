"""What a page with interactive figures contains, and what it would load."""

import base64
import gzip
import json
import re

WIDTHS = {"telephone": 390, "tablet": 768, "laptop": 1280, "desktop": 1440}
"""Widths in pixels at which a page has to be readable."""


def unpacked(page, name):
    """The text that the page has packed under a name, "plotly" or "content"."""
    (packed,) = re.findall(f'id="packed-{name}">([^<]*)<', page)
    return gzip.decompress(base64.b64decode(packed)).decode()


def content_of(page):
    return json.loads(unpacked(page, "content"))


def addresses(page):
    """Everything in the page's own text that could be loaded."""
    own = re.sub('id="packed-[^<]*<', "<", page)
    return re.findall(r"""(?:src|href|action|url)\s*[=(]\s*["']?(?!#)[^\s"')]+|https?:[^\s"'<]+|@import""", own)
