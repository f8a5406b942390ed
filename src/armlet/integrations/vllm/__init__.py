"""ARM inside vLLM, out of tree: an entry point of the group `vllm.general_plugins`, nothing to import or to patch.

The way of a setting: `settings` reads it where the engine is configured; `seams` are the places of vLLM that are
wrapped; `sites` finds the gated MLPs of the loaded model; `operator` is what stands there; `serving` feeds it with
each token's position and strength before each forward pass.
"""

from armlet.integrations.vllm.seams import register

__all__ = ["register"]
