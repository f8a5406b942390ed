"""The remote engine: chat completions of an OpenAI-compatible server, and of a second server with ARM attached."""

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from threading import Thread
from urllib.parse import urlsplit

from armlet.attachment.sites import ALL_EXPERTS
from armlet.checkpoints.network import connecting, proxies, read_key, without_passwords
from armlet.evaluation.conditions.conditions import Condition, Treatment
from armlet.evaluation.conditions.placebos import GATE_PLACEBOS
from armlet.evaluation.engines.chat import SWITCH_KEY, SWITCH_REFUSAL, ChatRequest, messages, switch
from armlet.evaluation.engines.completion import describe_body, describe_error, read_completion
from armlet.evaluation.engines.engine import Ask, Engine, Output, Sampling, derived_seed
from armlet.evaluation.tasks.problems import Task
from armlet.presentation.arguments import number_in, whole_number
from armlet.redistribution.errors import ArgumentError, ArmletError

SERVER_KEY, TREATED_SERVER_KEY = "OPENAI_API_KEY", "OPENAI_TREATED_API_KEY"  # environment variables
NO_KEY = "none"  # sent in place of a key: many servers need none, but the client does
CONNECT_SECONDS = 10.0  # time limit for a connection; an answer may take far longer
MESSAGE_CHARACTERS = 300  # a server's message is shown up to this length


class EndpointError(ArmletError, RuntimeError):
    """A server did not answer, or answered incorrectly; earlier answers are in the run folder.

    Check the address and the server's log, lower `--concurrency` if it is overloaded, and repeat the command, which
    resumes.
    """


@dataclass
class Endpoint(Engine):
    """An OpenAI-compatible server, and optionally a second one with ARM attached. `fired` is always empty.

    A server exposes neither its tokenizer nor its activations. A filler's length therefore counts repetitions of its
    text (or words, for random sentences), not tokens, and placebos at the gate cannot be run. Because a server chooses
    its own batches, the same request may return different answers, even with a seed. A chat template that writes the
    date gets the server's.

    The `openai` package retries failed connections and the status codes 408, 409, 429 and 5xx. It waits as long as
    Retry-After says (up to two minutes), or else half a second, doubled each time up to eight, minus up to a quarter.

    Raises ArgumentError if an address is invalid, a number is out of range, or the `openai` package is not installed.
    """

    endpoint: str  # address of the API, such as http://127.0.0.1:8000/v1; without a path, /v1 is added
    model: str  # the model's name on the server
    treated_endpoint: str | None = None  # address of the server with ARM; for vLLM it may be the same one
    concurrency: int = 16  # maximum number of simultaneous requests
    timeout: float = 600.0  # seconds to wait for an answer
    retries: int = 8  # tries of one request after the first
    seed: int = 0  # seed of random fillers and positions

    def __post_init__(self) -> None:
        whole_number("concurrency", self.concurrency, 1)
        whole_number("retries", self.retries, 0)
        number_in("timeout", self.timeout, 0.001)
        try:
            import openai
        except ImportError as error:
            raise ArgumentError("servers need an extra package: pip install 'armlet[endpoint]'") from error
        self.endpoint = _checked_url("endpoint", self.endpoint)
        self.treated_endpoint = self.treated_endpoint and _checked_url("treated_endpoint", self.treated_endpoint)
        self.switched = self.treated_endpoint == self.endpoint
        timeout = openai.Timeout(self.timeout, connect=min(CONNECT_SECONDS, self.timeout))
        self._keys = _server_keys(self.endpoint, self.treated_endpoint)
        with connecting(f"server {self.endpoint}"):
            self._clients = {
                url: openai.OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=self.retries)
                for url, key in self._keys.items()
            }

    def close(self) -> None:
        """Closes the connections."""
        for client in self._clients.values():
            client.close()

    def describe(self) -> dict[str, object]:
        """The servers and the model, never a key."""
        servers = {"endpoint": self.endpoint, "treated_endpoint": self.treated_endpoint}
        return {**servers, "model": self.model, "seed": self.seed}

    def check(self, conditions: Sequence[Condition], tasks: Sequence[Task] = ()) -> None:
        """Raises an ArgumentError, before the first request, for conditions and tasks that a server cannot run."""
        treated = [condition for condition in conditions if condition.treatment and not condition.placebo]
        policies = {repr(condition.treatment) for condition in treated}
        places = [(c, c.treatment) for c in treated if isinstance(c.treatment, Treatment)]
        functions = [condition for condition in treated if not isinstance(condition.treatment, Treatment)]
        of_experts = [condition for condition, place in places if place.experts != ALL_EXPERTS]
        placebos = [condition for condition in conditions if condition.placebo in GATE_PLACEBOS]
        refusals = {
            "endpoint: a server cannot run a function in its model: {} needs a local model": functions,
            "treated_endpoint: a server without ARM cannot run {}; name the same server with ARM attached, "
            "or leave the policy out": [] if self.treated_endpoint else treated,
            "treated_endpoint: a server supports a single treatment, and {} need "
            f"{len(policies)}; name one policy": treated if len(policies) > 1 else [],
            "endpoint: servers do not support ARM on the experts of a mixture; {} needs a local model": of_experts,
            "endpoint: placebos at the gate cannot be run on a server: {}; leave them out": placebos,
            "endpoint: multiple choice needs a local model, but {} has it": [t for t in tasks if t.kind == "choice"],
        }
        for message, refused in refusals.items():
            if refused:
                raise ArgumentError(message.format(", ".join(item.name for item in refused)))

    def length(self, ask: Ask) -> int:
        """The number of characters of the system prompt and the question."""
        return len(ask.system) + len(ask.problem.question)

    def answer(
        self, asks: Sequence[Ask], condition: Condition, sampling: Sampling, *, batch: int, sample: int
    ) -> list[Output]:
        """Returns one answer to each ask, in order, with at most `concurrency` simultaneous requests.

        Raises:
            EndpointError: a server refused a request, or the last try failed.
            ArgumentError: a server cannot run the condition.
        """
        self.check([condition])
        url = (self.treated_endpoint or self.endpoint) if condition.treatment else self.endpoint
        shared: ChatRequest = {"model": self.model, "top_p": sampling.top_p, "max_tokens": sampling.max_new_tokens}
        shared["temperature"] = condition.temperature
        if condition.role == "best-of":
            shared["logprobs"] = True
        if self.switched:
            shared["extra_body"] = switch("on" if condition.treatment else "off")

        def answer_one(ask: Ask) -> Output:
            seed = derived_seed(sampling.seed, batch, sample, ask.number, bits=31)  # every server accepts 31 bits
            return self._answer(url, {**shared, "messages": messages(ask, condition.filling, self.seed), "seed": seed})

        return concurrently(answer_one, asks, self.concurrency)

    def score_choices(self, asks: Sequence[Ask], condition: Condition) -> list[list[float]]:
        """Always raises an ArgumentError: a server cannot score choices."""
        raise ArgumentError("endpoint: multiple choice needs a local model: leave the endpoint out")

    def check_switch(self) -> None:
        """Checks that the server supports ARM's switch: such a server refuses an invalid value for it.

        Raises EndpointError if the server does not support the switch, or cannot be reached.
        """
        question: ChatRequest = {"model": self.model, "messages": [{"role": "user", "content": "1"}], "max_tokens": 1}
        try:
            self._answer(self.endpoint, {**question, "extra_body": switch("neither")})
        except EndpointError as error:
            if SWITCH_REFUSAL in str(error):
                return
            raise
        raise EndpointError(
            f"server {self.endpoint} cannot switch ARM: start vLLM with armlet installed and --additional-config "
            f'\'{{"{SWITCH_KEY}": {{"policy": "outward"}}}}\', or name another server as the treated one'
        )

    def _answer(self, url: str, request: ChatRequest) -> Output:
        import openai

        tries = f"{self.retries + 1} times"
        try:
            return read_completion(self._clients[url].chat.completions.create(**request))
        except openai.APIStatusError as error:
            message = f"answered {error.status_code}: {describe_error(error.body or error.message)}"
            wait = error.response.headers.get("retry-after")
            if error.status_code == 429 and wait:
                message = f"{message} (it asks to wait {wait}, and was tried {tries}; the same command resumes)"
            if error.status_code in (401, 403):
                variables = SERVER_KEY if url == self.endpoint else f"{SERVER_KEY} or {TREATED_SERVER_KEY}"
                message = f"{message}: check its key in {variables}"
        except openai.APITimeoutError:
            message = f"did not answer within {self.timeout:g} s, {tries}"
        except openai.APIConnectionError as error:
            through = "".join(f"; {proxy} is set" for proxy in proxies())
            message = f"could not be reached, {tries}: {error.__cause__ or error}{through}"
        except json.JSONDecodeError as error:
            message = f"did not answer with a chat completion ({describe_body(error.doc)})"
        except ValueError as error:
            message = f"did not answer with a chat completion ({error})"
        except Exception as error:  # the client raises anything for a response that it does not expect
            message = f"did not answer with a chat completion ({type(error).__name__}: {error})"
        message = self._one_line(message)  # no frame keeps the original, nor the client's error, which may have a key
        raise EndpointError(f"server {url} {message}")

    def _one_line(self, text: str) -> str:
        """The beginning of a message on one line, without a key, which some servers repeat, or a password."""
        line = " ".join(without_passwords(text).split())
        for key in sorted({*self._keys.values()} - {NO_KEY}, key=len, reverse=True):  # one may contain another
            line = line.replace(key, "…")
        return line if len(line) <= MESSAGE_CHARACTERS else f"{line[:MESSAGE_CHARACTERS]}…"


def _checked_url(argument: str, url: str) -> str:
    """The address of an API without a trailing slash; /v1 is added if it has no path.

    Raises ArgumentError if the scheme is not HTTP, or there is no host, or a password or key that a report would show.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        complete = parts.hostname and parts.port != 0  # raises if the port is not a number
    except ValueError:
        parts, complete = urlsplit(""), None
    if re.search(r"[@?#]", url):  # the message does not repeat it
        raise ArgumentError(f"{argument}: expected only an address; a key belongs in {SERVER_KEY}")
    if parts.scheme not in ("http", "https") or not complete or re.search(r"\s", url):
        raise ArgumentError(f"{argument}: expected an address such as http://127.0.0.1:8000/v1, found {url!r}")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


def _server_keys(url: str, treated_url: str | None) -> dict[str, str]:
    """The key for each address, from the environment. Each key is sent only to its own server.

    The treated server may inherit the first server's key, but only if scheme and host are the same.
    """
    keys = {url: read_key(SERVER_KEY) or NO_KEY}
    if treated_url and treated_url != url:
        hosts = {(parts.scheme, parts.hostname) for parts in map(urlsplit, (url, treated_url))}
        fallback = keys[url] if len(hosts) == 1 else NO_KEY
        keys[treated_url] = read_key(TREATED_SERVER_KEY) or fallback
    return keys


def concurrently(call: Callable[[Ask], Output], asks: Sequence[Ask], limit: int) -> list[Output]:
    """Returns the results of a call for each ask, in order, with at most `limit` simultaneous calls.

    The first error is raised, and no further call starts. The threads are daemons, so that Ctrl-C does not wait for
    calls in progress. There is no event loop, because a notebook already runs one.
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
