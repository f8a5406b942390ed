"""The figure as code: one decoder layer, the options of model families, and the cache of attention."""

from armlet.layer.parts import KVCache as KVCache
