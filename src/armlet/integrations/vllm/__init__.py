"""ARM inside vLLM, loaded through an entry point of the group `vllm.general_plugins`: no import, no patched files.

`settings` reads and checks the engine's configuration, and `seams` wraps the functions of vLLM that ARM needs. `sites`
finds the gated MLPs of the loaded model, `operator` replaces their activation, and `serving` sets each token's position
and strength. Types of vLLM are only checked in its own environment.
"""

from armlet.integrations.vllm.seams import wrap_vllm as register

__all__ = ["register"]
