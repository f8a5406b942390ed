"""ARM inside vLLM, out of tree: an entry point of the group `vllm.general_plugins`, nothing to import or to patch.

`settings` reads what the engine is configured with; `seams` wraps the places of vLLM that ARM needs; `sites` finds the
gated MLPs of the loaded model; `operator` contains the module that replaces their activation; `serving` gives it each
token's position and strength before each forward pass. vLLM has an environment of its own, where its types are known.
"""

from armlet.integrations.vllm.seams import wrap_vllm as register

__all__ = ["register"]
