"""One decoder layer, label for label as in the figure: read it with the figure beside it.

    x ──┬─ RMSNorm ─ Q,K,V ─ RoPE ─ Attention ─ Output ─⊕─┬─ RMSNorm ─┬─ gate ─ SiLU ─ ARM ─⊗─ down ─⊕─ y
        └───────────────────────────────────────────────┘ │           └─ up ────────────────┘        │
                                                          └──────────────────────────────────────────┘

Sizes: b sequences; s tokens of this call; S tokens so far, including those in the cache; d = d_model; f = width;
n = heads; g = kv_heads (each serves n / g queries [1]); h = head_dim. W: the part's weight; p: a token's position.

    name               label      equation                              shape            options: which models
    x                  x          embedding of the token, in layer 0    [b, s, d]        embedding_scale: Gemma, Granite
    RMSNorm_1          RMSNorm    x / √(mean x² + eps) · W        [2]   [b, s, d]        pre_norm off: OLMo 2
    Q                  Q          RMSNorm_1 Wᵀ                    [3]   [b, s, n·h]      latent [13]: DeepSeek-V3
    K, V               K, V       RMSNorm_1 Wᵀ                    [3]   [b, s, g·h]      qkv_bias: Qwen2
    RMSNorm_Q, _K      -          RMSNorm of each head, or of all [4]   as Q, as K       qk_norm: Qwen3, Gemma 3, OLMo 2
    RoPE               RoPE       Q and K, pairs rotated by p·ωᵢ  [5]   [b, n + g, s, h] frequencies, interleaved, clip
    Attention_weights  -          softmax(Q Kᵀ · attention_scale) [3]   [b, n, s, S]     softcap [6], sinks, window [7]
    Attention          Attention  Attention_weights V             [3]   [b, s, n·h]
    Output             Output     Attention Wᵀ                    [3]   [b, s, d]        output_bias
    RMSNorm_Output     -          RMSNorm of Output               [6]   [b, s, d]        post_norm: Gemma 2/3, OLMo 2
    add_1              ⊕          x + RMSNorm_Output                    [b, s, d]        residual_scale: Granite
    RMSNorm_2          RMSNorm    RMSNorm of add_1                [2]   [b, s, d]        parallel: Cohere skips it
    gate               gate       RMSNorm_2 Wᵀ                    [8]   [b, s, f]        mlp_bias
    activation         SiLU       gate · σ(gate)                  [8]   [b, s, f]        activation: GELU (Gemma)
    ARM                ARM        redistribute(activation)        [9]   [b, s, f]        absent by default
    up                 up         RMSNorm_2 Wᵀ                    [8]   [b, s, f]        mlp_bias
    multiply           ⊗          ARM · up, value by value        [8]   [b, s, f]
    down               down       multiply Wᵀ                     [8]   [b, s, d]        mlp_bias
    RMSNorm_down       -          RMSNorm of down                 [6]   [b, s, d]        post_norm: Gemma 2/3, OLMo 2
    add_2              ⊕          add_1 + RMSNorm_down                  [b, s, d]        residual_scale: Granite
    y                  y          add_2                                 [b, s, d]

A part that a layer lacks is the identity. `centered` norms are LayerNorm (Cohere, StableLM) [10].

In a mixture of experts [11] the MLP of the figure is one expert of e. Each token passes through k of them, so that gate
to multiply are [b, s, k, f], down is [b, s, k, d], and a row of ARM is one token in one expert. Around the experts:

    router             -          softmax(RMSNorm_2 Wᵀ), or σ     [11]  [b, s, e]        score: σ in DeepSeek-V3
    experts            -          the k with the highest scores   [11]  [b, s, k]        groups: DeepSeek-V3
    weights            -          their scores                    [11]  [b, s, k]        normalized, scale
    routed             -          Σₖ weights · down               [11]  [b, s, d]
    shared_gate, …     -          as gate to down, of one more expert   as without a     shared_width [12]: Qwen2-MoE,
    shared_down                   for all tokens                  [12]  mixture          DeepSeek-V3
    shared_weight      -          σ(RMSNorm_2 Wᵀ), or 1           [12]  [b, s, 1]        shared_weighted: Qwen2-MoE
    mixture            -          routed + shared_weight · shared_down  [b, s, d]        RMSNorm_down reads it

[1] arXiv 2305.13245  [2] 1910.07467  [3] 1706.03762  [4] 2010.04245  [5] 2104.09864  [6] 2408.00118  [7] 2310.06825
[8] 2002.05202  [9] 2510.01032  [10] 1607.06450  [11] 1701.06538  [12] 2401.06066  [13] 2405.04434
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from armlet.attachment.module import ARM
from armlet.attachment.positions import locate
from armlet.attachment.sites import find_decoder
from armlet.checkpoints.checkpoint import Checkpoint, open_checkpoint
from armlet.layer.arguments import check_ids, check_inputs
from armlet.layer.mixture import ExpertLinear, Router, SharedExpert, redistribute_experts
from armlet.layer.options import Options, read_options
from armlet.layer.parts import Add, Attention, KVCache, Multiply, RoPE, make_activation, make_norm, make_qk_norm
from armlet.layer.projections import make_key, make_query, make_value
from armlet.layer.tensors import rename
from armlet.redistribution.errors import ArgumentError, description


class Layer1(nn.Module):
    """The figure's layer, with frozen weights. Created by `from_checkpoint`, `from_model` or `from_tensors`.

    It starts without ARM; `layer.ARM = ARM(policy, width=layer.options.width, layer=layer.options.layer)` adds one, in
    a mixture to every routed expert; `layer.shared.ARM = ARM(policy, width=layer.options.mixture.shared_width, ...)`
    adds one to the shared expert.

    Attributes:
        options: the layer's sizes, and the options of its family.
        embedding: module for `embed` that maps token ids `[b, s]` to rows `[b, s, d]`; None if there is none.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        if not isinstance(options, Options):
            ways = "Layer1.from_checkpoint(a folder or hub id) or Layer1.from_model(a loaded model)"
            raise ArgumentError(f"Layer1: expected Options, found {description(options)}; use {ways}")
        o = self.options = options
        self.embedding: nn.Module | None = None
        self.RMSNorm_1 = make_norm(o, o.pre_norm)
        self.Q, self.K, self.V = make_query(o), make_key(o), make_value(o)
        self.RMSNorm_Q, self.RMSNorm_K = make_qk_norm(o, o.heads), make_qk_norm(o, o.kv_heads)
        self.RoPE = RoPE(o)
        self.Attention = Attention(o)
        self.Output = nn.Linear(o.heads * o.value_dim, o.d_model, bias=o.output_bias)
        self.RMSNorm_Output = make_norm(o, o.post_norm)
        self.add_1 = Add(o)
        self.RMSNorm_2 = make_norm(o, o.pre_norm and not o.parallel)
        self.router = Router(o.d_model, o.mixture) if o.mixture else None
        self.gate = _make_linear(o, o.d_model, o.width)
        self.activation = make_activation(o)
        self.ARM: nn.Module = nn.Identity()
        self.up = _make_linear(o, o.d_model, o.width)
        self.multiply = Multiply(o)
        self.down = _make_linear(o, o.width, o.d_model)
        self.shared = SharedExpert(o) if o.mixture and o.mixture.shared_width else None
        self.shared_weight = nn.Linear(o.d_model, 1, bias=False) if o.mixture and o.mixture.shared_weighted else None
        self.RMSNorm_down = make_norm(o, o.post_norm)
        self.add_2 = Add(o)

    def __setattr__(self, name: str, value: Tensor | nn.Module) -> None:
        if name == "ARM" and not isinstance(value, nn.Module):
            expected = "a module, such as armlet.ARM(policy, width=layer.options.width, layer=layer.options.layer)"
            raise ArgumentError(f"Layer1: ARM: expected {expected}, found {description(value)}")
        super().__setattr__(name, value)

    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        *,
        trace: bool = False,
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Maps x to y, both `[b, s, d]`.

        Args:
            x: embeddings or hidden states of this call's tokens.
            positions: `[b or 1, s]`, each token's position in its text; by default counted from the cache, without
                padding.
            mask: `[b, S]` for all tokens so far, 0 for padding; by default there is no padding.
            cache: an `armlet.layer.KVCache` with the earlier tokens, which this call extends; by default x is the whole
                text.
            trace: also return every tensor of the figure by its name in the glossary, in the order of the flow.

        Raises:
            ArgumentError: x, positions or mask has a wrong shape or dtype, or the cache is not a `KVCache`.
        """
        cache = KVCache() if cache is None else cache
        check_inputs(x, positions, mask, cache, self.options.d_model, self.Output.weight.dtype)
        all_columns = torch.arange(cache.length + x.shape[1], device=x.device)
        columns = all_columns[cache.length :]
        default_positions, valid, _ = locate(columns, mask, None)
        positions = default_positions if positions is None else positions
        t = {"x": x, "RMSNorm_1": self.RMSNorm_1(x)}
        self._attend(t, positions, _visible(columns, all_columns, mask, self.options.window), cache)
        t["add_1"] = self.add_1(x, t["RMSNorm_Output"])
        t["RMSNorm_2"] = self.RMSNorm_2(t["RMSNorm_1"] if self.options.parallel else t["add_1"])
        if self.router is None:
            self._mlp(t, positions, valid)
        else:
            self._mixture(self.router, t, positions, valid)
        t["add_2"] = t["y"] = self.add_2(t["add_1"], t["RMSNorm_down"])
        return (t["y"], t) if trace else t["y"]

    def _attend(self, t: dict[str, Tensor], positions: Tensor, visible: Tensor, cache: KVCache) -> None:
        o = self.options
        t["Q"], t["K"], t["V"] = (part(t["RMSNorm_1"]) for part in (self.Q, self.K, self.V))
        t["RMSNorm_Q"], t["RMSNorm_K"] = self.RMSNorm_Q(t["Q"]), self.RMSNorm_K(t["K"])
        flat = (t["RMSNorm_Q"], t["RMSNorm_K"], t["V"])
        flat = flat if o.clip is None else tuple(tensor.clamp(-o.clip, o.clip) for tensor in flat)
        heads = (o.heads, o.kv_heads, o.kv_heads)
        q, k, v = (rows.unflatten(-1, (count, -1)).transpose(1, 2) for rows, count in zip(flat, heads, strict=True))
        t["RoPE"] = self.RoPE(torch.cat((q, k), dim=1), positions)
        q, k = t["RoPE"].split((o.heads, o.kv_heads), dim=1)
        t["Attention_weights"], t["Attention"] = self.Attention(q, *cache.append(k, v), visible)
        t["Output"] = self.Output(t["Attention"])
        t["RMSNorm_Output"] = self.RMSNorm_Output(t["Output"])

    def _mlp(self, t: dict[str, Tensor], positions: Tensor, valid: Tensor | None) -> None:
        t |= _gated_mlp(self, t["RMSNorm_2"], positions, valid)
        t["RMSNorm_down"] = self.RMSNorm_down(t["down"])

    def _mixture(self, router: Router, t: dict[str, Tensor], positions: Tensor, valid: Tensor | None) -> None:
        x = t["RMSNorm_2"]
        t["router"], t["experts"], t["weights"] = router(x)
        t |= _gated_mlp(self, x, positions, valid, t["experts"])
        t["routed"] = total = (t["weights"][..., None] * t["down"]).sum(-2).to(x.dtype)
        if self.shared is not None:
            shared = _gated_mlp(self.shared, x, positions, valid)
            t |= {f"shared_{name}": tensor for name, tensor in shared.items()}
            t["shared_weight"] = self.shared_weight(x).sigmoid() if self.shared_weight else torch.ones_like(x[..., :1])
            total = t["routed"] + t["shared_weight"] * t["shared_down"]
        t["mixture"] = total
        t["RMSNorm_down"] = self.RMSNorm_down(t["mixture"])

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token ids `[b, s]` → x `[b, s, d]`, the input of the model's layer 0.

        Raises:
            ArgumentError: input_ids are not token ids, an id is outside the vocabulary, or the layer has no embedding.
        """
        if self.embedding is None:
            raise ArgumentError("Layer1: created without an embedding; pass one to from_tensors(..., embedding=...)")
        check_ids(input_ids, self.embedding)
        rows = self.embedding(input_ids).to(self.Output.weight)  # dtype and device
        return rows * rows.new_tensor(self.options.embedding_scale)  # the scale rounded to the rows' dtype, as in Gemma

    @classmethod
    def from_checkpoint(cls, directory_or_id: str | Path | Checkpoint, layer: int = 0) -> "Layer1":
        """Reads one layer, and no other, from a folder or hub repository; `embed` reads the rows of its ids on demand.

        A folder's files are memory-mapped, and must not be written to while the layer is in use.

        Raises:
            CheckpointError: the checkpoint does not exist or cannot be read.
            UnsupportedModelError, ArgumentError: as in `from_tensors`.
        """
        if not isinstance(directory_or_id, str | Path | Checkpoint):
            advice = "use Layer1.from_model for a loaded model"
            raise ArgumentError(f"Layer1: expected a folder or hub id, found {description(directory_or_id)}; {advice}")
        checkpoint = open_checkpoint(directory_or_id)
        read_options(checkpoint.config, layer)  # refuses a configuration before any header is read,
        cls.from_tensors(checkpoint.config, checkpoint.shapes(layer), layer)  # and shapes before any tensor is read
        loaded = cls.from_tensors(checkpoint.config, checkpoint.read(layer), layer)
        loaded.embedding = checkpoint.rows
        return loaded

    @classmethod
    def from_model(cls, model: nn.Module, layer: int = 0) -> "Layer1":
        """Copies one layer and the embedding of a Hugging Face causal LM, but not an attached ARM.

        Raises the errors of `from_tensors`.
        """
        if not isinstance(model, nn.Module):
            advice = "use Layer1.from_checkpoint for a folder or hub id"
            raise ArgumentError(f"Layer1: expected a loaded model, found {description(model)}; {advice}")
        source: Any = model
        config = getattr(model, "config", None)
        read_options(config, layer)  # refuses a layer that the next line could not find
        tensors = {name: tensor.clone() for name, tensor in find_decoder(model)[1][layer].state_dict().items()}
        return cls.from_tensors(config, tensors, layer, source.get_input_embeddings().weight.detach().clone())

    @classmethod
    def from_tensors(
        cls, config: Any, tensors: Mapping[str, Tensor], layer: int = 0, embedding: Tensor | None = None
    ) -> "Layer1":
        """Creates a layer from a checkpoint's tensors, without copying them (but one of DeepSeek-V3, for K and V).

        Args:
            config: the model's Hugging Face configuration.
            tensors: the layer's tensors by their names after "model.layers.N.", such as "mlp.up_proj.weight".
            layer: N, counted from 0.
            embedding: the rows `[vocabulary, d]` for `embed`.

        Raises:
            UnsupportedModelError: `Layer1` does not cover the family or an option, or a tensor is missing, unknown or
                has a wrong shape.
            ArgumentError: there is no such layer.
        """
        options = read_options(config, layer)
        if not isinstance(tensors, Mapping):
            raise ArgumentError(f"Layer1: expected tensors by their names, found {description(tensors)}")
        if embedding is not None and not (isinstance(embedding, Tensor) and embedding.dim() == 2):
            raise ArgumentError(f"Layer1: expected an embedding [vocabulary, d_model], found {description(embedding)}")
        with torch.device("meta"):  # no memory, no initialisation: the tensors replace the parameters
            loaded = cls(options)
        loaded.load_state_dict(rename(options, tensors, loaded.state_dict()), assign=True)
        loaded.embedding = None if embedding is None else nn.Embedding.from_pretrained(embedding)
        return loaded.requires_grad_(False)


def _make_linear(options: Options, inputs: int, outputs: int) -> nn.Module:
    """Creates gate, up or down: one linear map, or one for each expert."""
    if options.mixture:
        return ExpertLinear(options.mixture.experts, inputs, outputs, options.mixture.bias)
    return nn.Linear(inputs, outputs, bias=options.mlp_bias)


def _gated_mlp(
    mlp: Any, x: Tensor, positions: Tensor, valid: Tensor | None, experts: Tensor | None = None
) -> dict[str, Tensor]:
    """The tensors from gate to down, in the order of the flow, of an MLP, or of the chosen experts `[b, s, k]`."""
    chosen = () if experts is None else (experts,)
    t = {"gate": mlp.gate(x, *chosen)}
    t["activation"] = a = mlp.activation(t["gate"])
    if not isinstance(mlp.ARM, ARM):
        t["ARM"] = mlp.ARM(a)
    elif experts is None:
        t["ARM"] = mlp.ARM(a, positions, valid)
    else:
        t["ARM"] = redistribute_experts(mlp.ARM, a, experts, len(mlp.gate), positions, valid)
    t["up"] = mlp.up(x, *chosen)
    t["multiply"] = mlp.multiply(t["ARM"], t["up"])
    t["down"] = mlp.down(t["multiply"], *chosen)
    return t


def _visible(columns: Tensor, all_columns: Tensor, mask: Tensor | None, window: int | None) -> Tensor:
    """The attention mask of this call's `columns [s]` over `all_columns [S]`: bool `[b or 1, 1, s, S]`."""
    distance = columns[:, None] - all_columns
    causal = (distance >= 0) & (distance < (window or len(all_columns)))
    return causal[None, None] if mask is None else causal & (mask != 0)[:, None, None]
