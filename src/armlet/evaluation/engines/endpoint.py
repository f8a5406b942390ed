"""The remote engine: chat completions of an OpenAI-compatible server, and of a second one with ARM attached."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from threading import Thread
from urllib.parse import urlsplit

from armlet.attachment.sites import GATE
from armlet.evaluation.conditions.conditions import Condition
from armlet.evaluation.engines.chat import SWITCH_KEY, SWITCH_REFUSAL, ChatRequest, messages, read_completion, switch
from armlet.evaluation.engines.engine import Ask, Engine, Output, Sampling, derived_seed
from armlet.evaluation.tasks.problems import Task
from armlet.redistribution.errors import ArgumentError, ArmletError

SERVER_KEY, TREATED_SERVER_KEY = "OPENAI_API_KEY", "OPENAI_TREATED_API_KEY"  # environment variables
NO_KEY = "none"  # sent in place of a key: many servers need none, but the client does
CONNECT_SECONDS = 10.0  # to wait for a connection; an answer may take far longer
MESSAGE_CHARACTERS = 300  # shown of a server's message


class EndpointError(ArmletError, RuntimeError):
    """A server does not answer, or not as it should; earlier answers are in the run folder."""


@dataclass
class Endpoint(Engine):
    """An OpenAI-compatible server, and optionally a second one with ARM attached, of which `fired` says nothing.

    A server reveals neither its tokenizer nor its activations: a filler's length counts repetitions of its text (of
    random sentences, words), not tokens, and placebos inside the gate cannot be run. The same request need not give the
    same answer, even with a seed, because a server forms its batches as it likes.

    The `openai` package retries failed connections and the status codes 408, 409, 429 and 5xx: after half a second,
    doubled each time up to eight, less a random quarter, or after what Retry-After says, up to two minutes.

    Raises:
        ArgumentError: an invalid url, a number out of range, or the `openai` package is not installed.
    """

    url: str  # of the API, such as http://127.0.0.1:8000/v1; without a path, /v1 is added
    model: str  # as the server names it
    treated_url: str | None = None  # of the server with ARM; of vLLM it may be `url`, and requests switch ARM
    concurrency: int = 16  # most requests at a time
    timeout: float = 600.0  # seconds to wait for an answer
    retries: int = 8  # of one request after the first try
    seed: int = 0  # of random fillers and positions

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.retries < 0 or not self.timeout > 0:
            values = f"concurrency {self.concurrency}, retries {self.retries}, timeout {self.timeout}"
            raise ArgumentError(f"endpoint: expected concurrency from 1, retries from 0 and a timeout, found {values}")
        try:
            import openai
        except ImportError as error:
            raise ArgumentError("a server needs another package: pip install 'armlet[endpoint]'") from error
        self.url = _checked_url("--endpoint", self.url)
        self.treated_url = self.treated_url and _checked_url("--treated-endpoint", self.treated_url)
        self.switched = self.treated_url == self.url
        timeout = openai.Timeout(self.timeout, connect=min(CONNECT_SECONDS, self.timeout))
        self._clients = {
            url: openai.OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=self.retries)
            for url, key in _server_keys(self.url, self.treated_url).items()
        }

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()

    def describe(self) -> dict[str, object]:
        """The servers and the model; never a key."""
        return {"endpoint": self.url, "treated_endpoint": self.treated_url, "model": self.model, "seed": self.seed}

    def check(self, conditions: Sequence[Condition], tasks: Sequence[Task] = ()) -> None:
        """An ArgumentError, before anything is asked, for conditions and tasks that a server cannot run."""
        treated = [condition for condition in conditions if condition.treatment and not condition.placebo]
        policies = {repr(condition.treatment) for condition in treated}
        elsewhere = [condition for condition in treated if condition.treatment and condition.treatment.site != GATE]
        placebos = [condition for condition in conditions if condition.placebo]
        refusals = {
            "--endpoint: a server without ARM cannot run {}; name one that has it attached with "
            "--treated-endpoint URL, or leave the policy out": [] if self.treated_url else treated,
            "--treated-endpoint: one server has one treatment attached, and {} need "
            f"{len(policies)}; give one policy": treated if len(policies) > 1 else [],
            f"--endpoint: servers have ARM at the site {GATE} alone; {{}} is at another": elsewhere,
            "--endpoint: placebos inside the gate cannot be run on a server: {}; "
            "leave them out with --no-placebos": placebos,
            "--endpoint: multiple choice needs a local model, and {} is that": [t for t in tasks if t.kind == "choice"],
        }
        for message, refused in refusals.items():
            if refused:
                raise ArgumentError(message.format(", ".join(item.name for item in refused)))

    def length(self, ask: Ask) -> int:
        """Characters of system prompt and question."""
        return len(ask.system) + len(ask.problem.question)

    def answer(
        self, asks: Sequence[Ask], condition: Condition, sampling: Sampling, *, batch: int, sample: int
    ) -> list[Output]:
        """One answer to each ask, in their order, with at most `concurrency` requests at a time.

        Raises:
            EndpointError: a server's refusal, or what happened at the last try.
            ArgumentError: the condition cannot be run here.
        """
        self.check([condition])
        url = (self.treated_url or self.url) if condition.treatment else self.url
        shared: ChatRequest = {"model": self.model, "top_p": sampling.top_p, "max_tokens": sampling.max_new_tokens}
        shared["temperature"] = condition.temperature
        if condition.role == "best-of":
            shared["logprobs"] = True
        if self.switched:
            shared["extra_body"] = switch("on" if condition.treatment else "off")

        def answer_one(ask: Ask) -> Output:
            seed = derived_seed(sampling.seed, batch, sample, ask.number, bits=31)  # which every server accepts
            return self._answer(url, {**shared, "messages": messages(ask, condition.filling, self.seed), "seed": seed})

        return concurrently(answer_one, asks, self.concurrency)

    def weigh(self, asks: Sequence[Ask], condition: Condition) -> list[list[float]]:
        """Not on a server: always an ArgumentError."""
        raise ArgumentError("--endpoint: multiple choice needs a local model: leave --endpoint out")

    def check_switch(self) -> None:
        """Send the server an invalid value for ARM's switch: one that has the switch refuses it.

        Raises:
            EndpointError: it has no such switch, or it cannot be reached.
        """
        question: ChatRequest = {"model": self.model, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1}
        try:
            self._answer(self.url, {**question, "extra_body": switch("neither")})
        except EndpointError as error:
            if SWITCH_REFUSAL in str(error):
                return
            raise
        raise EndpointError(
            f"server {self.url} does not know ARM's switch: start vLLM with armlet installed and --additional-config "
            f'\'{{"{SWITCH_KEY}": {{"policy": "outward"}}}}\', or name another server as --treated-endpoint'
        )

    def _answer(self, url: str, request: ChatRequest) -> Output:
        import openai

        client = self._clients[url]
        try:
            return read_completion(client.chat.completions.create(**request))
        except openai.APIStatusError as error:
            body = error.body.get("message") if isinstance(error.body, Mapping) else error.body
            message = f"answered {error.status_code}: {_one_line(body or error.message, client.api_key)}"
            if error.status_code in (401, 403):
                variables = SERVER_KEY if url == self.url else f"{SERVER_KEY} or {TREATED_SERVER_KEY}"
                message = f"{message}: is {variables} its key?"
        except openai.APITimeoutError:
            message = f"did not answer within {self.timeout:g} s, {self.retries + 1} times"
        except openai.APIConnectionError as error:
            reason = _one_line(error.__cause__ or error, client.api_key)
            message = f"was not reached, {self.retries + 1} times: {reason}"
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, LookupError) as error:
            reason = _one_line(f"{type(error).__name__}: {error}", client.api_key)
            message = f"answered with no chat completion ({reason})"
        raise EndpointError(f"server {url} {message}")


def _checked_url(option: str, url: str) -> str:
    """The address of an API, without a slash at its end; without a path, /v1 is added.

    Raises:
        ArgumentError: another scheme, no host, or a password or key in it, which a report would show.
    """
    try:
        parts = urlsplit(url)
        complete = parts.hostname and parts.port != 0  # raises where the port is not a number
    except ValueError:
        parts, complete = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not complete:
        raise ArgumentError(f"{option}: expected an address such as http://127.0.0.1:8000/v1, found {url!r}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ArgumentError(f"{option}: give the address alone; a key belongs in {SERVER_KEY}")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


def _server_keys(url: str, treated_url: str | None) -> dict[str, str]:
    """The key for each address, from the environment. Each key is sent to its own server only.

    The treated server gets the other one's key only if it has the same scheme and host, whatever its port.
    """
    keys = {url: os.environ.get(SERVER_KEY) or NO_KEY}
    if treated_url and treated_url != url:
        hosts = {(parts.scheme, parts.hostname) for parts in map(urlsplit, (url, treated_url))}
        inherited = keys[url] if len(hosts) == 1 else NO_KEY
        keys[treated_url] = os.environ.get(TREATED_SERVER_KEY) or inherited
    return keys


def concurrently(call: Callable[[Ask], Output], asks: Sequence[Ask], limit: int) -> list[Output]:
    """The results of a call for each ask, in their order, with at most `limit` calls at a time.

    After the first error, which is raised, no further call starts. The threads are daemons, so that Ctrl-C does not
    wait for calls in progress, and no event loop is needed, so that a notebook's running one does not interfere.
    """
    futures = [Future[Output]() for _ in asks]
    waiting = list(zip(futures, asks, strict=True))
    queue = iter(waiting)  # shared by the threads; it ends when the list is cleared

    def work() -> None:
        for future, ask in queue:
            try:
                future.set_result(call(ask))
            except BaseException as error:  # raised again by `result`
                waiting.clear()
                future.set_exception(error)

    try:
        for _ in range(min(limit, len(asks))):
            Thread(target=work, daemon=True).start()
        for future in as_completed(futures):
            future.result()
        return [future.result() for future in futures]
    finally:
        waiting.clear()


def _one_line(text: object, key: str) -> str:
    """The beginning of a message, on one line and without the key, which some servers repeat."""
    line = " ".join(str(text).split())
    line = line if key == NO_KEY else line.replace(key, "…")
    return line if len(line) <= MESSAGE_CHARACTERS else f"{line[:MESSAGE_CHARACTERS]}…"
