"""ARM inside vLLM, loaded through an entry point of the group `vllm.general_plugins`: no import, no patched files.

`settings` reads and checks the engine's configuration, `requests` what a request asks for. `seams` lists the functions
of vLLM that armlet wraps, with what they need of vLLM, which `source` finds in its code. `sites` finds the gated MLPs
of the loaded model, `operator` replaces their activation, `mixture_arm` treats mixtures of experts, and `serving` sets
each token's position and strength, when `runners` says what the next forward pass contains. Types of vLLM are only
checked in its own environment.
"""

from armlet.integrations.vllm.seams import wrap_vllm as register

__all__ = ["register"]
