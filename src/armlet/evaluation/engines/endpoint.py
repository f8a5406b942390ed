"""The remote engine: chat completions of an OpenAI-compatible server, and of a second one with ARM attached."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from armlet.attachment.sites import GATE
from armlet.evaluation.conditions.conditions import Condition
from armlet.evaluation.engines.address import NO_KEY, SERVER_KEY, TREATED_SERVER_KEY, checked_url, server_keys
from armlet.evaluation.engines.chat import SWITCH_KEY, SWITCH_REFUSAL, ChatRequest, messages, read_completion, switch
from armlet.evaluation.engines.concurrency import concurrently
from armlet.evaluation.engines.engine import Ask, Output, Sampling, derived_seed
from armlet.evaluation.tasks.problems import Task
from armlet.redistribution.errors import ArgumentError, ArmletError

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI
    from openai.types.chat import ChatCompletionMessageParam

CONNECT_SECONDS = 10.0  # to wait for a connection; an answer may take far longer
MESSAGE_CHARACTERS = 300  # shown of a server's message


class EndpointError(ArmletError, RuntimeError):
    """A server does not answer, or not as it should; earlier answers are in the run folder."""


class Endpoint:
    """An OpenAI-compatible server, and optionally a second one with ARM attached.

    A server reveals neither its tokenizer nor its activations: a filler's length counts repetitions of its text (of
    random sentences, words), not tokens, and placebos inside the gate cannot be run. The same request need not give the
    same answer, even with a seed, because a server forms its batches as it likes.

    The `openai` package retries failed connections and the status codes 408, 409, 429 and 5xx: after half a second,
    doubled each time up to eight, less a random quarter, or after what Retry-After says, up to two minutes.

    Each key is sent to its own server only. The treated server gets the same key if it has the same scheme and host,
    whatever its port; on another host it gets `treated_api_key` or none.

    Args:
        url: of the API, such as http://127.0.0.1:8000/v1; without a path, /v1 is added.
        model: as the server names it.
        treated_url: of the server that has ARM attached; None for none. The same address as `url` means vLLM with
            armlet, where each request turns ARM on or off.
        concurrency: most requests at a time.
        timeout: seconds to wait for an answer.
        retries: of one request after the first try.
        api_key: None for OPENAI_API_KEY of the environment, or else none.
        treated_api_key: None for OPENAI_TREATED_API_KEY of the environment, or else as above.
        seed: of random fillers and positions.

    Raises:
        ArgumentError: an invalid url, a number out of range, or the `openai` package is not installed.
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
            values = f"concurrency {concurrency}, retries {retries}, timeout {timeout}"
            raise ArgumentError(f"endpoint: expected concurrency from 1, retries from 0 and a timeout, found {values}")
        self.url, self.model, self.seed = checked_url("--endpoint", url), model, seed
        self.treated_url = treated_url and checked_url("--treated-endpoint", treated_url)
        self.switched = self.treated_url == self.url
        self.concurrency, self.retries, self.timeout = concurrency, retries, timeout
        keys = server_keys(self.url, self.treated_url, api_key, treated_api_key)
        self._clients = {address: self._client(address, key) for address, key in keys.items()}

    def __enter__(self) -> "Endpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()

    def describe(self) -> dict[str, object]:
        """The servers and the model; never a key."""
        return {"endpoint": self.url, "treated_endpoint": self.treated_url, "model": self.model, "seed": self.seed}

    def check(self, conditions: Sequence[Condition], tasks: Sequence[Task] = ()) -> None:
        """Refuse, before anything is asked, what cannot be run on a server.

        Raises:
            ArgumentError: names the conditions or tasks, and what to do.
        """
        treated = [condition for condition in conditions if condition.treatment and not condition.placebo]
        if treated and not self.treated_url:
            raise ArgumentError(
                f"--endpoint: a server without ARM cannot run {_names(treated)}; name one that has it attached with "
                "--treated-endpoint URL, or leave the policy out"
            )
        policies = {repr(condition.treatment) for condition in treated}
        if len(policies) > 1:
            raise ArgumentError(
                f"--treated-endpoint: one server has one treatment attached, and {_names(treated)} need "
                f"{len(policies)}; give one policy"
            )
        if other := [condition for condition in treated if condition.treatment and condition.treatment.site != GATE]:
            raise ArgumentError(f"--endpoint: servers have ARM at the site {GATE} alone; {_names(other)} is at another")
        if placebos := [condition for condition in conditions if condition.placebo]:
            raise ArgumentError(
                f"--endpoint: placebos inside the gate cannot be run on a server: {_names(placebos)}; "
                "leave them out with --no-placebos"
            )
        if weighed := [task.name for task in tasks if task.kind == "choice"]:
            raise ArgumentError(f"--endpoint: multiple choice needs a local model, and {', '.join(weighed)} is that")

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

        def answer_one(ask: Ask) -> Output:
            return self._answer(url, self.request(ask, condition, sampling, batch=batch, sample=sample))

        return concurrently(answer_one, asks, self.concurrency)

    def weigh(self, asks: Sequence[Ask], condition: Condition) -> list[list[float]]:
        """Not on a server: always an ArgumentError."""
        raise ArgumentError("--endpoint: multiple choice needs a local model: leave --endpoint out")

    def fired(self) -> dict[str, object]:
        """Empty: a server does not report what ARM did."""
        return {}

    def request(self, ask: Ask, condition: Condition, sampling: Sampling, *, batch: int, sample: int) -> ChatRequest:
        """The request for one answer; if one server runs all conditions, it turns ARM on or off."""
        request = ChatRequest(
            model=self.model,
            messages=messages(ask, condition.filling, self.seed),
            temperature=condition.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            seed=derived_seed(sampling.seed, batch, sample, ask.number, bits=31),  # which every server accepts
        )
        if condition.role == "best-of":
            request["logprobs"] = True
        if self.switched:
            request["extra_body"] = switch("on" if condition.treatment else "off")
        return request

    def check_switch(self) -> None:
        """Send the server an invalid value for ARM's switch: one that has the switch refuses it.

        Raises:
            EndpointError: it has no such switch, or it cannot be reached.
        """
        question: ChatCompletionMessageParam = {"role": "user", "content": "1"}
        probe = ChatRequest(model=self.model, messages=[question], max_tokens=1, extra_body=switch("neither"))
        try:
            self._answer(self.url, probe)
        except EndpointError as error:
            if SWITCH_REFUSAL in str(error):
                return
            raise
        raise EndpointError(
            f"server {self.url} does not know ARM's switch: start vLLM with armlet installed and --additional-config "
            f'\'{{"{SWITCH_KEY}": {{"policy": "outward"}}}}\', or name another server as --treated-endpoint'
        )

    def _client(self, url: str, key: str) -> "OpenAI":
        try:
            import openai
        except ImportError as error:
            raise ArgumentError("a server needs another package: pip install 'armlet[endpoint]'") from error
        timeout = openai.Timeout(self.timeout, connect=min(CONNECT_SECONDS, self.timeout))
        return openai.OpenAI(base_url=url, api_key=key, timeout=timeout, max_retries=self.retries)

    def _answer(self, url: str, request: ChatRequest) -> Output:
        import openai

        client = self._clients[url]
        try:
            return read_completion(client.chat.completions.create(**request))
        except openai.APIStatusError as error:
            message = f"answered {error.status_code}: {_one_line(_server_message(error), client.api_key)}"
            if error.status_code in (401, 403):
                variables = SERVER_KEY if url == self.url else f"{SERVER_KEY} or {TREATED_SERVER_KEY}"
                message = f"{message}: is {variables} its key?"
        except openai.APITimeoutError:
            message = f"did not answer within {self.timeout:g} s, {self.retries + 1} times"
        except openai.APIConnectionError as error:
            reason = _one_line(str(error.__cause__ or error), client.api_key)
            message = f"was not reached, {self.retries + 1} times: {reason}"
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, LookupError) as error:
            reason = _one_line(f"{type(error).__name__}: {error}", client.api_key)
            message = f"answered with no chat completion ({reason})"
        raise EndpointError(f"server {url} {message}")


def _names(conditions: Sequence[Condition]) -> str:
    return ", ".join(condition.name for condition in conditions)


def _server_message(error: "APIStatusError") -> str:
    """The server's own message, or else the client's."""
    message = error.body.get("message") if isinstance(error.body, Mapping) else error.body
    return str(message or error.message)


def _one_line(text: str, key: str) -> str:
    """The beginning of a message, on one line and without the key, which some servers repeat."""
    line = " ".join(text.split())
    line = line if key == NO_KEY else line.replace(key, "…")
    return line if len(line) <= MESSAGE_CHARACTERS else f"{line[:MESSAGE_CHARACTERS]}…"
