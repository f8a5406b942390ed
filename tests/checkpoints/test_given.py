"""A model as a caller gives it: its name, its device, and whether its answers are its own."""

from pathlib import Path

import pytest
import torch
from torch import nn

import armlet
from armlet.checkpoints.folder import ABACUS, abacus
from armlet.checkpoints.given import check_loaded, check_running_device, load_or_use, model_name
from armlet.checkpoints.pretrained import load
from armlet.redistribution.errors import ArgumentError
from tiny_checkpoints import save


def test_the_embedded_model_has_one_name_however_its_folder_is_written(tmp_path, monkeypatch):
    link = tmp_path / "link"
    link.symlink_to(abacus())
    monkeypatch.chdir(abacus().parent)
    names = [ABACUS, str(abacus()), f"{abacus()}/", abacus(), link, "./abacus"]
    assert {model_name(name) for name in names} == {ABACUS}
    assert model_name(Path("other/abacus")) == "other/abacus"
    assert model_name("owner/abacus/") == "owner/abacus"


def test_a_device_is_named_and_one_without_values_is_refused():
    assert [check_running_device(device) for device in (None, "cpu", torch.device("cpu"))] == [None, "cpu", "cpu"]
    for device in ("meta", torch.device("meta"), "meta:0"):
        with pytest.raises(ArgumentError, match=r"^device: 'meta.* has no values; use cpu or cuda$"):
            check_running_device(device)


def test_a_module_in_training_mode_is_refused_by_its_name():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).eval()
    check_loaded(model)
    model[1].train()
    with pytest.raises(ArgumentError, match=r"^model: 1 is in training mode, .*; call model\.eval\(\) first$"):
        check_loaded(model)
    with pytest.raises(ArgumentError, match=r"^model: it is in training mode"):
        check_loaded(model.train())


@pytest.mark.slow
@pytest.mark.parametrize("site", ["gate", "product"])
def test_a_model_with_arm_attached_is_not_in_training_mode(tmp_path, site):
    model, tokenizer = load(str(save(tmp_path / "tiny")))
    with armlet.attach(model, "outward", layers="all", site=site):
        assert load_or_use(model, tokenizer).model is model


@pytest.mark.slow
def test_a_device_is_given_as_torch_s_device(tmp_path):
    folder = save(tmp_path / "tiny")
    assert load_or_use(folder, None, device=torch.device("cpu")).model.device.type == "cpu"
