"""vLLM and Hugging Face on the same prompts."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import torch

HERE = Path(__file__).parent
ROOT = HERE.parent
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)


@contextmanager
def engine(folder, armlet=None, **options):
    """An eager float32 engine in this process, and nothing left of it."""
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    additional = {} if armlet is None else {"additional_config": {"armlet": armlet}}
    usual = {"dtype": "float32", "enforce_eager": True, "max_model_len": 256, "distributed_executor_backend": "uni"}
    llm = LLM(str(folder), **usual | {"skip_tokenizer_init": True, "disable_log_stats": False} | additional | options)
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()


def greedy(llm, prompts, tokens, extra_args=None, logprobs=None, **options):
    """Greedy answers to lists of token ids; `extra_args` is one of `extra_args`, or a list of them."""
    from vllm import SamplingParams

    per_prompt = extra_args if isinstance(extra_args, list) else [extra_args] * len(prompts)
    params = [
        SamplingParams(
            temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False, extra_args=args, logprobs=logprobs
        )
        for args in per_prompt
    ]
    return llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=False, **options)


def tokens_of(outputs):
    return [list(output.outputs[0].token_ids) for output in outputs]


def hugging_face(model, prompts, tokens):
    """The same with `generate`, prompts of one length at a time: without padding."""
    answers = {}
    for length in {len(ids) for ids in prompts}:
        at = [index for index, ids in enumerate(prompts) if len(ids) == length]
        inputs = torch.tensor([prompts[index] for index in at])
        generated = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            do_sample=False,
            max_new_tokens=tokens,
            eos_token_id=None,
            pad_token_id=0,
            repetition_penalty=1.0,
        )
        answers |= dict(zip(at, generated[:, length:].tolist(), strict=True))
    return [answers[index] for index in range(len(prompts))]


NEAR_TIE = 1e-3
"""Logits around 20 in float32 carry roundings of 1e-6 each; forty times as much after Inward or Transport (LOG.md)."""


def leads(model, prompts, answers):
    """By how much each token of greedy answers leads the runner-up, in logits, in one pass over prompt and answer."""
    margins = []
    for ids, answer in zip(prompts, answers, strict=True):
        with torch.inference_mode():
            first, second = model(torch.tensor([ids + answer[:-1]])).logits[0, len(ids) - 1 :].topk(2).values.T
        margins.append((first - second).tolist())
    return margins


def equal_up_to_ties(answers, wanted, margins):
    """How many answers are equal to the last token; the others part where Hugging Face itself is all but undecided.

    There its own cached decoding and its own whole pass may part as well: no engine can agree with both.
    """
    equal = 0
    for mine, theirs, margin in zip(answers, wanted, margins, strict=True):
        assert len(mine) == len(theirs)
        parts = next((at for at, pair in enumerate(zip(mine, theirs, strict=True)) if len(set(pair)) > 1), None)
        assert parts is None or margin[parts] < NEAR_TIE, f"token {parts}, decided by {margin[parts]} logits"
        equal += parts is None
    return equal


def elsewhere(request, **environment):
    """`generate.py` in a process of its own."""
    run = subprocess.run(
        [sys.executable, str(HERE / "generate.py"), json.dumps(request)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=900,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])
