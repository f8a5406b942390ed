"""The figure as code: one decoder layer, the options of model families, and the attention cache."""

from armlet.layer.parts import KVCache as KVCache
