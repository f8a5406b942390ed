"""ARM inside vLLM, out of tree: an entry point of the group `vllm.general_plugins`, nothing to import or to patch.

`settings` reads what the engine is configured with, and refuses what cannot be served; `seams` wraps the places of vLLM
that ARM needs; `sites` finds the gated MLPs of the loaded model; `operator` replaces their activation; `serving` gives
it each token's position and strength. vLLM's types are known in its own environment alone.
"""

from armlet.integrations.vllm.seams import wrap_vllm as register

__all__ = ["register"]
