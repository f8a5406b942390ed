"""At most two threads, tiny models of every family on disk, and SmolLM2."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from run_folder import use_run_folder  # noqa: E402 - it is in that folder

use_run_folder()
torch.set_num_threads(min(2, torch.get_num_threads()))
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in tests/conftest.py

LARGER = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "max_position_embeddings": 256}
"""What vLLM's attention on the CPU can run: heads of 32."""

MIXTURE = {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "num_experts": 4}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """`tiny_model(family, …)` gives (folder, model) of a tiny model, saved once."""
    import transformers

    from families import FAMILIES, tiny

    FAMILIES["qwen2_moe"] = (transformers.Qwen2MoeConfig, MIXTURE)
    known = {}

    def make(family, **changes):
        key = (family, *sorted(changes.items(), key=str))
        if repr(key) not in known:
            folder = tmp_path_factory.mktemp(family)
            model = tiny(family, **LARGER | changes)
            model.save_pretrained(folder)
            known[repr(key)] = (folder, model)
        return known[repr(key)]

    return make


@pytest.fixture(scope="session")
def smollm2_folder():
    """SmolLM2-135M-Instruct, brought by `make models`; `make test-vllm` brings it, so there nothing is skipped."""
    folder = ROOT / "models" / "smollm2-135m-instruct"
    if not (folder / "config.json").is_file():
        if os.environ.get("ARMLET_REQUIRE_MODEL"):
            pytest.fail("models/smollm2-135m-instruct is missing: run `make models`")
        pytest.skip("models/smollm2-135m-instruct is missing: `make models` brings it")
    return folder
