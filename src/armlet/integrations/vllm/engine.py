"""The vLLM engine of an evaluation, with the same prompts as the local engine.

The engine has a setting for each treatment and each placebo in the gate; a request names its condition's, or none.
"""

# pyright: reportMissingImports=false

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from armlet.attachment.config import PLACEMENTS_KEY
from armlet.checkpoints.identity import fingerprint, model_folder
from armlet.checkpoints.pretrained import load_tokenizer
from armlet.evaluation.conditions.conditions import AnyTreatment, Condition, Treatment
from armlet.evaluation.conditions.placebos import IDENTITY
from armlet.evaluation.engines.engine import Ask, Output, Sampling, derived_seed
from armlet.evaluation.engines.tokens import Tokens, ended
from armlet.evaluation.tasks.problems import Task
from armlet.integrations.vllm import offline
from armlet.integrations.vllm.offline import EngineError, LayerCounts
from armlet.integrations.vllm.settings import PLACEBO_KEY, SETTING_KEY, SETTINGS_KEY, full_setting
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from vllm import RequestOutput
    from vllm.outputs import CompletionOutput

# Options of `vllm.LLM` that the evaluation sets.
FIXED = ("model", "additional_config", "dtype", "skip_tokenizer_init", "generation_config", "logprobs_mode", "hf_token")


class VllmEngine:
    """A model in vLLM, with a setting for each of these conditions; `seed` is the seed of random fillers.

    An eager engine (`enforce_eager`) also answers conditions with other treatments, which it installs.

    Raises:
        EngineError: vLLM is not installed, or cannot load the model.
        ArgumentError: options that the evaluation sets.
        ArmletError: the model is missing, or vLLM does not support a treatment.
    """

    def __init__(
        self,
        model: str,
        conditions: Iterable[Condition],
        *,
        dtype: str,
        options: Mapping[str, object],
        seed: int = 0,
    ) -> None:
        self.name, self.options, self.seed = model, dict(options), seed
        conflicts = [name for name in FIXED if name in self.options]
        if conflicts:
            raise ArgumentError(f"--engine-args: the evaluation sets {', '.join(conflicts)}; omit it here")
        self.folder = model_folder(model)
        self.tokens = Tokens(load_tokenizer(str(self.folder)), seed)
        self._ends = _end_tokens(str(self.folder))
        # Answers depend only on the run's settings, not on penalties, filters or temperatures of the checkpoint.
        run_options = {"dtype": dtype, "skip_tokenizer_init": True, "generation_config": "vllm"}
        self._settings = settings_of(conditions)
        entry = {SETTINGS_KEY: self._settings} if self._settings else False
        self._stack, folder = ExitStack(), str(self.folder)
        self._engine = self._stack.enter_context(offline.open_llm(folder, entry, **run_options, **self.options))
        self.tokens.known = self._engine.model_config.get_vocab_size()
        self._counts: dict[str, dict[str, LayerCounts]] = {}
        self._fired: dict[str, LayerCounts] = {}

    def close(self) -> None:
        """Ends vLLM's processes."""
        self._stack.close()

    def describe(self) -> dict[str, Any]:
        """Returns the model's name, hash and dtype, the device, vLLM's version and options, and the seed of fillers.

        Also the date, if the chat template has it.
        """
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
            **({"date": self.tokens.date} if self.tokens.date else {}),
        }

    def set_date(self, date: str) -> None:
        """Sets the date that the chat template sees, such as "2026-11-29"."""
        self.tokens.set_date(date)

    def length(self, ask: Ask) -> int:
        """Returns the number of tokens of the prompt without filler."""
        return self.tokens.length(ask)

    def shown_prompt(self, ask: Ask) -> str:
        """The text of the prompt's tokens, with special ones."""
        return self.tokens.shown_prompt(ask)

    def answer(
        self, asks: Sequence[Ask], condition: Condition, sampling: Sampling, *, batch: int, sample: int
    ) -> list[Output]:
        """Generates one answer per ask."""
        shared: dict[str, Any] = {"temperature": condition.temperature, "max_tokens": sampling.max_new_tokens}
        if condition.temperature:
            shared["top_p"] = sampling.top_p
        if condition.role == "best-of":
            shared["logprobs"] = 0
        prompts = [self.tokens.prompt(ask, condition).tolist() for ask in asks]
        self._check_length(asks, prompts, sampling.max_new_tokens)
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
        """Returns the counts of each layer in the last call."""
        return self._fired

    def _check_length(self, asks: Sequence[Ask], prompts: Sequence[list[int]], max_new_tokens: int) -> None:
        """Raises EngineError if an answer may not fit: vLLM would cut it short, and sooner after a filler."""
        limit = self._engine.model_config.max_model_len
        ask, longest = max(zip(asks, prompts, strict=True), key=lambda pair: len(pair[1]))
        if len(longest) + max_new_tokens > limit:
            raise EngineError(
                f"{ask.problem.label}: a prompt of {len(longest)} tokens and an answer of {max_new_tokens} do not "
                f"fit into max_model_len, {limit}: pass a smaller --max-new-tokens, or raise the limit in --engine-args"
            )

    def _generate(
        self, prompts: list[list[int]], condition: Condition, params: Sequence[dict[str, Any]]
    ) -> "list[RequestOutput]":
        from vllm import SamplingParams

        shared: dict[str, Any] = {"ignore_eos": True, "stop_token_ids": self._ends, "detokenize": False}
        name = self._setting_name(condition)
        shared["extra_args"] = self._extra_args(condition, name)
        sampling = [SamplingParams(**shared, **request) for request in params]
        outputs = offline.run_prompts(self._engine, [{"prompt_token_ids": ids} for ids in prompts], sampling)
        self._fired = self._new_counts(name) if name else {}
        return outputs

    def _setting_name(self, condition: Condition) -> str | None:
        """The name of a condition's setting, which is installed if the engine does not have it; None without ARM."""
        settings = settings_of([condition])
        if not settings.keys() <= self._settings.keys():
            offline.install(self._engine, {SETTINGS_KEY: settings})
            self._settings, self._counts = settings, {}
        return next(iter(settings), None)

    def _extra_args(self, condition: Condition, name: str | None) -> dict[str, object] | None:
        if name is None:
            return offline.UNTREATED if self._settings else None
        still = condition.placebo == IDENTITY or not _own_strength(condition.treatment)
        return {SETTING_KEY: f"{name}:0" if still else name}

    def _new_counts(self, name: str) -> dict[str, LayerCounts]:
        """The counts of a setting's layers since the last call."""
        before = self._counts.get(name, {})
        self._counts[name] = {
            layer: counts for rank in offline.reports(self._engine) for layer, counts in rank["settings"][name].items()
        }
        return {layer: _subtract(now, before.get(layer)) for layer, now in self._counts[name].items()}

    def _output(self, completion: "CompletionOutput") -> Output:
        answer, end = ended(list(completion.token_ids), self._ends)
        steps = completion.logprobs
        mean = sum(offline.token_logprobs(answer, steps)) / len(answer) if steps else None
        return Output(self.tokens.text(answer), len(answer), end, mean)


def settings_of(conditions: Iterable[Condition]) -> dict[str, dict[str, object]]:
    """The settings of an engine for these conditions, by names that depend on their content alone.

    A setting's name is in the salt of its cached prefixes, which another one's requests must not use. The identity
    placebo is a request for its treatment at strength 0.
    """
    settings = dict[str, dict[str, object]]()
    for condition in conditions:
        if given := _content(condition.treatment):
            content = full_setting(given)
            if condition.placebo not in (None, IDENTITY):
                content |= {PLACEBO_KEY: condition.placebo}
            settings["s" + hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]] = content
    return settings


def _content(treatment: AnyTreatment | None) -> Mapping[str, Any] | None:
    """The content of an armlet.json with a treatment, which may have several placements; None for a user's function."""
    if isinstance(treatment, Treatment):
        return treatment.content()
    placements = treatment.source.get(PLACEMENTS_KEY) if treatment else None
    return json.loads(placements) if placements else None


def _own_strength(treatment: AnyTreatment | None) -> float:
    """The strength of a treatment's policy; 1 for several placements."""
    return treatment.policy.strength if isinstance(treatment, Treatment) else 1.0


def check_conditions(conditions: Sequence[Condition], tasks: Sequence[Task]) -> None:
    """Raises ArgumentError if vLLM does not support a condition; the message names the conditions and the reason."""
    choices = any(task.kind == "choice" for task in tasks)
    unsupported = {
        "it cannot run a function in its model": [c for c in conditions if c.treatment and not _content(c.treatment)],
        "it only scores choices at temperature 1": [c for c in conditions if choices and c.weighing != 1],
    }
    for reason, group in unsupported.items():
        if group:
            raise ArgumentError(f"--engine vllm: {reason}: {', '.join(condition.name for condition in group)}")


def _end_tokens(folder: str) -> list[int]:
    """Returns the end-of-answer tokens, as transformers defines them for this model."""
    from transformers import AutoConfig, GenerationConfig

    try:
        config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:  # the model has no generation_config.json
        config = GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    ends = config.eos_token_id
    return [ends] if isinstance(ends, int) else list(ends or [])


def _likelihood(output: "RequestOutput", length: int) -> float:
    """Returns the summed log-probability of a prompt's last `length` tokens."""
    tokens, steps = output.prompt_token_ids or [], output.prompt_logprobs or []
    return float(sum(offline.token_logprobs(tokens[-length:], steps[-length:])))


def _subtract(now: LayerCounts, before: LayerCounts | None) -> LayerCounts:
    """Returns the counts since an earlier report."""
    if before is None:
        return now
    counts = {name: now[name] - before[name] for name in ("calls", "tokens", "moved", "passed")}
    moved_shares = now["share_moved"] * now["tokens"] - before["share_moved"] * before["tokens"]
    return counts | {"share_moved": moved_shares / counts["tokens"] if counts["tokens"] else 0.0}
