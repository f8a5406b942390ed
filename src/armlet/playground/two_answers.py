"""Two answers to one text, without ARM and with it, token by token as they are generated."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread

import torch

from armlet.answers.measure import split_at
from armlet.answers.records import Answer, Parts, first_difference
from armlet.attachment.attach import attach
from armlet.checkpoints.given import known_tokens
from armlet.playground.predictions import placement
from armlet.playground.reading import Reader
from armlet.playground.setting import Setting
from armlet.prompts.generation import Decoding, TokenStream, generate_tokens, padding_token

LONGEST_ANSWER = 64  # tokens


@dataclass(frozen=True)
class AnswerPair:
    """Both answers so far, each split at the first token that differs."""

    without: Parts
    treated: Parts | None  # None until the first answer is complete
    finished: bool


class _Stopped(Exception):
    """The reader of the page has left, or asked for other answers."""


def stream_answers(reader: Reader, setting: Setting, max_new_tokens: int) -> Iterator[AnswerPair]:
    """Generates greedily without ARM and then with it; yields after each token, and at the end once more.

    Closing the iterator stops the model after the next token. Raises the errors of `attach`.
    """
    answers = [_Stream(), _Stream()]
    for index, stream in enumerate(answers):
        for _ in _generated(reader, setting if index else None, setting.text, max_new_tokens, stream):
            yield _pair(reader, answers, finished=False)
    yield _pair(reader, answers, finished=True)


class _Stream:
    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.started = self.complete = False


def _pair(reader: Reader, streams: list[_Stream], *, finished: bool) -> AnswerPair:
    tokenizer = reader.opened.tokenizer
    answers = [
        Answer(list(s.tokens), str(tokenizer.decode(s.tokens, skip_special_tokens=True)), not s.complete)
        for s in streams
    ]
    second = answers[1] if streams[1].started else None
    index = first_difference(answers[0], second)
    treated = split_at(tokenizer, second, index) if second else None
    return AnswerPair(split_at(tokenizer, answers[0], index), treated, finished)


def _generated(
    reader: Reader, setting: Setting | None, text: str, max_new_tokens: int, answer: _Stream
) -> Iterator[None]:
    """Runs the model in a thread, with ARM if there is a setting, and yields after each token."""
    queue, stop = SimpleQueue[BaseException | bool](), Event()
    answer.started = True

    def tick() -> None:
        answer.tokens = [*stream.tokens]
        queue.put(True)
        if stop.is_set():
            raise _Stopped

    stream = TokenStream(tick)

    def run() -> None:
        try:
            with reader.running() as model, ExitStack() as stack:
                if setting:
                    stack.enter_context(attach(model, setting.acting(), **placement(setting)))
                ids = reader.tokens(text)
                padding = padding_token(reader.opened.tokenizer, known_tokens(model))
                decoding = Decoding(max_new_tokens)
                generate_tokens(model, ids, torch.ones_like(ids), decoding, padding=padding, stream=stream)
            queue.put(False)
        except BaseException as error:  # raised again where the answers are read
            queue.put(error)

    worker = Thread(target=run, daemon=True)
    worker.start()
    try:
        while (event := queue.get()) is True:
            yield
        if isinstance(event, BaseException):
            raise event
        answer.complete = True
    finally:
        stop.set()
        worker.join()
