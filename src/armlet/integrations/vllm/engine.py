"""The offline engine of an evaluation: the same prompts as the local one, through vLLM.

One engine is configured with one treatment; conditions without it turn ARM off by request. Placebos inside the gate are
policies that vLLM does not know.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from armlet.attachment.sites import GATE
from armlet.checkpoints.identity import fingerprint, model_folder
from armlet.checkpoints.pretrained import load_tokenizer
from armlet.evaluation.conditions.conditions import Condition, Treatment
from armlet.evaluation.engines.engine import Ask, Output, Sampling, derived_seed
from armlet.evaluation.engines.tokens import Tokens, ended
from armlet.evaluation.tasks.problems import Task
from armlet.integrations.vllm.offline import OFF, EngineError, close_engine, generate, open_engine, reports
from armlet.redistribution.errors import ArgumentError

# vLLM has an environment of its own, and no types to check against in this one.
# pyright: reportMissingImports=false

FIXED = ("model", "additional_config", "dtype", "skip_tokenizer_init", "generation_config", "logprobs_mode", "hf_token")
"""Of `vllm.LLM`: what the evaluation itself says."""

COUNTED = ("calls", "tokens", "moved", "passed")


class Offline:
    """A model in vLLM, with and without ARM.

    Args:
        model: `ABACUS`, a folder or a hub id.
        treatment: what treated conditions have attached; None where there are none.
        dtype: of the weights; "auto" keeps the checkpoint's.
        options: of `vllm.LLM`, such as tensor_parallel_size.
        seed: of random fillers and places.

    Raises:
        EngineError: there is no vLLM, or it cannot load the model.
        ArgumentError: options that the evaluation itself sets.
        ArmletError: no such model, or a treatment that vLLM cannot serve.
    """

    def __init__(
        self,
        model: str,
        treatment: Treatment | None,
        *,
        dtype: str = "auto",
        options: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.name, self.options, self.seed = model, dict(options or {}), seed
        fixed = [name for name in FIXED if name in self.options]
        if fixed:
            raise ArgumentError(
                f"--engine-args: {', '.join(fixed)}: that is what the evaluation itself says; leave it out"
            )
        self.folder = model_folder(model)
        self.tokens = Tokens(load_tokenizer(str(self.folder)), seed)
        self._ends = _ends(str(self.folder))
        # Nothing but what the run states decides an answer: no penalty, filter or temperature of the checkpoint's.
        usual = {"dtype": dtype, "skip_tokenizer_init": True, "generation_config": "vllm"}
        self._treatment = treatment
        settings = treatment.plain() if treatment else False
        self._engine = open_engine(str(self.folder), settings, **usual, **self.options)
        self._seen: dict[str, dict[str, Any]] = {}
        self._fired: dict[str, Any] = {}

    def close(self) -> None:
        """Ends vLLM's processes."""
        close_engine(self._engine)

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
        how: dict[str, Any] = {"temperature": condition.temperature, "max_tokens": sampling.max_new_tokens}
        if condition.temperature:
            how["top_p"] = sampling.top_p
        if condition.role == "best-of":
            how["logprobs"] = 0
        prompts = [self.tokens.prompt(ask, condition).tolist() for ask in asks]
        self._check_room(asks, prompts, sampling.max_new_tokens)
        seeds = [derived_seed(sampling.seed, batch, sample, ask.number, bits=31) for ask in asks]
        outputs = self._generate(prompts, condition, [how | {"seed": seed} for seed in seeds])
        return [self._output(each.outputs[0]) for each in outputs]

    def weigh(self, asks: Sequence[Ask], condition: Condition) -> list[list[float]]:
        """The summed log-likelihood of each choice behind the prompt."""
        prompts = [self.tokens.prompt(ask, condition).tolist() for ask in asks]
        choices = [self.tokens.choices(ask) for ask in asks]
        whole = [prompt + choice for prompt, own in zip(prompts, choices, strict=True) for choice in own]
        how = {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 0}
        weighed = iter(self._generate(whole, condition, [how] * len(whole)))
        return [[_likelihood(next(weighed), len(choice)) for choice in own] for own in choices]

    def fired(self) -> dict[str, Any]:
        """What ARM did in the last call, layer by layer."""
        return self._fired

    def _check_room(self, asks: Sequence[Ask], prompts: Sequence[list[int]], most: int) -> None:
        """vLLM would end an answer at its limit, and an answer behind a filler sooner than its baseline."""
        room = self._engine.model_config.max_model_len
        at = max(range(len(prompts)), key=lambda at: len(prompts[at]))
        if len(prompts[at]) + most > room:
            raise EngineError(
                f"item {asks[at].problem.id}: a prompt of {len(prompts[at])} tokens and an answer of {most} do not fit "
                f"into max_model_len, {room}: give a smaller --max-new-tokens, or more of that in --engine-args"
            )

    def _generate(self, prompts: list[list[int]], condition: Condition, how: Sequence[dict[str, Any]]) -> list[Any]:
        from vllm import SamplingParams

        extra = OFF if self._treatment and not condition.treatment else None
        params = [
            SamplingParams(extra_args=extra, ignore_eos=True, stop_token_ids=self._ends, detokenize=False, **each)
            for each in how
        ]
        found = generate(self._engine, [{"prompt_token_ids": ids} for ids in prompts], params)
        self._fired = self._since() if condition.treatment else {}
        return found

    def _since(self) -> dict[str, Any]:
        """What ARM did since it was last asked."""
        before, self._seen = self._seen, {k: v for rank in reports(self._engine) for k, v in rank["layers"].items()}
        return {layer: _less(now, before.get(layer)) for layer, now in self._seen.items()}

    def _output(self, made: Any) -> Output:
        answer, end = ended(list(made.token_ids), self._ends)
        mean = None
        if made.logprobs:
            mean = sum(step[token].logprob for step, token in zip(made.logprobs, answer, strict=True)) / len(answer)
        return Output(self.tokens.text(answer), len(answer), end, mean)


def check(conditions: Sequence[Condition], tasks: Sequence[Task]) -> Treatment | None:
    """The one treatment of these conditions; None where there is none.

    Raises:
        ArgumentError: names the conditions that cannot be run in vLLM, and says what to do.
    """
    treated = {repr(each.treatment): each.treatment for each in conditions if each.treatment}
    if len(treated) > 1:
        names = ", ".join(each.name for each in conditions if each.treatment and not each.placebo)
        raise ArgumentError(f"--engine vllm: one engine has one treatment, and {names} are several; give one policy")
    elsewhere = [each.name for each in conditions if each.treatment and each.treatment.site != GATE]
    if elsewhere:
        raise ArgumentError(f"--engine vllm: it has ARM at the site {GATE} alone: {', '.join(elsewhere)}")
    inside = [each.name for each in conditions if each.placebo]
    if inside:
        raise ArgumentError(f"--engine vllm: placebos inside the gate need the local engine: {', '.join(inside)}")
    warmer = [each.name for each in conditions if each.weighing != 1 and any(task.kind == "choice" for task in tasks)]
    if warmer:
        raise ArgumentError(f"--engine vllm: it weighs choices at temperature 1 alone: {', '.join(warmer)}")
    return next(iter(treated.values()), None)


def _ends(folder: str) -> list[int]:
    """The tokens that end an answer, as transformers has them for this model."""
    from transformers import AutoConfig, GenerationConfig

    try:
        own: Any = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:  # without a file of its own
        own = GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    ends = own.eos_token_id
    return [ends] if isinstance(ends, int) else list(ends or [])


def _likelihood(weighed: Any, length: int) -> float:
    """The summed log-probability of a prompt's last tokens."""
    tokens = weighed.prompt_token_ids[-length:]
    given = weighed.prompt_logprobs[-length:]
    return float(sum(step[token].logprob for step, token in zip(given, tokens, strict=True)))


def _less(now: dict[str, Any], before: dict[str, Any] | None) -> dict[str, Any]:
    """One report less an earlier one."""
    if before is None:
        return now
    found = {name: now[name] - before[name] for name in COUNTED}
    weighted = now["share_moved"] * now["tokens"] - before["share_moved"] * before["tokens"]
    return found | {"share_moved": weighted / found["tokens"] if found["tokens"] else 0.0}
