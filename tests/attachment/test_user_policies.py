"""A policy of one's own in a model and in an armlet.json, which never runs a file that it names."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from armlet import attach, load_config
from armlet.attachment.config import OTHER_KEYS, PLACEMENTS_KEY, ConfigError, limited_layers, parse_config
from armlet.redistribution import registry
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.policies import parse_policy
from armlet.redistribution.policy_class import RESERVED_SETTINGS
from families import prompt, tiny
from user_policies import CLASS, SOFT, install, write_policy


def logits(model, *placement, **arguments):
    with attach(model, *placement, **arguments) as arm:
        values = model(prompt(9)).logits
        assert arm.report()[0]["moved"] > 0
        return values


def test_a_saved_file_is_loaded_by_a_process_that_was_told_of_it(tmp_path, monkeypatch):
    model = tiny()
    with attach(model, f"{SOFT}:share=0.4") as arm:
        expected = model(prompt(9)).logits
        arm.save(tmp_path)
    assert torch.equal(logits(model, **load_config(tmp_path)), expected)
    monkeypatch.setattr(registry, "_classes", {})  # as in another process
    with pytest.raises(ConfigError, match=r"armlet.json: policy: soft_threshold.py:SoftThreshold is in a file"):
        load_config(tmp_path)
    parse_policy(SOFT)
    assert torch.equal(logits(model, **load_config(tmp_path)), expected)


def test_an_armlet_json_of_somebody_else_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_policy(tmp_path, f"from pathlib import Path\nPath('ran').touch()\n{CLASS}")
    for name in ("mine.py:Mine", str(tmp_path / "mine.py:Mine"), "mine.py:Mine:factor=2", "mine.py", "mine:Mine"):
        for extra in ({}, {"sha256": "0" * 64}):
            with pytest.raises(ArgumentError, match=r"^policy: "):
                parse_config({"policy": name, **extra})
    assert not (tmp_path / "ran").exists()


def test_an_installed_policy_is_written_by_its_name(tmp_path, monkeypatch):
    model = tiny()
    install(tmp_path, monkeypatch)
    with attach(model, "soft_threshold:share=0.4", site="product") as arm:
        arm.save(tmp_path)
    content = json.loads((tmp_path / "armlet.json").read_text())
    assert content["policy"] == "soft_threshold"
    assert "sha256" not in content
    assert load_config(tmp_path)["policy"] == parse_policy("soft_threshold:share=0.4")
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="expected one of outward, inward, transport, cut, found 'soft_threshold'"):
        load_config(tmp_path)


@dataclass(frozen=True)
class Halved:
    """A class that no file names."""

    share: tuple[float, float] = (0.1, 0.2)
    strength: float = 1.0
    name: ClassVar[str] = "halved"

    def move(self, rows, draw):
        return rows.values / 2, rows.values != 0


def test_a_class_of_the_session_is_attached_and_updated_and_not_saved(tmp_path):
    model = tiny()
    with attach(model, Halved()) as arm:
        whole = model(prompt(9)).logits
        arm.update(strength=0.5)
        assert arm.policy == Halved(strength=0.5)
        assert not torch.equal(model(prompt(9)).logits, whole)
        with pytest.raises(ArgumentError, match="halved: share must be a number, a word or a pair of numbers"):
            arm.update(share=[1, 2, 3])
        with pytest.raises(ConfigError, match="cannot store Halved, a class of this Python session: register it as an"):
            arm.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_pair_survives_the_file(tmp_path):
    text = write_policy(tmp_path, CLASS.replace("factor: float = 0.5", "pair: tuple = (0, 1)\n    factor: float = 0.5"))
    with attach(tiny(), f"{text}:pair=0.25/0.5") as arm:
        arm.save(tmp_path)
    assert load_config(tmp_path)["policy"].pair == (0.25, 0.5)


def test_settings_with_the_names_of_built_in_ones_are_stored(tmp_path):
    source = CLASS.replace("factor: float", "side: str = 'left'\n    limit: float | None = 3.0\n    factor: float")
    policy = type(parse_policy(write_policy(tmp_path, source)))(side="both", limit=None)
    with attach(tiny(), policy) as arm:
        arm.save(tmp_path)
    assert load_config(tmp_path)["policy"] == policy


def test_strength_zero_changes_no_bit_of_the_model():
    model = tiny()
    baseline = model(prompt(9)).logits
    with attach(model, f"{SOFT}:strength=0", layers="all"):
        assert torch.equal(model(prompt(9)).logits, baseline)


def test_nothing_is_said_of_the_settings_of_a_policy_that_is_not_built_in():
    content = {"policy": "absent", "share": 0.1}
    assert limited_layers(content, {0: {"moved": 1}}) == []
    several = {PLACEMENTS_KEY: [content, {"policy": "cut", "threshold": 1.0, "band": 0.5}]}
    assert len(limited_layers(several, {})) == 1


def test_no_setting_has_the_name_of_another_key_of_an_armlet_json():
    assert {*OTHER_KEYS, PLACEMENTS_KEY, "version"} <= RESERVED_SETTINGS
