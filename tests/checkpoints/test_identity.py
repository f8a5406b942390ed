"""A model's folder and its hash."""

from armlet.checkpoints.folder import ABACUS, abacus
from armlet.checkpoints.identity import fingerprint, model_folder
from tiny_checkpoints import save


def test_a_weight_changed_is_another_fingerprint(tmp_path):
    one, other = save(tmp_path / "one"), save(tmp_path / "other")
    assert fingerprint(one) == fingerprint(other)
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert fingerprint(one) != fingerprint(other)


def test_abacus_is_the_embedded_folder_and_any_other_name_a_folder_or_hub_id(tmp_path):
    assert model_folder(ABACUS) == abacus()
    assert model_folder(str(save(tmp_path / "tiny"))) == tmp_path / "tiny"
