"""The figure as code: one decoder layer, what families differ in, and the cache of attention."""

from armlet.layer.cache import KVCache as KVCache
