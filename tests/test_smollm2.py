"""What only a real model shows: SmolLM2-135M-Instruct in float32."""

import pytest
import torch

from armlet import ARM, Inward, Noise, Outward, Transport, attach
from families import go_on

pytestmark = pytest.mark.slow

PROMPTS = [
    "Hi",
    "If 3x + 7 = 22, what is x?",
    "What is the sum of the first 100 positive integers?",
    "How many prime numbers are there between 10 and 30?",
    "Every cat is a mammal and no mammal is a reptile. Can a cat be a reptile?",
    "A train travels 180 km in 2.5 hours. What is its average speed?",
    "Natalia sold 48 clips in April and half as many in May. How many clips did she sell altogether?",
    "List the planets of the solar system in order of their distance from the sun, and say which has the most moons.",
]


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def spreads(model, tokenizer):
    """For each prompt, the largest difference of a logit between the prompt alone and by another way.

    In a padded batch (left, right), prefilled in chunks of 7, decoded token by token.
    """
    alone = [model(tokenizer(prompt, return_tensors="pt").input_ids).logits[0] for prompt in PROMPTS]
    largest = [0.0] * len(PROMPTS)
    for way in (in_batch(model, tokenizer, "left"), in_batch(model, tokenizer, "right"), *in_chunks(model, tokenizer)):
        for number, logits in enumerate(way):
            largest[number] = max(largest[number], (logits - alone[number]).abs().max().item())
    return largest


def in_batch(model, tokenizer, side):
    batch = tokenizer(PROMPTS, return_tensors="pt", padding=True, padding_side=side)
    logits = model(**batch).logits
    return [row[keep.bool()] for row, keep in zip(logits, batch.attention_mask, strict=True)]


def in_chunks(model, tokenizer):
    for size in (7, 1):
        yield [chunked(model, tokenizer(prompt, return_tensors="pt").input_ids, size) for prompt in PROMPTS]


def chunked(model, ids, size):
    out, parts = None, []
    for chunk in ids.split(size, dim=1):
        out = go_on(model, chunk, out)
        parts.append(out.logits[0])
    return torch.cat(parts)


@pytest.fixture(scope="module")
def untouched(smollm2):
    with torch.no_grad():
        return spreads(*smollm2)


def conditioning(model, tokenizer, number):
    """The largest change of a logit where each embedding is off by about one float32 rounding."""
    ids = tokenizer(PROMPTS[number], return_tensors="pt").input_ids
    x = model.get_input_embeddings()(ids)
    noise = torch.randn(4, *x.shape[1:], generator=torch.Generator().manual_seed(0))
    nudged = model(inputs_embeds=x * (1 + 2.0**-24 * noise)).logits
    return (nudged - model(inputs_embeds=x).logits).abs().max().item()


@pytest.mark.parametrize("layer", [0, 14])
def test_outward_ignores_batch_mates_padding_chunks_and_cache(smollm2, untouched, layer, record_property):
    with attach(smollm2[0], Outward(), layers=layer):
        treated = spreads(*smollm2)
    record_property("largest spread, untouched and treated", f"{max(untouched):.2g} {max(treated):.2g}")
    record_property("largest ratio", f"{max(t / u for t, u in zip(treated, untouched, strict=True)):.2f}")
    assert all(spread <= 4 * limit for spread, limit in zip(treated, untouched, strict=True))


@pytest.mark.parametrize("policy", [Inward(), Transport()], ids=lambda policy: policy.name)
def test_inward_and_transport_differ_by_their_conditioning_alone(smollm2, untouched, policy, record_property):
    # They amplify rounding (Transport swaps the ranks of values that nearly tie), so the untouched model's spread is
    # no measure; the treated model's answer to one rounding of its input is.
    with attach(smollm2[0], policy):
        treated = spreads(*smollm2)
        nudged = [conditioning(*smollm2, number) for number in range(len(PROMPTS))]
    record_property("largest spread, untouched and treated", f"{max(untouched):.2g} {max(treated):.2g}")
    record_property("largest ratio", f"{max(t / u for t, u in zip(treated, untouched, strict=True)):.2f}")
    record_property("largest change by one rounding of the embeddings", f"{max(nudged):.2g}")
    for spread, *limits in zip(treated, untouched, nudged, strict=True):
        assert spread <= 4 * max(limits)


def test_at_most_one_value_in_100_000_flips_at_the_edge(smollm2, record_property):
    flips = values = 0
    with attach(smollm2[0], Outward()):
        alone, *others = moved(*smollm2)
    for other in others:
        flips += sum(int((one != two).sum()) for one, two in zip(alone, other, strict=True))
        values += sum(two.numel() for two in other)
    record_property("flips", f"{flips} of {values}")
    assert values > 800_000
    assert flips <= values / 100_000


def moved(model, tokenizer):
    """By each way through the model, alone first: which values ARM moved, bool `[seq, width]` for each prompt."""
    calls = []
    arm = next(module for module in model.modules() if isinstance(module, ARM))
    handle = arm.register_forward_hook(lambda _, args, out: calls.append(out != args[0]))
    for size in (10_000, 7, 1):
        by_prompt = []
        for prompt in PROMPTS:
            calls.clear()
            chunked(model, tokenizer(prompt, return_tensors="pt").input_ids, size)
            by_prompt.append(torch.cat(calls, 1)[0])
        yield by_prompt
    for side in ("left", "right"):
        calls.clear()
        batch = tokenizer(PROMPTS, return_tensors="pt", padding=True, padding_side=side)
        model(**batch)
        yield [row[keep.bool()] for row, keep in zip(calls[0], batch.attention_mask, strict=True)]
    handle.remove()


def test_off_is_bit_equal(smollm2):
    model, tokenizer = smollm2
    batch = tokenizer(PROMPTS, return_tensors="pt", padding=True, padding_side="left")
    keys, generator, baseline = list(model.state_dict()), torch.get_rng_state(), model(**batch).logits
    with attach(model, Outward(), layers="all") as attachment:
        treated = model(**batch).logits
        assert list(model.state_dict()) == keys
        with attachment.paused():
            assert torch.equal(model(**batch).logits, baseline)
    assert not torch.equal(treated, baseline)
    assert torch.equal(model(**batch).logits, baseline)
    assert torch.equal(torch.get_rng_state(), generator)


def test_the_same_seed_gives_the_same_text(smollm2):
    model, tokenizer = smollm2
    ids = tokenizer("The capital of France is", return_tensors="pt")

    def text(seed):
        with attach(model, Outward(band=0.5), noise=Noise(seed)):
            return tokenizer.decode(model.generate(**ids, max_new_tokens=24, do_sample=False)[0])

    assert text(0) == text(0)
    assert len({text(seed) for seed in range(4)}) > 1


def test_bfloat16_runs_and_moves_the_same_share(smollm2_folder):
    from armlet.checkpoints.pretrained import load

    shares = []
    for dtype in ("float32", "bfloat16"):
        model, tokenizer = load(str(smollm2_folder), dtype=dtype)
        with attach(model, Outward()) as attachment:
            logits = model(**tokenizer(PROMPTS[-1], return_tensors="pt")).logits
            shares.append(attachment.report()[0]["share_moved"])
        assert logits.isfinite().all()
    # bfloat16 keeps 8 bits: values that tie at the edge move together.
    assert shares[1] == pytest.approx(shares[0], rel=0.1)
