"""The remote engine: chat completions of an OpenAI-compatible server, and of a second one with ARM attached.

A server tells neither its tokenizer nor what happens inside it. Hence three differences from the local engine:

- A filler is text, and its length counts repetitions of the kind's text (of random sentences, words), not tokens.
- ARM is in a server or it is not: treated conditions go to a second server, which has ARM attached the same way, or
  to the same one, where that is vLLM with armlet. Placebos inside the gate cannot be run.
- The same request need not give the same answer, even with a seed: a server batches as it likes.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from armlet.attachment.sites import GATE
from armlet.evaluation.conditions.conditions import Condition
from armlet.evaluation.engines.chat import ARM, REFUSAL, read, request, switch
from armlet.evaluation.engines.engine import Ask, Output, Sampling
from armlet.evaluation.tasks.problems import Task
from armlet.redistribution.errors import ArgumentError, ArmletError

T = TypeVar("T")
R = TypeVar("R")

KEY, TREATED_KEY = "OPENAI_API_KEY", "OPENAI_TREATED_API_KEY"
"""Environment variables with the keys of the two servers."""

NO_KEY = "none"
"""What is sent in place of a key: many servers want none, but the client does."""

CONNECT = 10.0
"""Seconds to wait for a connection; an answer may take far longer."""

LONGEST = 300
"""Characters of a server's message that are shown."""


class EndpointError(ArmletError, RuntimeError):
    """A server that does not answer, or not as it should; what it answered before is in the run folder."""


class Endpoint:
    """An OpenAI-compatible server, and perhaps a second one with ARM attached.

    Connections that fail, 408, 409, 429 and 5xx are tried again by the `openai` package: after half a second, doubled
    each time up to eight, less a random quarter, or after what Retry-After says, up to two minutes.

    A key goes to the server that it is for. The treated server gets the same one where it has the same scheme and host,
    whatever its port; on another host it gets `treated_api_key` or none.

    Args:
        url: of the API, such as http://127.0.0.1:8000/v1; without a path, /v1 is added.
        model: as the server knows it.
        treated_url: of the server that has ARM attached; None where there is none. The same address is vLLM's with
            armlet in it, where a request turns ARM on or off.
        concurrency: most requests at a time.
        timeout: seconds to wait for an answer.
        retries: of one request after the first try.
        api_key: None for OPENAI_API_KEY of the environment, or else none.
        treated_api_key: None for OPENAI_TREATED_API_KEY of the environment, or else as above.
        seed: of random fillers and places.

    Raises:
        ArgumentError: a url that is none, a number out of range, or the `openai` package is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        treated_url: str | None = None,
        concurrency: int = 16,
        timeout: float = 600.0,
        retries: int = 8,
        api_key: str | None = None,
        treated_api_key: str | None = None,
        seed: int = 0,
    ) -> None:
        if concurrency < 1 or retries < 0 or not timeout > 0:
            found = f"concurrency {concurrency}, retries {retries}, timeout {timeout}"
            raise ArgumentError(f"endpoint: expected concurrency from 1, retries from 0 and a timeout, found {found}")
        self.url, self.model, self.seed = checked_url("--endpoint", url), model, seed
        self.treated_url = treated_url and checked_url("--treated-endpoint", treated_url)
        self.switched = self.treated_url == self.url
        self.concurrency, self.retries, self.timeout = concurrency, retries, timeout
        key = api_key or os.environ.get(KEY) or NO_KEY
        self._clients = {self.url: self._client(self.url, key)}
        if self.treated_url and self.treated_url not in self._clients:
            own = treated_api_key or os.environ.get(TREATED_KEY)
            shared = key if same_host(self.url, self.treated_url) else NO_KEY
            self._clients[self.treated_url] = self._client(self.treated_url, own or shared)

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        for client in self._clients.values():
            client.close()

    def describe(self) -> dict[str, Any]:
        """The servers and the model; never a key."""
        return {"endpoint": self.url, "treated_endpoint": self.treated_url, "model": self.model, "seed": self.seed}

    def check(self, conditions: Sequence[Condition], tasks: Sequence[Task] = ()) -> None:
        """Refuses, before anything is asked, what cannot be run here.

        Raises:
            ArgumentError: names the conditions or tasks, and what to do.
        """
        treated = [each for each in conditions if each.treatment and not each.placebo]
        policies = {repr(each.treatment) for each in treated}
        if treated and not self.treated_url:
            raise ArgumentError(
                f"--endpoint: a server without ARM cannot run {_names(treated)}; name one that has it attached with "
                "--treated-endpoint URL, or leave the policy out"
            )
        if len(policies) > 1:
            raise ArgumentError(
                f"--treated-endpoint: one server has one treatment attached, and {_names(treated)} need "
                f"{len(policies)}; give one policy"
            )
        if other := [each for each in treated if each.treatment and each.treatment.site != GATE]:
            raise ArgumentError(f"--endpoint: servers have ARM at the site {GATE} alone; {_names(other)} is at another")
        inside = [each for each in conditions if each.placebo]
        if inside:
            raise ArgumentError(
                f"--endpoint: placebos inside the gate cannot be run on a server: {_names(inside)}; "
                "leave them out with --no-placebos"
            )
        weighed = [task.name for task in tasks if task.kind == "choice"]
        if weighed:
            raise ArgumentError(f"--endpoint: multiple choice needs a local model, and {', '.join(weighed)} is that")

    def length(self, ask: Ask) -> int:
        """Characters of system prompt and question."""
        return len(ask.system) + len(ask.problem.question)

    def answer(
        self, asks: Sequence[Ask], condition: Condition, sampling: Sampling, *, batch: int, sample: int
    ) -> list[Output]:
        """One answer to each ask, in their order; at most `concurrency` requests are under way at a time.

        Raises:
            EndpointError: a server's refusal, or what happened at the last try.
            ArgumentError: the condition cannot be run here.
        """
        self.check([condition])
        url = (self.treated_url or self.url) if condition.treatment else self.url

        def one(ask: Ask) -> Output:
            return self._answer(url, self.request(ask, condition, sampling, batch=batch, sample=sample))

        return concurrently(one, asks, self.concurrency)

    def weigh(self, asks: Sequence[Ask], condition: Condition) -> list[list[float]]:
        """Not on a server: always an ArgumentError."""
        raise ArgumentError("--endpoint: multiple choice needs a local model: leave --endpoint out")

    def fired(self) -> dict[str, Any]:
        """Nothing: a server does not say what happens inside it."""
        return {}

    def request(self, ask: Ask, condition: Condition, sampling: Sampling, *, batch: int, sample: int) -> dict[str, Any]:
        """The arguments of a chat completion; where one server has both sides, ARM is on or off by request."""
        found = request(self.model, ask, condition, sampling, filler_seed=self.seed, batch=batch, sample=sample)
        return found | (switch("on" if condition.treatment else "off") if self.switched else {})

    def check_switch(self) -> None:
        """Asks a server for an ARM that means nothing: one that has ARM refuses, and one without answers.

        Raises:
            EndpointError: it has no ARM that a request could turn on or off, or it cannot be reached.
        """
        asked = {"model": self.model, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1}
        try:
            self._answer(self.url, asked | switch("neither"))
        except EndpointError as error:
            if REFUSAL in str(error):
                return
            raise
        raise EndpointError(
            f"server {self.url} does not know ARM's switch: start vLLM with armlet installed and --additional-config "
            f'\'{{"{ARM}": {{"policy": "outward"}}}}\', or name another server as --treated-endpoint'
        )

    def _client(self, url: str, key: str) -> Any:
        try:
            import openai
        except ImportError as error:
            message = "a server needs another package: pip install 'armlet[endpoint]'"
            raise ArgumentError(message) from error
        timeout = openai.Timeout(self.timeout, connect=min(CONNECT, self.timeout))
        return openai.OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=self.retries)

    def _answer(self, url: str, request: Mapping[str, Any]) -> Output:
        import openai

        client = self._clients[url]
        try:
            return read(client.chat.completions.create(**request))
        except openai.APIStatusError as error:
            said = _brief(_said(error), client.api_key)
            if error.status_code in (401, 403):
                said = f"{said}: is {KEY if url == self.url else f'{KEY} or {TREATED_KEY}'} its key?"
            raise EndpointError(f"server {url} answered {error.status_code}: {said}") from None
        except openai.APITimeoutError:
            message = f"did not answer within {self.timeout:g} s, {self.retries + 1} times"
            raise EndpointError(f"server {url} {message}") from None
        except openai.APIConnectionError as error:
            reason = _brief(str(error.__cause__ or error), client.api_key)
            raise EndpointError(f"server {url} was not reached, {self.retries + 1} times: {reason}") from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, LookupError) as error:
            reason = _brief(f"{type(error).__name__}: {error}", client.api_key)
            raise EndpointError(f"server {url} answered with no chat completion ({reason})") from None


def checked_url(option: str, url: str) -> str:
    """The address of an API, without a slash at its end.

    Raises:
        ArgumentError: another scheme, no host, or a password or key in it, which a report would show.
    """
    try:
        parts = urlsplit(url)
        named = parts.hostname and parts.port != 0  # a port that is no number raises
    except ValueError:
        parts, named = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not named:
        raise ArgumentError(f"{option}: expected an address such as http://127.0.0.1:8000/v1, found {url!r}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ArgumentError(f"{option}: give the address alone; a key belongs into {KEY}")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


def same_host(one: str, other: str) -> bool:
    """Whether two addresses have one scheme and one host, on whatever port."""
    first, second = urlsplit(one), urlsplit(other)
    return (first.scheme, first.hostname) == (second.scheme, second.hostname)


def concurrently(call: Callable[[T], R], items: Sequence[T], most: int) -> list[R]:
    """The results of a call for each item, in their order, at most so many calls at a time.

    The first error ends it: what has not begun does not begin. Threads are daemons, so that Ctrl-C does not wait for
    what is under way; a running event loop, as a notebook has, is neither needed nor in the way.
    """
    waiting, lock, ended = iter(range(len(items))), Lock(), Event()
    done: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()

    def work() -> None:
        while not ended.is_set():
            with lock:
                at = next(waiting, None)
            if at is None:
                return
            try:
                done.put((at, call(items[at]), None))
            except BaseException as error:  # raised again where the results are awaited
                ended.set()
                done.put((at, None, error))

    found: dict[int, R] = {}
    try:
        for _ in range(min(most, len(items))):
            Thread(target=work, daemon=True).start()
        while len(found) < len(items):
            at, result, error = done.get()
            if error:
                raise error
            found[at] = result
    finally:
        ended.set()
    return [found[at] for at in range(len(items))]


def _names(conditions: Sequence[Condition]) -> str:
    return ", ".join(each.name for each in conditions)


def _said(error: Any) -> str:
    """A server's own words, where it has any."""
    body = error.body
    said = body.get("message") if isinstance(body, Mapping) else body
    return str(said or error.message)


def _brief(text: str, key: str) -> str:
    """One line without the key, which some servers repeat."""
    line = " ".join(text.split())
    line = line if key == NO_KEY else line.replace(key, "…")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
