"""The published settings are those of Table 9, as the released code runs them."""

import pytest

from armlet import Outward, presets
from armlet.redistribution.errors import ArgumentError


@pytest.mark.parametrize(
    ("model", "task", "policy"),
    [
        ("Qwen/Qwen2.5-Math-1.5B", "GPQA-D", Outward(band=0.15)),
        ("Qwen2.5-Math-7B", "AIME24", Outward(band=0.05, ceiling=0.90)),
        ("qwen2.5-32b-instruct", "gpqa-diamond", Outward(band=0.05, ceiling=0.905)),
        ("Qwen2.5-7B-Instruct", "LiveCodeBench", Outward(band=0.3)),
        ("meta-llama/Llama-3.1-8B-Instruct", "math500", Outward(band=0.32, ceiling=0.90, share=(0.2, 0.25))),
        ("google/gemma-3-27b-it", "AIME2025", Outward(proportion=0.25, ceiling=0.70, ceiling_of="magnitude")),
    ],
)
def test_published_settings(model, task, policy):
    assert presets.published(model, task) == policy


def test_every_row_has_one_setting_for_each_task():
    assert all(len(row) == len(presets.PUBLISHED_TASKS) for row in presets.PUBLISHED_SETTINGS.values())
    used = [setting for row in presets.PUBLISHED_SETTINGS.values() for setting in row if setting]
    assert len(used) == 37


@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        ("gpt-9", "MATH-500", "no published model 'gpt-9'; expected one of Qwen2.5-Math-1.5B"),
        ("Qwen2.5-Math-7B", "MMLU", "no published task 'MMLU'; expected one of GPQA-D"),
        ("Qwen2.5-32B-Instruct", "MATH-500", "did not use ARM for Qwen2.5-32B-Instruct on MATH-500"),
    ],
)
def test_what_was_not_published_is_refused(model, task, message):
    with pytest.raises(ArgumentError, match=message):
        presets.published(model, task)
