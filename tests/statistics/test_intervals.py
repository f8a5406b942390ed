"""The bootstrap draws prompts and then tokens, and its interval covers the true mean as often as it says."""

import numpy as np
import pytest

from armlet.statistics.intervals import draw_weights, percentile_interval, resample_means

OWNERS = np.repeat(np.arange(5), [3, 1, 7, 4, 5])


def test_every_resample_draws_as_many_prompts_as_there_are_and_all_tokens_of_each():
    weights = draw_weights(OWNERS, resamples=300)
    sizes = np.bincount(OWNERS)
    per_prompt = np.stack([weights[:, at == OWNERS].sum(1) for at in range(5)], axis=1)
    times = per_prompt / sizes
    assert (times == np.round(times)).all()
    assert (times.sum(1) == 5).all()
    assert (weights >= 0).all()
    assert times.std() > 0.5
    # Tokens are drawn within a prompt: where one prompt came once, its tokens did not all come once.
    once = weights[times[:, 2] == 1][:, OWNERS == 2]
    assert (once != 1).any()


def test_the_draw_is_the_seeds():
    assert (draw_weights(OWNERS, seed=1, resamples=20) == draw_weights(OWNERS, seed=1, resamples=20)).all()
    assert (draw_weights(OWNERS, seed=1, resamples=20) != draw_weights(OWNERS, seed=2, resamples=20)).any()


def test_resample_means_are_means_of_the_drawn_tokens():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(20, 2)), draw_weights(OWNERS, resamples=10)
    for found, own in zip(resample_means(values, weights, OWNERS), weights.astype(int), strict=True):
        np.testing.assert_allclose(found, np.repeat(values, own, axis=0).mean(0), rtol=1e-12)


def test_a_resample_without_any_of_the_tokens_has_no_mean_and_is_left_out():
    weights = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 2.0]])
    means = resample_means(np.array([[1.0], [3.0]]), weights, np.array([0, 1]))
    np.testing.assert_array_equal(means[:, 0], [2.0, np.nan, 3.0])
    np.testing.assert_allclose(percentile_interval(means)[:, 0], [2.025, 2.975])


def test_what_is_not_defined_has_no_interval():
    low, high = percentile_interval(np.array([[1.0, np.nan], [2.0, np.nan]]))
    assert np.isnan([low[1], high[1]]).all()
    assert not np.isnan([low[0], high[0]]).any()
    assert np.isnan(percentile_interval(np.full((3, 2), np.nan))).all()


@pytest.mark.parametrize("values", [np.full(7, 0.1), np.zeros(7), np.arange(7.0)], ids=["equal", "zero", "different"])
def test_tokens_of_one_prompt_have_no_interval_however_much_they_differ(values):
    """The prompt is what is drawn: its tokens drawn again say nothing of other prompts."""
    alone = np.zeros(7, dtype=int)
    assert np.isnan(percentile_interval(resample_means(values[:, None], draw_weights(alone), alone))).all()
    # The same of a part of the tokens, such as a class, if others are from other prompts.
    prompts = np.repeat([0, 1, 2], [7, 3, 2])
    part = prompts == 0
    means = resample_means(values[:, None], draw_weights(prompts)[:, part], prompts[part])
    assert np.isnan(percentile_interval(means)).all()


def test_two_prompts_have_an_interval_unless_nothing_differs():
    prompts = np.repeat([0, 1], [4, 3])
    weights = draw_weights(prompts)
    low, high = percentile_interval(resample_means(np.arange(7.0)[:, None], weights, prompts))
    assert low < 3 < high
    assert np.isnan(percentile_interval(resample_means(np.full((7, 1), 0.1), weights, prompts))).all()


@pytest.mark.slow
@pytest.mark.parametrize("between", [0.0, 1.0])
def test_the_interval_holds_the_true_mean_about_as_often_as_it_says(between):
    """95 % of 200 runs; tokens alone would hold it far less often where prompts differ (checked below)."""
    held = naive = 0
    for run in range(200):
        rng = np.random.default_rng(run)
        prompts = np.repeat(np.arange(16), 12)
        values = rng.normal(size=16)[prompts] * between + rng.normal(size=len(prompts))
        low, high = percentile_interval(
            resample_means(values[:, None], draw_weights(prompts, seed=run, resamples=400), prompts)
        )
        held += bool(low[0] <= 0 <= high[0])
        naive += abs(values.mean()) <= 1.96 * values.std() / len(values) ** 0.5
    # Drawing tokens within drawn prompts counts their spread twice: a little too wide where prompts are alike.
    assert held >= 180
    if between:
        assert naive < 160
