"""The engine of an evaluation that runs in vLLM, with the same prompts as the local one.

One engine is configured with one treatment; conditions without it turn ARM off by request. Placebos inside the gate are
policies that vLLM does not know.
"""

# pyright: reportMissingImports=false

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from armlet.attachment.sites import GATE
from armlet.checkpoints.identity import fingerprint, model_folder
from armlet.checkpoints.pretrained import load_tokenizer
from armlet.evaluation.conditions.conditions import Condition, Treatment
from armlet.evaluation.engines.engine import Ask, Output, Sampling, derived_seed
from armlet.evaluation.engines.tokens import Tokens, ended
from armlet.evaluation.tasks.problems import Task
from armlet.integrations.vllm.offline import OFF, EngineError, LayerCounts, opened, reports, run_prompts, token_logprobs
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from vllm import RequestOutput
    from vllm.outputs import CompletionOutput

# Options of `vllm.LLM` that the evaluation sets.
FIXED = ("model", "additional_config", "dtype", "skip_tokenizer_init", "generation_config", "logprobs_mode", "hf_token")


class Offline:
    """A model in vLLM, with and without the `treatment` of treated conditions; `seed` is that of random fillers.

    Raises:
        EngineError: vLLM is not installed, or cannot load the model.
        ArgumentError: options that the evaluation sets.
        ArmletError: no such model, or a treatment that vLLM cannot serve.
    """

    def __init__(
        self, model: str, treatment: Treatment | None, *, dtype: str, options: Mapping[str, object], seed: int = 0
    ) -> None:
        self.name, self.options, self.seed = model, dict(options), seed
        fixed = [name for name in FIXED if name in self.options]
        if fixed:
            raise ArgumentError(f"--engine-args: {', '.join(fixed)}: the evaluation sets that; leave it out")
        self.folder = model_folder(model)
        self.tokens = Tokens(load_tokenizer(str(self.folder)), seed)
        self._ends = _end_tokens(str(self.folder))
        # Answers depend on what the run states alone: no penalty, filter or temperature of the checkpoint's.
        stated = {"dtype": dtype, "skip_tokenizer_init": True, "generation_config": "vllm"}
        self._treatment, settings = treatment, treatment.plain() if treatment else False
        self._stack = ExitStack()
        self._engine = self._stack.enter_context(opened(str(self.folder), settings, **stated, **self.options))
        self._counts: dict[str, LayerCounts] = {}
        self._fired: dict[str, LayerCounts] = {}

    def close(self) -> None:
        """Ends vLLM's processes."""
        self._stack.close()

    def describe(self) -> dict[str, Any]:
        """Name, weights' hash, dtype, device, vLLM's version and options, and the seed of fillers."""
        import vllm
        from vllm.platforms import current_platform

        return {
            "model": self.name,
            "sha256": fingerprint(self.folder),
            "dtype": str(self._engine.model_config.dtype).removeprefix("torch."),
            "device": current_platform.device_type,
            "vllm": vllm.__version__,
            "options": self.options,
            "seed": self.seed,
        }

    def length(self, ask: Ask) -> int:
        """Tokens of the prompt without filler."""
        return self.tokens.length(ask)

    def answer(
        self, asks: Sequence[Ask], condition: Condition, sampling: Sampling, *, batch: int, sample: int
    ) -> list[Output]:
        """One answer to each ask."""
        shared: dict[str, Any] = {"temperature": condition.temperature, "max_tokens": sampling.max_new_tokens}
        if condition.temperature:
            shared["top_p"] = sampling.top_p
        if condition.role == "best-of":
            shared["logprobs"] = 0
        prompts = [self.tokens.prompt(ask, condition).tolist() for ask in asks]
        self._check_room(asks, prompts, sampling.max_new_tokens)
        seeds = [derived_seed(sampling.seed, batch, sample, ask.number, bits=31) for ask in asks]
        outputs = self._generate(prompts, condition, [shared | {"seed": seed} for seed in seeds])
        return [self._output(output.outputs[0]) for output in outputs]

    def score_choices(self, asks: Sequence[Ask], condition: Condition) -> list[list[float]]:
        """The summed log-likelihood of each choice after its prompt."""
        prompts = [self.tokens.prompt(ask, condition).tolist() for ask in asks]
        choices = [self.tokens.choices(ask) for ask in asks]
        texts = [prompt + choice for prompt, group in zip(prompts, choices, strict=True) for choice in group]
        params = {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 0}
        outputs = iter(self._generate(texts, condition, [params] * len(texts)))
        return [[_likelihood(next(outputs), len(choice)) for choice in group] for group in choices]

    def fired(self) -> dict[str, LayerCounts]:
        """What ARM did in the last call, layer by layer."""
        return self._fired

    def _check_room(self, asks: Sequence[Ask], prompts: Sequence[list[int]], most: int) -> None:
        """vLLM would end an answer at its limit, and one after a filler sooner than its baseline."""
        room = self._engine.model_config.max_model_len
        ask, longest = max(zip(asks, prompts, strict=True), key=lambda pair: len(pair[1]))
        if len(longest) + most > room:
            raise EngineError(
                f"item {ask.problem.id}: a prompt of {len(longest)} tokens and an answer of {most} do not fit into "
                f"max_model_len, {room}: give a smaller --max-new-tokens, or raise the limit in --engine-args"
            )

    def _generate(
        self, prompts: list[list[int]], condition: Condition, params: Sequence[dict[str, Any]]
    ) -> "list[RequestOutput]":
        from vllm import SamplingParams

        shared: dict[str, Any] = {"ignore_eos": True, "stop_token_ids": self._ends, "detokenize": False}
        shared["extra_args"] = OFF if self._treatment and not condition.treatment else None
        sampling = [SamplingParams(**shared, **request) for request in params]
        outputs = run_prompts(self._engine, [{"prompt_token_ids": ids} for ids in prompts], sampling)
        self._fired = {}
        if condition.treatment:
            before, ranks = self._counts, reports(self._engine)
            self._counts = {layer: counts for rank in ranks for layer, counts in rank["layers"].items()}
            self._fired = {layer: _subtract(now, before.get(layer)) for layer, now in self._counts.items()}
        return outputs

    def _output(self, completion: "CompletionOutput") -> Output:
        answer, end = ended(list(completion.token_ids), self._ends)
        steps = completion.logprobs
        mean = sum(token_logprobs(answer, steps)) / len(answer) if steps else None
        return Output(self.tokens.text(answer), len(answer), end, mean)


def single_treatment(conditions: Sequence[Condition], tasks: Sequence[Task]) -> Treatment | None:
    """The one treatment of these conditions; None where there is none.

    Raises:
        ArgumentError: names the conditions that cannot be run in vLLM, and says what to do.
    """
    treatments = {repr(c.treatment): c.treatment for c in conditions if c.treatment}
    several, choices = len(treatments) > 1, any(task.kind == "choice" for task in tasks)
    refusals = {
        "one engine has one treatment, so give one policy; there are several": [
            c for c in conditions if several and c.treatment and not c.placebo
        ],
        f"it has ARM at the site {GATE} alone": [c for c in conditions if c.treatment and c.treatment.site != GATE],
        "placebos inside the gate need the local engine": [c for c in conditions if c.placebo],
        "it weighs choices at temperature 1 alone": [c for c in conditions if choices and c.weighing != 1],
    }
    for reason, refused in refusals.items():
        if refused:
            raise ArgumentError(f"--engine vllm: {reason}: {', '.join(condition.name for condition in refused)}")
    return next(iter(treatments.values()), None)


def _end_tokens(folder: str) -> list[int]:
    """The tokens that end an answer, as transformers has them for this model."""
    from transformers import AutoConfig, GenerationConfig

    try:
        config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:  # the model has no generation_config.json
        config = GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    ends = config.eos_token_id
    return [ends] if isinstance(ends, int) else list(ends or [])


def _likelihood(output: "RequestOutput", length: int) -> float:
    """The summed log-probability of a prompt's last tokens."""
    tokens, steps = output.prompt_token_ids or [], output.prompt_logprobs or []
    return float(sum(token_logprobs(tokens[-length:], steps[-length:])))


def _subtract(now: LayerCounts, before: LayerCounts | None) -> LayerCounts:
    """The counts since an earlier report."""
    if before is None:
        return now
    counts = {name: now[name] - before[name] for name in ("calls", "tokens", "moved", "passed")}
    moved_shares = now["share_moved"] * now["tokens"] - before["share_moved"] * before["tokens"]
    return counts | {"share_moved": moved_shares / counts["tokens"] if counts["tokens"] else 0.0}
