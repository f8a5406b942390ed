"""Positions and padding are what the caller passed, whatever the model makes of them on the way to its decoder."""

import copy
import inspect
import pickle

import pytest
import torch
from torch.distributed.algorithms._checkpoint import checkpoint_wrapper as checkpointing
from torch.nn.attention import flex_attention
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from armlet import Inward, Outward, attach
from armlet.attachment.caller import PREPARE
from armlet.redistribution.errors import ArmletError
from attached import POLICIES, anatomy, each_cache, padded, seen
from families import prompt, tiny
from multimodal import BUILDERS, image_prompt, tiny_multimodal

each_family = pytest.mark.parametrize("family", BUILDERS)
OPTIONS = {"max_new_tokens": 3, "do_sample": False}


def gate_values(model, run):
    """The positions and values of the valid tokens at layer 0's gate, for each call of `run`."""
    mlp = model.get_decoder().layers[0].mlp
    values = []
    handle = mlp.act_fn.register_forward_hook(lambda _module, _args, output: values.append(output[0].clone()))
    try:
        with torch.no_grad(), seen(model) as calls:
            run()
    finally:
        handle.remove()
    return [
        (positions[0][mask[0]].tolist(), output[mask[0]])
        for (_, positions, mask), output in zip(calls, values, strict=True)
    ]


@pytest.mark.slow
@each_cache
@pytest.mark.parametrize("padding", [{"left": 2}, {"left": 3}], ids=str)
@each_family
def test_an_image_prompt_has_the_same_draws_alone_and_padded_in_generate(family, padding, options):
    model = tiny_multimodal(family)
    with attach(model, Outward(share=(0.2, 0.5))):
        alone = gate_values(model, lambda: model.generate(**image_prompt(family), **OPTIONS, **options))
        batched = gate_values(model, lambda: model.generate(**image_prompt(family, **padding), **OPTIONS, **options))
        (plain,) = gate_values(model, lambda: model(**image_prompt(family)))
    assert [positions for positions, _ in alone] == [[*range(11)], [11], [12]]
    assert [positions for positions, _ in batched] == [positions for positions, _ in alone]
    for (_, first), (_, second) in zip(alone, batched, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(plain[1], alone[0][1], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("padding", [{}, {"left": 2}, {"right": 2}], ids=str)
@each_family
def test_an_image_prompt_has_the_same_draws_alone_and_padded_in_a_forward_call(family, padding):
    model = tiny_multimodal(family)
    with attach(model, Outward(share=(0.2, 0.5))):
        (alone,) = gate_values(model, lambda: model(**image_prompt(family)))
        (together,) = gate_values(model, lambda: model(**image_prompt(family, **padding)))
    assert together[0] == alone[0] == [*range(11)]
    torch.testing.assert_close(together[1], alone[1], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize("scope", ["token", "sequence"])
def test_continuous_batching_gives_every_sequence_the_tokens_that_it_gets_alone(attention, policy, scope):
    pytest.importorskip("psutil", reason="transformers asks it for the memory that continuous batching may take")
    model = tiny()
    model.set_attn_implementation(attention)
    prompts = [prompt(7, seed=1)[0].tolist(), prompt(4, seed=2)[0].tolist(), prompt(9, seed=3)[0].tolist()]
    config = GenerationConfig(max_new_tokens=5, do_sample=False, eos_token_id=-1, pad_token_id=0)
    size = "page_size" if "page_size" in inspect.signature(ContinuousBatchingConfig).parameters else "block_size"
    small = ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=64, **{size: 16})  # else nearly all memory
    with torch.no_grad(), attach(model, policy, layers="all", scope=scope), seen(model) as calls:
        results = model.generate_batch(prompts, generation_config=config, continuous_batching_config=small)
        steps = [(positions[mask].tolist(), int(mask.sum())) for layer, positions, mask in calls if layer == 0]
        alone = [
            model.generate(torch.tensor([ids]), max_new_tokens=5, do_sample=False)[0, len(ids) :].tolist()
            for ids in prompts
        ]
    together = [list(result.generated_tokens) for _, result in sorted(results.items())]
    assert together == alone
    assert steps[1][0] == [7, 4, 9]


@pytest.mark.parametrize(
    "padding", [None, [1] * 9 + [0] * 2, [1] * 5 + [2] * 4 + [0] * 2], ids=["none", "ones", "numbers"]
)
@pytest.mark.parametrize("scope", ["token", "sequence"])
def test_packed_prompts_are_treated_as_alone(padding, scope):
    model = tiny()
    first, second = prompt(5, seed=1), prompt(4, seed=2)
    ids = torch.cat((first, second, torch.zeros(1, 2, dtype=torch.int64)), 1)
    position_ids = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 0]])
    mask = None if padding is None else torch.tensor([padding])
    with torch.no_grad(), attach(model, Inward(knee=0.9), scope=scope), seen(model) as calls:
        model(ids, position_ids=position_ids, attention_mask=mask, use_cache=False)
    if scope == "token":
        assert calls[0][1][0, :9].tolist() == position_ids[0, :9].tolist()
    else:
        lengths = [5, 4, *([1, 1] if padding is None else [])]
        assert [int(row.sum()) for row in calls[0][2]][:2] == lengths[:2]


def test_scope_call_refuses_packed_rows():
    model, position_ids = tiny(), torch.tensor([[0, 1, 2, 0, 1, 2]])
    with attach(model, Inward(), scope="call"):
        model(prompt(6), position_ids=torch.arange(6)[None])
        with pytest.raises(ArmletError, match="scope 'call' would mix the sequences packed in one row"):
            model(prompt(6), position_ids=position_ids, use_cache=False)


def test_sequence_scope_takes_statistics_of_packed_prompts_apart():
    model = tiny()
    first, second = prompt(5, seed=1), prompt(4, seed=2)
    position_ids = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3]])
    values = []
    with torch.no_grad(), attach(model, Inward(knee=0.8), scope="sequence"):
        model.model.layers[0].mlp.down_proj.register_forward_hook(lambda _m, args, _o: values.append(args[0]))
        model(torch.cat((first, second), 1), position_ids=position_ids, use_cache=False)
        model(first, use_cache=False)
        model(second, use_cache=False)
    packed, *alone = values
    torch.testing.assert_close(packed, torch.cat(alone, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["attach", "checkpointing"])
def test_recomputation_in_the_backward_pass_is_refused(first):
    model = tiny().train()
    ids, mask = padded("left")

    def checkpoint():
        checkpointing.apply_activation_checkpointing(model, check_fn=lambda part: isinstance(part, LlamaDecoderLayer))

    if first == "checkpointing":
        checkpoint()
    with attach(model, Outward(write="add"), layers=1):
        if first == "attach":
            checkpoint()
        loss = model(ids, attention_mask=mask, labels=ids, use_cache=False).loss
        with pytest.raises(ArmletError, match="activation checkpointing re-runs a layer in the backward pass"):
            loss.backward()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:_compile flag:DeprecationWarning", "ignore:flex_attention called:UserWarning")
def test_block_masks_of_flex_attention_do_not_hide_the_padding(monkeypatch):
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    ids, mask = padded("left")
    model = tiny()
    model.set_attn_implementation("flex_attention")
    with torch.no_grad(), attach(model, Outward()), seen(model) as calls:
        model(ids, attention_mask=mask)
        block = flex_attention.create_block_mask(lambda _b, _h, q, k: q >= k, 2, None, 6, 6, device="cpu")
        with pytest.raises(ArmletError, match="pass the attention_mask with a column for each token"):
            model(ids, attention_mask=block)
    assert torch.equal(calls[0][2], mask.bool())
    assert calls[0][1][0].tolist() == [0, 0, 0, 0, 1, 2]


def test_ctrl_c_around_the_decoder_leaves_no_arguments_for_the_next_call():
    model = tiny()
    ids, mask = padded("left")

    def interrupt(*_):
        raise KeyboardInterrupt

    with attach(model, Outward()), seen(model) as calls:
        handle = model.lm_head.register_forward_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            model(ids, attention_mask=mask)
        handle.remove()
        model.model(ids)
    assert calls[0][1][0].tolist() == [0, 0, 0, 0, 1, 2]
    assert calls[1][1][0].tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.slow
@pytest.mark.parametrize("family", BUILDERS)
def test_without_one_of_two_attachments_the_other_acts_as_alone(family):
    model, inputs, options = tiny_multimodal(family), image_prompt(family, left=3), {"cache_implementation": "static"}
    first = attach(model, Outward(), layers=1)

    def draws():
        return gate_values(model, lambda: model.generate(**inputs, **OPTIONS, **options))

    with attach(model, Outward()):
        with first.paused():
            paused = draws()
        first.detach()
        detached = draws()
    with attach(model, Outward()):
        alone = draws()
    assert [positions for positions, _ in alone] == [[*range(11)], [11], [12]]
    for other in (paused, detached):
        assert all(torch.equal(values, expected) for (_, values), (_, expected) in zip(other, alone, strict=True))
    assert PREPARE not in vars(model)


def test_a_model_with_arm_generates_from_embeddings():
    model = tiny()
    embeds = model.get_input_embeddings()(prompt(5))
    with torch.no_grad(), attach(model, Outward()):
        from_ids = model.generate(prompt(5), **OPTIONS)[:, 5:]
        assert torch.equal(model.generate(inputs_embeds=embeds, **OPTIONS), from_ids)


def test_a_model_s_own_preparation_is_kept_and_comes_back():
    model, calls = tiny(), []
    method = model.prepare_inputs_for_generation

    def prepare(*args, **kwargs):
        calls.append(1)
        return method(*args, **kwargs)

    model.prepare_inputs_for_generation = prepare
    ids, mask = padded("left")
    with torch.no_grad(), attach(model, Outward()), seen(model) as arms:
        model.generate(ids, attention_mask=mask, cache_implementation="static", **OPTIONS)
    assert len(calls) == 3
    assert torch.equal(arms[0][2], mask.bool())
    assert model.prepare_inputs_for_generation is prepare


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("paligemma", "attach to the model that you call, PaliGemma"),
        ("gemma3", "pass the attention_mask with a column"),
    ],
)
def test_a_part_of_a_model_does_not_guess_the_padding_of_the_whole(family, message):
    model = tiny_multimodal(family)
    with torch.no_grad(), attach(model.get_decoder(), Outward()), pytest.raises(ArmletError, match=message):
        model(**image_prompt(family, left=2))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_off_leaves_the_method_that_prepares_generation(duplicate):
    model = tiny()
    before = anatomy(model)
    with attach(model, Outward()) as attachment:
        assert PREPARE in vars(model)
        other = duplicate(model)
        with attachment.paused():
            assert PREPARE not in vars(model)
    assert anatomy(model) == before
    assert PREPARE not in vars(model)
    ids, mask = padded("right")
    with seen(other) as calls:
        other.generate(ids, attention_mask=mask, cache_implementation="static", **OPTIONS)
    assert [positions.tolist() for _, positions, _ in calls[1:]] == [[[3], [6]], [[4], [7]]]
