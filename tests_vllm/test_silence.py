"""Where ARM would have acted on the wrong tokens, or on none, without a word."""

import pytest
import torch
from torch.nn.functional import normalize, silu
from vllm.exceptions import VLLMValidationError

from armlet import Outward, attach
from armlet.redistribution.errors import ArmletError
from engines import engine, greedy, hugging_face, tokens_of
from families import prompt

PROMPTS = [prompt(length, seed=length)[0].tolist() for length in (5, 20, 33, 40)]
ARMLET = {"policy": "outward"}
STRENGTHS = [1.0, 0.0, 0.5, 1.0]
ASKED = [None, {"armlet": "off"}, {"armlet": 0.5}, {"armlet": 1}]
CHUNKS = {"max_num_batched_tokens": 16, "max_num_seqs": 4, "enable_prefix_caching": True, "block_size": 32}


@pytest.fixture(scope="module")
def llama(tiny_model):
    return tiny_model("llama", num_hidden_layers=4)


def test_an_mlp_that_does_not_call_its_activation_is_an_error_and_no_silence(llama, monkeypatch):
    from vllm.model_executor.models.llama import LlamaMLP

    def fused(mlp, x):
        gate, up = mlp.gate_up_proj(x)[0].chunk(2, -1)
        return mlp.down_proj(silu(gate) * up)[0]

    monkeypatch.setattr(LlamaMLP, "forward", fused)
    with engine(llama[0], ARMLET | {"layers": [0, 2]}) as llm:
        assert len(greedy(llm, PROMPTS, 2, {"armlet": "off"})) == 4
        with pytest.raises(ArmletError, match=r"layers \[0, 2\]: ARM is installed but received no tokens"):
            greedy(llm, PROMPTS, 2)


def test_a_loader_that_armlet_does_not_know_is_an_error_and_no_silence(llama, monkeypatch):
    from vllm.model_executor import model_loader
    from vllm.model_executor.model_loader import DummyModelLoader

    class Own(DummyModelLoader):
        def load_model(self, vllm_config, model_config, prefix=""):
            from vllm.utils.torch_utils import set_default_torch_dtype

            with set_default_torch_dtype(model_config.dtype):
                return self.create_model(vllm_config, model_config, prefix).eval()

    monkeypatch.setitem(model_loader._LOAD_FORMAT_TO_MODEL_LOADER, "dummy", Own)
    with engine(llama[0], load_format="dummy"):
        pass
    with pytest.raises(ArmletError, match="ARM is not in the model"), engine(llama[0], ARMLET, load_format="dummy"):
        pass


def test_a_dummy_batch_beside_requests_is_not_counted(llama):
    with engine(llama[0], ARMLET) as llm:
        greedy(llm, PROMPTS, 4)
        before = llm.collective_rpc("armlet_report")
        llm.collective_rpc("execute_dummy_batch")
        assert llm.collective_rpc("armlet_report") == before
        assert before[0]["layers"]["0"]["tokens"] == sum(len(ids) + 3 for ids in PROMPTS)


def test_reloaded_weights_keep_arm(llama, tiny_model):
    folder, model = tiny_model("llama", num_hidden_layers=4, seed=5)
    with engine(llama[0], ARMLET) as llm:
        greedy(llm, PROMPTS, 4)
        llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        llm.reset_prefix_cache()
        with attach(model, Outward()):
            assert tokens_of(greedy(llm, PROMPTS, 24)) == hugging_face(model, PROMPTS, 24)
        assert tokens_of(greedy(llm, PROMPTS, 24, {"armlet": "off"})) == hugging_face(model, PROMPTS, 24)


def test_log_probabilities_of_prompts_are_those_of_hugging_face_whatever_is_cached(llama):
    folder, model = llama

    def of(ids):
        with torch.no_grad():
            return model(torch.tensor([ids])).logits[0].log_softmax(-1)[:-1].gather(1, torch.tensor(ids)[1:, None])

    from vllm import SamplingParams

    with attach(model, Outward()):
        treated = [of(ids)[:, 0] for ids in PROMPTS]
    with engine(folder, ARMLET, **CHUNKS) as llm:
        for asked, right in (({"armlet": "off"}, [of(ids)[:, 0] for ids in PROMPTS]), (None, treated)):
            greedy(llm, PROMPTS, 4, asked)  # in the cache, under the strength's own salt
            params = SamplingParams(
                temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False, extra_args=asked, ignore_eos=True
            )
            outputs = llm.generate([{"prompt_token_ids": ids} for ids in PROMPTS], params, use_tqdm=False)
            for ids, output, wanted_of in zip(PROMPTS, outputs, right, strict=True):
                steps = zip(output.prompt_logprobs[1:], ids[1:], strict=True)
                logprobs = torch.tensor([step[token].logprob for step, token in steps])
                # float32 in other orders of summing; ARM moves them by 1 and more.
                assert (logprobs - wanted_of).abs().max() < 1e-4


def test_an_embedding_is_that_of_the_strength_that_its_request_asks_for():
    from vllm import PoolingParams

    from armlet.checkpoints.folder import abacus
    from armlet.checkpoints.pretrained import load

    model, tokenizer = load(str(abacus()), dtype="float32")
    prompts = [tokenizer(text)["input_ids"] for text in ("3+4*5", "17-8", "(2+3)*4-1", "3+4*5")]

    def embedding(ids, strength):
        with torch.no_grad(), attach(model, Outward(strength=strength)):
            return normalize(model.model(torch.tensor([ids])).last_hidden_state[0, -1], dim=-1)

    right = [embedding(ids, strength) for ids, strength in zip(prompts, STRENGTHS, strict=True)]
    assert (right[0] - embedding(prompts[0], 0.0)).abs().max() > 1e-3
    pooling = {"runner": "pooling", "convert": "embed", "skip_tokenizer_init": False}
    with engine(abacus(), ARMLET, **pooling) as llm:
        params = [PoolingParams(extra_kwargs=asked) for asked in ASKED]
        outputs = llm.embed([{"prompt_token_ids": ids} for ids in prompts], pooling_params=params, use_tqdm=False)
        with pytest.raises(VLLMValidationError, match="must be 'on', 'off' or a strength"):
            llm.embed(["1"], pooling_params=PoolingParams(extra_kwargs={"armlet": "banana"}), use_tqdm=False)
    for output, wanted_of in zip(outputs, right, strict=True):
        # float32 in other orders of summing; ARM moves them a thousand times as far.
        assert (torch.tensor(output.outputs.embedding) - wanted_of).abs().max() < 5e-6


def test_beam_search_over_http_refuses_a_strength_that_vllm_would_drop(llama):
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest

    with engine(llama[0], ARMLET):
        pass
    asked = {"model": "m", "prompt": "1", "use_beam_search": True, "n": 2}
    assert CompletionRequest(**asked).to_beam_search_params(4).beam_width == 2
    with pytest.raises(VLLMValidationError, match="beams run as the engine is configured"):
        CompletionRequest(**asked, vllm_xargs={"armlet": "off"}).to_beam_search_params(4)
