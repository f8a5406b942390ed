"""Tensor parallelism splits the width of an MLP over ranks; ARM gets it whole on each rank, and returns a rank's part.

So statistics are those of the whole row, keyed noise depends on the channel in the whole width, and all ranks report
the same counts.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from armlet.attachment.sites import Site, UnsupportedModelError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def width_mesh(site: Site) -> "DeviceMesh | None":
    """The ranks over which the weight of down is split by its inputs, the width of the MLP; None if it is not split.

    Raises UnsupportedModelError for quantised weights, which do not show how they are split.
    """
    for child in site.mlp.children():
        if getattr(child, "_hf_quantized_needs_local_tp", False):
            raise UnsupportedModelError(
                f"layer {site.layer}: {type(site.mlp).__name__} has quantised weights that are split over ranks, where "
                "ARM cannot see the whole width; load the model without tp_plan, or without quantisation"
            )
        weight: Any = getattr(child, "weight", None)
        for dimension, placement in enumerate(getattr(weight, "placements", ())):
            if weight.dim() == 2 and placement.is_shard(1):
                mesh: DeviceMesh = weight.device_mesh
                return mesh if mesh.mesh_dim_names is None or mesh.ndim == 1 else mesh[mesh.mesh_dim_names[dimension]]
    return None


def whole_width(part: Tensor, mesh: "DeviceMesh", width: int) -> Tensor:
    """All ranks' parts `[..., width / ranks]`, which need not have the same size, as `[..., width]` on each rank."""
    from torch.distributed.tensor import DTensor, Shard

    shape = torch.Size((*part.shape[:-1], width))
    stride = torch.empty(shape, device="meta").stride()
    placements = [Shard(part.dim() - 1)]
    return DTensor.from_local(part, mesh, placements, run_check=False, shape=shape, stride=stride).full_tensor()


def own_part(whole: Tensor, mesh: "DeviceMesh") -> Tensor:
    """This rank's part of `[..., width]`, which is equal on all ranks; gradients of the parts are put together."""
    from torch.distributed.tensor import DTensor, Replicate, Shard

    replicated = DTensor.from_local(whole, mesh, [Replicate()], run_check=False)
    return replicated.redistribute(placements=[Shard(whole.dim() - 1)]).to_local()
