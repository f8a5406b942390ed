"""Under tensor parallelism of transformers, ARM moves the values that it moves in one process, on all ranks."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
import transformers as hf
from packaging.version import Version

from armlet import Inward, Noise, Outward, attach
from attached import each_site
from families import prompt, tiny

RANKS = 2
FAMILIES = {"llama": 49, "phi3": 48}
"""The intermediate size; Phi-3 computes the product on each rank, and splits only the weight of down."""
pytestmark = pytest.mark.skipif(
    Version(hf.__version__) < Version("5.24"), reason="an older transformers does not load a part of a model like this"
)


def split_model(family, folder):
    """This rank's part of the tiny model that was saved in a folder."""
    return hf.AutoModelForCausalLM.from_pretrained(
        folder / family, tp_plan="auto", dtype=torch.float32, device_map=None
    ).eval()


def on_one_rank(rank, folder, site):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(RANKS))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=RANKS)
    for family, width in FAMILIES.items():
        whole, split = tiny(family, intermediate_size=width), split_model(family, folder)
        check_values(whole, split, site)
        check_gradients(whole, split, site)
    dist.destroy_process_group()


def check_values(whole, split, site):
    ids = prompt(7, batch=2)
    baseline = split(ids).logits
    for policy in (Outward(share=(0.2, 0.5)), Inward(knee=0.8)):
        arguments = {"layers": "all", "site": site, "noise": Noise(3)}
        with attach(whole, policy, **arguments) as one, attach(split, policy, **arguments) as many:
            for gradients in (True, False):  # without them, transformers takes another way
                with torch.set_grad_enabled(gradients):
                    # Partial sums in another order.
                    torch.testing.assert_close(split(ids).logits, whole(ids).logits, rtol=1e-4, atol=1e-4)
            assert many.report() == one.report()
        assert torch.equal(split(ids).logits, baseline)


def check_gradients(whole, split, site):
    ids = prompt(7, batch=2)
    with attach(whole, Inward(knee=0.8), site=site), attach(split, Inward(knee=0.8), site=site):
        for model in (whole, split):
            model(ids, labels=ids).loss.backward()
    for weight, part in zip(whole.parameters(), split.parameters(), strict=True):
        gradient = part.grad.full_tensor() if hasattr(part.grad, "full_tensor") else part.grad
        torch.testing.assert_close(gradient, weight.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@each_site
def test_ranks_give_the_values_counts_and_gradients_of_one_process(site, tmp_path):
    for family, width in FAMILIES.items():
        tiny(family, intermediate_size=width).save_pretrained(tmp_path / family)
    torch.multiprocessing.spawn(on_one_rank, (tmp_path, site), RANKS)
