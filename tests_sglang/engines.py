"""SGLang's engine on a CPU, in float32 and without its kernels, and greedy answers."""

import json
import os
from contextlib import contextmanager

os.environ.setdefault("SGLANG_CPU_OMP_THREADS_BIND", "0|1")  # or SGLang wants a NUMA node for each rank

USUAL = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "sampling_backend": "pytorch",
    "dtype": "float32",
    "mem_fraction_static": 0.1,
    "max_total_tokens": 8192,
    "log_level": "error",
    "skip_server_warmup": True,
    "skip_tokenizer_init": True,
}


@contextmanager
def engine(folder, armlet=None, **options):
    """An engine in processes of its own, and nothing left of it."""
    from sglang.srt.entrypoints.engine import Engine

    overrides = {} if armlet is None else {"json_model_override_args": json.dumps({"armlet": armlet})}
    sgl = Engine(model_path=str(folder), **USUAL | overrides | options)
    try:
        yield sgl
    finally:
        sgl.shutdown()


def greedy(sgl, prompts, tokens, asked=None):
    """Greedy answers to lists of token ids; `asked` is what all or each of them ask of ARM, None for nothing."""
    per_prompt = asked if isinstance(asked, list) else [asked] * len(prompts)
    usual = {"temperature": 0, "max_new_tokens": tokens, "ignore_eos": True}
    params = [usual | ({} if value is None else {"custom_params": {"armlet": value}}) for value in per_prompt]
    return sgl.generate(input_ids=prompts, sampling_params=params)


def tokens_of(outputs):
    return [output["output_ids"] for output in outputs]


def cached(outputs):
    """How many tokens of each prompt came from the prefix cache."""
    return [output["meta_info"]["cached_tokens"] for output in outputs]


def counts(sgl):
    """The counts of each setting and layer."""
    return sgl.get_server_info()["internal_states"][0]["armlet"]
