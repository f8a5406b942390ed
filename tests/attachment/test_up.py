"""Which linear's output is up, by what a gated MLP's own code does with it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from armlet.attachment.gated_mlps import UpOutput, gated_mlp, up_output

SHOWN = {
    "norm before down": lambda mlp, gate, up: mlp.norm(mlp.act(gate) * up),  # BitNet
    "norm on gate": lambda mlp, gate, up: mlp.act(mlp.norm(gate)) * up,
    "gate over channels": lambda mlp, gate, up: mlp.act(F.relu(gate - gate.std(-1, keepdim=True))) * up,  # Gemma 3n
    "softcap": lambda mlp, gate, up: mlp.act(gate) * torch.tanh(up / 8) * 8,  # Inkling 2
    "clamp and 1": lambda mlp, gate, up: mlp.act(gate) * (up.clamp(-7, 7) + 1),  # gpt-oss
}
NOT_SHOWN = {
    "norm on up": lambda mlp, gate, up: mlp.act(gate) * mlp.norm(up),
    "norm before the product": lambda mlp, gate, up: mlp.act(gate) * mlp.norm(mlp.act(gate) * up),
    "up over channels": lambda mlp, gate, up: mlp.act(gate) * up.cumsum(-1),
    "bent up": lambda mlp, gate, up: mlp.act(gate) * torch.sigmoid(up),
    "no function of gate": lambda _mlp, gate, up: gate * up,
    "sum": lambda mlp, gate, up: mlp.act(gate) + up,
}


class Mlp(nn.Module):
    """A gated MLP with gate and up in two linears or in one, in either order."""

    def __init__(self, combine, fused, up_first):
        super().__init__()
        linears = [nn.Linear(8, 24)] if fused else [nn.Linear(8, 12), nn.Linear(8, 12)]
        for name, linear in zip(("first", "second"), linears, strict=False):
            self.add_module(name, linear)
        self.act, self.norm, self.down = nn.SiLU(), nn.RMSNorm(12), nn.Linear(12, 8)
        self.combine, self.up_first = combine, up_first

    def forward(self, x):
        first, second = (self.first(x), self.second(x)) if hasattr(self, "second") else self.first(x).chunk(2, -1)
        return self.down(self.combine(self, *((second, first) if self.up_first else (first, second))))


def shown(combine, fused, up_first):
    return up_output(gated_mlp(Mlp(combine, fused, up_first)), "down")


@pytest.mark.parametrize("up_first", [False, True], ids=["up second", "up first"])
@pytest.mark.parametrize("combine", SHOWN.values(), ids=SHOWN)
def test_up_is_the_factor_beside_any_function_of_the_gate(combine, up_first):
    assert shown(combine, False, up_first) == UpOutput("first" if up_first else "second")
    assert shown(combine, True, up_first) == UpOutput("first", 0 if up_first else 1)


def test_code_that_asks_for_the_dtype_of_a_linear_shows_up():  # T5's
    class Dtype(Mlp):
        def forward(self, x):
            if isinstance(self.down.weight, torch.Tensor) and x.dtype != self.down.weight.dtype:
                x = x.to(self.down.weight.dtype)
            return super().forward(x)

    mlp = Dtype(lambda mlp, gate, up: mlp.act(gate) * up, fused=False, up_first=False)
    assert up_output(gated_mlp(mlp), "down") == UpOutput("second")


@pytest.mark.parametrize("fused", [False, True], ids=["two linears", "one linear"])
@pytest.mark.parametrize("combine", NOT_SHOWN.values(), ids=NOT_SHOWN)
def test_code_that_does_not_show_up_has_none(combine, fused):
    assert shown(combine, fused, False) is None
