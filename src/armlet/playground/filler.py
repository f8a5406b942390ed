"""What filler tokens do to attention and gate in one layer, for one text, by `explain`."""

from armlet.mechanism.result import Explanation
from armlet.mechanism.run import explain
from armlet.playground.reading import LONGEST_PROMPT, Reader
from armlet.playground.setting import Setting
from armlet.prompts.fillers import Position
from armlet.redistribution.errors import ArgumentError


def explain_filler(reader: Reader, setting: Setting, filler: str, count: int, position: Position) -> Explanation:
    """Runs `explain` on the text; raises its errors, and ArgumentError for a text that is too long."""
    if not filler:
        raise ArgumentError("filler: it is empty; write a sign or a word, such as /")
    tokens = reader.tokens(setting.text).shape[1] + count
    if tokens > LONGEST_PROMPT:
        raise ArgumentError(
            f"filler: text and filler have {tokens} tokens, and this page takes {LONGEST_PROMPT} at most"
        )
    opened = reader.opened
    asked = {"filler": filler, "count": count, "position": position, "seed": setting.seed}
    with reader.running() as model:
        return explain(model, opened.tokenizer, layers=setting.layer, prompt=setting.text.strip(), **asked)
