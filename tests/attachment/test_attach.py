"""ARM in a model: where it acts, that it is off when it is off, and that positions and padding arrive by themselves."""

import copy
import inspect
import pickle
import threading
from contextlib import ExitStack, contextmanager

import pytest
import torch

from armlet import Cut, Inward, Noise, Outward, Transport, attach, load_config
from armlet.attachment.attach import _note_once
from armlet.attachment.handle import AlreadyAttachedError, DetachedError
from armlet.evaluation.conditions.placebos import placebo
from armlet.redistribution.errors import ArgumentError
from attached import (
    POLICIES,
    anatomy,
    each_cache,
    each_policy,
    each_site,
    other_site,
    padded,
    redistributed_by_hook,
    seen,
)
from families import FAMILIES, go_on, prompt, tiny


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


# --- where it acts --------------------------------------------------------------------------------------------------


@each_site
@pytest.mark.parametrize("family", FAMILIES)
@each_policy
def test_arm_acts_on_the_site_of_its_layer_alone(family, policy, site):
    model, ids = tiny(family), prompt(9)
    with redistributed_by_hook(model, policy, Noise(4), site):
        expected = model(ids).logits
    baseline = model(ids).logits
    with attach(model, policy, noise=Noise(4), site=site) as attachment:
        treated = model(ids).logits
        report = attachment.report()
    assert torch.equal(treated, expected)
    assert not torch.equal(treated, baseline)
    assert list(report) == [0]
    assert (report[0]["calls"], report[0]["tokens"]) == (1, 9)
    assert report[0]["moved"] > 0
    assert torch.equal(model(ids).logits, baseline)


def test_an_activation_that_layers_share_is_treated_in_the_chosen_layer_alone():
    model, ids = tiny(), prompt(5)
    with attach(model, Outward(), layers=1):
        expected = model(ids).logits
    shared = model.model.layers[0].mlp.act_fn
    for layer in model.model.layers:
        layer.mlp.act_fn = shared
    with attach(model, Outward(), layers=1) as attachment:
        assert torch.equal(model(ids).logits, expected)
        assert attachment.report()[1]["calls"] == 1
    assert all(layer.mlp.act_fn is shared for layer in model.model.layers)


def test_two_attachments_at_two_layers_are_independent():
    model, ids = tiny(), prompt(5)
    with attach(model, Outward(), layers=0), attach(model, Inward(knee=0.5), layers=[1, 2]) as inner:
        both = model(ids).logits
        inner.detach()
        outer_alone = model(ids).logits
    with attach(model, Outward(), layers=0):
        assert torch.equal(model(ids).logits, outer_alone)
    assert not torch.equal(both, outer_alone)


@each_site
def test_two_sites_of_a_layer_are_independent(site):
    model, ids, other = tiny(), prompt(9), other_site(site)
    before, baseline = anatomy(model), model(ids).logits
    with attach(model, Outward(), site=site):
        site_alone = model(ids).logits
    with attach(model, Outward(), site=other):
        other_alone = model(ids).logits
    first, second = attach(model, Outward(), site=site), attach(model, Outward(), site=other)
    both = model(ids).logits
    assert not torch.equal(both, site_alone)
    assert not torch.equal(both, other_alone)
    assert first.report()[0]["calls"] == second.report()[0]["calls"] == 1
    with first.paused():
        assert torch.equal(model(ids).logits, other_alone)
    assert torch.equal(model(ids).logits, both)
    first.detach()
    assert torch.equal(model(ids).logits, other_alone)
    second.detach()
    assert torch.equal(model(ids).logits, baseline)
    assert anatomy(model) == before


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_several_placements_are_what_their_attachments_are_together(family):
    model, ids = tiny(family), prompt(9)
    placements = [
        {"policy": Inward(limit=0.1, curve="clip"), "site": "up", "layers": [0, 2]},
        {"policy": Outward(), "site": "gate", "layers": "all", "noise": Noise(5)},
        {"policy": Inward(limit=0.05), "site": "up", "layers": 1},
        {"policy": Cut(), "site": "product"},
    ]
    before, baseline = anatomy(model), model(ids).logits
    with ExitStack() as stack:
        parts = [stack.enter_context(attach(model, **placement)) for placement in placements]
        expected, reports = model(ids).logits, [part.report() for part in parts]
    with attach(model, placements) as whole:
        assert torch.equal(model(ids).logits, expected)
        assert [whole.report(number) for number in range(4)] == reports
        assert whole.report()[0]["moved"] == sum(report.get(0, {"moved": 0})["moved"] for report in reports)
        assert whole.layers == [0, 1, 2]
        with whole.paused():
            assert anatomy(model) == before
            assert torch.equal(model(ids).logits, baseline)
        assert torch.equal(model(ids).logits, expected)
    assert torch.equal(model(ids).logits, baseline)
    assert anatomy(model) == before


def test_what_a_placement_leaves_out_is_as_in_the_call():
    with attach(tiny(), [{"policy": "cut"}, {"policy": "inward", "site": "up"}], layers=1, noise=Noise(3)) as whole:
        assert whole.layers == [1]
        assert whole.noise == Noise(3)
        assert [placement["site"] for placement in whole.placements] == ["gate", "up"]
        with pytest.raises(ArgumentError, match="its 2 placements differ in site; see `placements`"):
            _ = whole.site


@pytest.mark.parametrize(
    ("placements", "message"),
    [
        ([], "expected a policy or a list of placements, found an empty list"),
        ([Outward()], "expected mappings with policy, and perhaps layers, scope"),
        ([{"site": "up"}], "expected mappings with policy"),
        ([{"policy": "cut", "limit": 7}], "expected mappings with policy"),
        ([{"policy": "cut", "layers": [0, 1]}, {"policy": "inward", "layers": 1}], "placements: 0 and 1 are both at"),
        ([{"policy": "cut", "layers": 9}], "has layers 0 to 2, found 9"),
    ],
    ids=str,
)
def test_placements_that_cannot_be_are_refused_and_nothing_is_attached(placements, message):
    model = tiny()
    before = anatomy(model)
    with pytest.raises(ArgumentError, match=message):
        attach(model, placements)
    assert anatomy(model) == before


def test_one_placement_of_several_can_be_changed():
    model, ids = tiny(), prompt(9)
    gate, up = {"policy": Inward(limit=0.1)}, {"policy": Inward(limit=0.2), "site": "up"}
    with attach(model, [gate, up]) as whole:
        whole.update(strength=0.0)
        off = model(ids).logits
        whole.update(limit=0.1, strength=1.0, placement=1)
        changed = model(ids).logits
        with pytest.raises(ArgumentError, match="placement: expected an integer from 0 to 1, found 2"):
            whole.update(strength=1.0, placement=2)
    assert torch.equal(off, model(ids).logits)
    with attach(model, Inward(limit=0.1), site="up"):
        assert torch.equal(changed, model(ids).logits)


@each_site
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copied", "pickled"]
)
def test_a_copy_of_an_attached_model_is_attached_and_counts_for_itself(duplicate, site):
    model, ids = tiny(), prompt(5)
    with attach(model, Outward(), site=site) as attachment:
        expected = model(ids).logits
        twin = duplicate(model)
        assert torch.equal(twin(ids).logits, expected)
        assert attachment.report()[0]["calls"] == 1
    assert torch.equal(twin(ids).logits, expected)


@each_site
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_half_and_double_precision_models_run(dtype, site):
    model = tiny().to(dtype)
    for policy in POLICIES:
        with attach(model, policy, site=site):
            assert model(prompt(5)).logits.isfinite().all()


@each_site
def test_what_was_saved_attaches_again(tmp_path, site):
    model, ids = tiny(), prompt(6)
    with attach(model, Outward(band=0.5), layers=[0, 1], noise=Noise(3), site=site) as attachment:
        assert attachment.site == site
        expected = model(ids).logits
        attachment.save(tmp_path)
    arguments = load_config(tmp_path)
    assert set(arguments) <= set(inspect.signature(attach).parameters)
    with attach(model, **arguments):
        assert torch.equal(model(ids).logits, expected)


# --- off is exact ---------------------------------------------------------------------------------------------------


@each_site
@pytest.mark.parametrize("family", FAMILIES)
def test_off_is_bit_equal_and_leaves_nothing(family, site):
    model, ids = tiny(family), prompt(9, batch=2)
    before, baseline, generator = anatomy(model), model(ids).logits, torch.get_rng_state()
    attachment = attach(model, Outward(), site=site)
    keys = list(model.state_dict())
    treated = model(ids).logits
    assert not torch.equal(treated, baseline)
    with attachment.paused():
        assert torch.equal(model(ids).logits, baseline)
        assert anatomy(model) == before
    assert torch.equal(model(ids).logits, treated)
    attachment.detach()
    attachment.detach()
    assert torch.equal(model(ids).logits, baseline)
    assert anatomy(model) == before
    assert keys == before[1]
    assert torch.equal(torch.get_rng_state(), generator)
    assert attachment.report()[0]["calls"] == 2


def test_an_error_inside_the_block_detaches_and_one_inside_a_pause_attaches_again():
    model, ids = tiny(), prompt(4)
    before = anatomy(model)
    attachment = attach(model, Outward())
    with pytest.raises(RuntimeError, match="inner"), attachment.paused():
        raise RuntimeError("inner")
    model(ids)
    assert attachment.report()[0]["calls"] == 1
    with pytest.raises(RuntimeError, match="mine"), attachment:
        raise RuntimeError("mine")
    assert anatomy(model) == before


def test_a_detached_attachment_is_not_entered_again():
    attachment = attach(tiny(), Outward())
    with attachment:
        pass
    with pytest.raises(DetachedError, match=r"call attach\(\) again"), attachment:
        pass


def test_a_pause_of_a_detached_attachment_stays_detached():
    model = tiny()
    attachment = attach(model, Outward())
    attachment.detach()
    before = anatomy(model)
    with attachment.paused():
        pass
    assert anatomy(model) == before


@each_site
def test_attaching_twice_at_one_site_is_refused_and_attaches_nothing(site):
    model, ids = tiny(), prompt(4)
    with attach(model, Outward(), layers=1, site=site), attach(model, Outward(), site=other_site(site)):
        before, expected = anatomy(model), model(ids).logits
        with pytest.raises(AlreadyAttachedError, match=f"layer 1 already has ARM at the site {site}"):
            attach(model, Inward(), layers="all", site=site)
        assert anatomy(model) == before
        assert torch.equal(model(ids).logits, expected)


@each_site
def test_a_layer_that_cannot_take_arm_leaves_all_layers_untouched(site):
    model, ids = tiny(), prompt(4)
    before, baseline = anatomy(model), model(ids).logits
    mlp = model.model.layers[1].mlp

    class Frozen(type(mlp)):
        def __setattr__(self, name, value):
            raise TypeError("this module cannot be changed")

    plain, mlp.__class__ = type(mlp), Frozen
    with pytest.raises(TypeError, match="cannot be changed"):
        attach(model, Outward(), layers="all", site=site)
    type.__setattr__(Frozen, "__setattr__", plain.__setattr__)
    mlp.__class__ = plain
    assert torch.equal(model(ids).logits, baseline)
    assert anatomy(model) == before


def test_a_pause_inside_a_pause_ends_nothing_and_detaching_inside_one_lasts():
    model, ids = tiny(), prompt(4)
    before, baseline = anatomy(model), model(ids).logits
    attachment = attach(model, Outward())
    with attachment.paused():
        with attachment.paused():
            pass
        assert torch.equal(model(ids).logits, baseline)
    assert not torch.equal(model(ids).logits, baseline)
    with attachment.paused():
        attachment.detach()
    assert anatomy(model) == before


def test_a_pause_does_not_override_what_was_attached_meanwhile():
    model, ids = tiny(), prompt(4)
    pause = attach(model, Outward()).paused()
    pause.__enter__()
    second = attach(model, Inward(knee=0.5))
    expected = model(ids).logits
    with pytest.raises(AlreadyAttachedError):
        pause.__exit__(None, None, None)
    assert torch.equal(model(ids).logits, expected)
    second.detach()
    with attach(model, Outward()):
        pass


@pytest.mark.parametrize("model", ["models/smollm2", None, tiny])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(
        ArgumentError, match=r"^model: expected a model, found .*; load it first, with from_pretrained\(\)$"
    ):
        attach(model, Outward())


@pytest.mark.parametrize(
    "wrong", [{"policy": "sideways"}, {"policy": 1}, {"layers": "0-9"}, {"scope": "row"}, {"noise": 3}, {"layers": 9}]
)
def test_wrong_arguments_attach_nothing(wrong):
    model = tiny()
    before = anatomy(model)
    with pytest.raises(ArgumentError):
        attach(model, **({"policy": Outward()} | wrong))
    assert anatomy(model) == before


@each_site
@each_policy
@pytest.mark.parametrize(
    "idle",
    [
        lambda policy: type(policy)(strength=0),
        lambda policy: placebo("identity", policy),
        lambda policy: placebo("draw-only", policy),
    ],
    ids=["strength 0", "identity", "draw-only"],
)
def test_what_changes_nothing_gives_the_baseline_bit_for_bit(policy, idle, site):
    model, ids = tiny(), prompt(7, batch=2)
    baseline = model(ids).logits
    with attach(model, idle(policy), layers="all", site=site):
        assert torch.equal(model(ids).logits, baseline)


@each_site
@each_policy
def test_the_matched_placebo_moves_as_many_values_as_its_policy(policy, site):
    model, moved = tiny(), []
    for treatment in (policy, placebo("matched", policy)):
        with attach(model, treatment, site=site) as attachment:
            model(prompt(7, batch=2))
            moved.append(attachment.report()[0]["moved"])
    assert moved[0] == moved[1] > 0


# --- switching while another thread runs the model ------------------------------------------------------------------


class Midway:
    """A forward of a model in another thread that stops before layer 1 until `finish` lets it go on."""

    def __init__(self, model, *, error=None):
        self.model, self.error, self.logits = model, error, None
        self._arrived, self._may_go_on = threading.Event(), threading.Event()
        self._handle = model.model.layers[1].register_forward_pre_hook(self._stop)
        self._thread = None

    def _stop(self, *_):
        if threading.current_thread() is self._thread:
            self._arrived.set()
            assert self._may_go_on.wait(60)
            if self.error:
                raise self.error

    def start(self):
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._arrived.wait(60)

    def _run(self):
        try:
            with torch.no_grad():  # gradient mode is a thread's own
                self.logits = self.model(IDS).logits
        except Exception as error:
            self.logits = error

    def finish(self):
        """The logits, or the error."""
        self._may_go_on.set()
        self._thread.join(60)
        return self.logits


IDS = prompt(5)


@contextmanager
def ready(site, **options):
    """A model, a forward of it to start elsewhere, its anatomy, and its logits without and with ARM."""
    model = tiny()
    midway = Midway(model, **options)
    before, baseline = anatomy(model), model(IDS).logits
    with attach(model, Outward(), layers="all", site=site):
        treated = model(IDS).logits
    assert not torch.equal(baseline, treated)
    yield model, midway, before, baseline, treated


@each_site
@pytest.mark.parametrize("last", [True, False], ids=["ends inside the pause", "ends after the pause"])
def test_a_treated_forward_stays_treated_when_another_thread_pauses(site, last):
    with ready(site) as (model, midway, before, baseline, treated):
        attachment = attach(model, Outward(), layers="all", site=site)
        midway.start()
        with attachment.paused():
            assert torch.equal(model(IDS).logits, baseline)
            if last:
                assert torch.equal(midway.finish(), treated)
                assert anatomy(model) == before
                assert torch.equal(model(IDS).logits, baseline)
        assert torch.equal(midway.finish(), treated)
        assert torch.equal(model(IDS).logits, treated)
        attachment.detach()
        assert anatomy(model) == before


@each_site
@pytest.mark.parametrize("while_another_runs", [False, True])
def test_an_untreated_forward_stays_untreated_when_the_pause_in_another_thread_ends(site, while_another_runs):
    with ready(site) as (model, midway, _, baseline, treated):
        attachment = attach(model, Outward(), layers="all", site=site)
        other = Midway(model)
        if while_another_runs:  # so that ARM's modules stay in the model during the pause
            other.start()
        with attachment.paused():
            midway.start()
        assert torch.equal(model(IDS).logits, treated)
        assert torch.equal(midway.finish(), baseline)
        assert not while_another_runs or torch.equal(other.finish(), treated)


@each_site
def test_a_forward_that_runs_during_attach_and_detach_ends_as_it_began(site):
    with ready(site) as (model, midway, before, baseline, treated):
        midway.start()
        attachment = attach(model, Outward(), layers="all", site=site)
        assert torch.equal(midway.finish(), baseline)
        second = Midway(model)
        second.start()
        attachment.detach()
        assert torch.equal(model(IDS).logits, baseline)
        assert torch.equal(second.finish(), treated)
        second._handle.remove()
        assert anatomy(model) == before


@each_site
@pytest.mark.parametrize("calls_after", [0, 1])
def test_ctrl_c_in_a_forward_leaves_nothing_after_detach(calls_after, site):
    model, ids = tiny(), prompt(5)
    before, baseline = anatomy(model), model(ids).logits
    arm = attach(model, Outward(), site=site)
    treated = model(ids).logits

    def interrupt(*_):
        handle.remove()
        raise KeyboardInterrupt  # after which torch runs no hook

    handle = model.get_decoder().layers[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(ids)
    for _ in range(calls_after):
        assert torch.equal(model(ids).logits, treated)
    arm.detach()
    assert anatomy(model) == before
    assert torch.equal(model(ids).logits, baseline)


def test_a_forward_that_fails_while_paused_raises_its_own_error_and_leaves_nothing_for_the_next_call():
    with ready("gate", error=ZeroDivisionError("mine")) as (model, midway, before, baseline, _):
        attachment = attach(model, Outward(), layers="all")
        midway.start()
        with attachment.paused():
            assert midway.finish() is midway.error
            assert torch.equal(model(IDS).logits, baseline)
            assert anatomy(model) == before


# --- noise ----------------------------------------------------------------------------------------------------------


def sample(model, seed, **options):
    torch.manual_seed(seed)
    return model.generate(prompt(4), max_new_tokens=12, do_sample=True, **options)


def test_the_same_seed_gives_the_same_text_and_another_seed_another():
    model, texts = tiny(), []
    for seed in (0, 0, 1):
        with attach(model, Outward(band=1.0, share=(0.2, 0.5)), layers="all", noise=Noise(seed)):
            texts.append(sample(model, 5))
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])


def test_keyed_noise_leaves_the_sampler_alone_and_fresh_noise_does_not():
    model = tiny()
    torch.manual_seed(1)
    with attach(model, Outward(strength=0), layers="all"):
        treated = sample(model, 5)
    assert torch.equal(treated, sample(model, 5))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with attach(model, Outward(), noise=Noise.fresh()):
        model(prompt(4))
    assert not torch.equal(torch.get_rng_state(), before)


def test_a_tensor_of_uniforms_is_used_as_it_is_and_refused_where_it_does_not_fit():
    model, ids = tiny(), prompt(5)
    with attach(model, Outward(), noise=Noise.midpoint()):
        expected = model(ids).logits
    with attach(model, Outward(), noise=torch.full((1, 5, 48), 0.5)):
        assert torch.equal(model(ids).logits, expected)
        with pytest.raises(ArgumentError, match="needs the shape of the values"):
            model(prompt(6))


# --- positions and padding ------------------------------------------------------------------------------------------


@each_site
@each_cache
@pytest.mark.parametrize("window", [4, 16])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gemma3", "phi3"])
def test_generate_counts_positions_from_the_first_valid_token(family, window, options, site):
    model = tiny(family, sliding_window=window)
    ids, attention_mask = padded("left")
    with attach(model, Outward(), layers=[0, 2], site=site), seen(model) as calls:
        model.generate(ids, attention_mask=attention_mask, max_new_tokens=4, do_sample=False, **options)
    last_layer = [call for call in calls if call[0] == 2]
    _, positions, mask = last_layer[0]
    assert positions[0, 3:].tolist() == [0, 1, 2]
    assert positions[1].tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.equal(mask, attention_mask.bool())
    assert [call[1].tolist() for call in last_layer[1:]] == [[[3], [6]], [[4], [7]], [[5], [8]]]
    assert all(call[2].all() for call in last_layer[1:])


@each_cache
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_generate_continues_the_positions_after_right_padding(family, options):
    model = tiny(family)
    ids, attention_mask = padded("right")
    with attach(model, Outward()), seen(model) as calls:
        model.generate(ids, attention_mask=attention_mask, max_new_tokens=3, do_sample=False, **options)
    assert calls[0][1][0, :3].tolist() == [0, 1, 2]
    assert torch.equal(calls[0][2], attention_mask.bool())
    assert [call[1].tolist() for call in calls[1:]] == [[[3], [6]], [[4], [7]]]


@each_site
@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "num_return_sequences": 3},
        {"prefill_chunk_size": 4},
        {"use_cache": False},
    ],
    ids=str,
)
def test_every_way_of_generating_gives_each_token_its_own_position(options, site):
    model = tiny()
    torch.manual_seed(0)
    with attach(model, Outward(), site=site), seen(model) as calls:
        model.generate(prompt(6), max_new_tokens=4, **({"do_sample": False} | options))
    reached = [int(positions.max()) for _, positions, _ in calls]
    assert reached == sorted(reached)
    assert reached[-1] == 8
    for _, positions, _ in calls:
        last = int(positions.max())
        expected = torch.arange(last - positions.shape[1] + 1, last + 1)
        assert torch.equal(positions, expected.expand_as(positions))


def test_assisted_generation_gives_the_treated_text():
    model, assistant = tiny(), tiny(num_hidden_layers=1, seed=3)
    options = {"max_new_tokens": 10, "do_sample": False}
    with attach(model, Outward(share=(0.2, 0.5)), layers="all"):
        alone = model.generate(prompt(6), **options)
        assert torch.equal(model.generate(prompt(6), assistant_model=assistant, **options), alone)


# Matrix products of other shapes round differently, layer by layer; noise of another position would cost 0.1 or so.
ROUNDING = {"rtol": 1e-4, "atol": 1e-4}

each_extent = pytest.mark.parametrize(("site", "layers"), [("gate", "all"), ("product", 0)], ids=["gate", "product"])


@each_extent
@each_policy
def test_decoding_with_a_cache_is_prefilling(policy, site, layers):
    model, ids = tiny(), prompt(12)
    with attach(model, policy, layers=layers, site=site):
        whole = model(ids).logits
        out, parts = None, []
        for chunk in ids.split([5, 4, 1, 1, 1], dim=1):
            out = go_on(model, chunk, out)
            parts.append(out.logits)
    torch.testing.assert_close(torch.cat(parts, 1), whole, **ROUNDING)


@each_extent
@pytest.mark.parametrize("side", ["left", "right"])
@each_policy
def test_token_scope_ignores_padding_and_batch_mates(policy, side, site, layers):
    model = tiny()
    ids, attention_mask = padded(side)
    with attach(model, policy, layers=layers, site=site) as attachment:
        together = model(ids, attention_mask=attention_mask).logits
        assert attachment.report()[0]["tokens"] == 9
        alone = [model(row[keep.bool()][None]).logits for row, keep in zip(ids, attention_mask, strict=True)]
    for row, keep, single in zip(together, attention_mask.bool(), alone, strict=True):
        torch.testing.assert_close(row[keep], single[0], **ROUNDING)


def test_padding_is_not_counted():
    model = tiny()
    ids, attention_mask = padded("left")
    with attach(model, Transport()) as attachment:
        model(ids, attention_mask=attention_mask)
        assert attachment.report()[0] == {"calls": 1, "tokens": 9, "moved": 9 * 48, "share_moved": 1.0, "passed": 0}


@each_extent
def test_sequence_scope_keeps_prompts_of_a_batch_apart(site, layers):
    model = tiny()
    ids, attention_mask = padded("left")
    with attach(model, Inward(knee=0.9), scope="sequence", layers=layers, site=site):
        together = model(ids, attention_mask=attention_mask).logits[0, 3:]
        alone = model(ids[:1, 3:]).logits[0]
    torch.testing.assert_close(together, alone, **ROUNDING)


def test_embeddings_in_place_of_tokens_are_counted_alike():
    model, ids = tiny(), prompt(6)
    with attach(model, Outward()):
        assert torch.equal(model(inputs_embeds=model.get_input_embeddings()(ids)).logits, model(ids).logits)


@each_site
def test_a_layer_that_runs_outside_its_decoder_counts_from_zero(site):
    model = tiny()
    mlp, x = model.model.layers[0].mlp, torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
    with redistributed_by_hook(model, Outward(), Noise(0), site):
        expected = mlp(x)
    with attach(model, Outward(), site=site) as attachment:
        assert torch.equal(mlp(x), expected)
        assert attachment.report()[0]["tokens"] == 3


def test_two_threads_on_one_model_do_not_mix_up_positions_and_lose_no_count():
    model = tiny()
    prompts = [padded("left"), (prompt(11), torch.ones(1, 11, dtype=torch.int64))]
    results = {}

    def generate(number):
        ids, attention_mask = prompts[number]
        with torch.no_grad():  # gradient mode is a thread's own
            for _ in range(8):
                out = model.generate(ids, attention_mask=attention_mask, max_new_tokens=8, do_sample=False)
                results.setdefault(number, []).append(out)

    with attach(model, Outward(share=(0.2, 0.5)), layers="all") as attachment:
        expected = [
            model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False) for ids, mask in prompts
        ]
        alone = attachment.report()[1]
        threads = [threading.Thread(target=generate, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        together = attachment.report()[1]
    for number in (0, 1):
        assert len(results[number]) == 8
        assert all(torch.equal(out, expected[number]) for out in results[number])
    for count in ("calls", "tokens", "moved"):
        assert together[count] == 9 * alone[count]


# --- torch.compile --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize(
    ("site", "policy"), [*(("gate", policy) for policy in POLICIES), ("product", Outward())], ids=str
)
def test_a_compiled_model_follows_attach_pause_and_detach(policy, site):
    model, ids = tiny(), prompt(6, batch=2)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)  # the graph counts here, not its code

    def same(reference):
        torch.testing.assert_close(compiled(ids).logits, reference, rtol=1e-4, atol=1e-4)  # another order of sums

    baseline = model(ids).logits
    same(baseline)
    for seed in (0, 1):
        with attach(model, policy, layers=[0, 2], noise=Noise(seed), site=site) as attachment:
            treated = model(ids).logits
            assert (treated - baseline).abs().max() > 0.01
            same(treated)
            with attachment.paused():
                same(baseline)
            same(treated)
            assert attachment.report()[2]["calls"] == 3
        same(baseline)


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
def test_a_compiled_model_takes_positions_and_padding_from_its_call():
    model = tiny()
    ids, attention_mask = padded("left")
    compiled = torch.compile(model)
    with attach(model, Outward(), layers="all") as attachment:
        expected = model(ids, attention_mask=attention_mask).logits
        out = compiled(ids, attention_mask=attention_mask).logits
        torch.testing.assert_close(out[attention_mask.bool()], expected[attention_mask.bool()], rtol=1e-4, atol=1e-4)
        assert attachment.report()[1]["tokens"] == 18


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
@each_site
def test_generation_with_a_static_cache_and_a_compiled_forward_gives_the_same_text(site):
    model = tiny()
    ids, attention_mask = padded("left")
    options = {"attention_mask": attention_mask, "max_new_tokens": 5, "do_sample": False}
    with attach(model, Outward(share=(0.2, 0.5)), layers="all", site=site):
        expected = model.generate(ids, **options)
        model.forward = torch.compile(model.forward, backend="aot_eager")  # the graph counts here, not its code
        assert torch.equal(model.generate(ids, cache_implementation="static", **options), expected)


# --- training -------------------------------------------------------------------------------------------------------


@each_policy
def test_arm_can_stay_in_during_training(policy):
    model, ids = tiny().train(), prompt(8, batch=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    with torch.enable_grad(), attach(model, policy, layers="all"):
        for _ in range(8):
            loss = model(ids, labels=ids).loss
            optimizer.zero_grad()
            loss.backward()
            assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_setting_that_another_replaces_is_noted_once(capsys):
    _note_once.cache_clear()
    policy = "outward:proportion=0.25,band=2"
    for model in (tiny(), tiny()):
        attach(model, policy)
    attach(tiny(), "outward:strength=0")
    sentence = "outward: band has no effect, because proportion replaces band and share"
    assert " ".join(capsys.readouterr().err.split()) == sentence
