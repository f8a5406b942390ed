"""ARM inside SGLang, loaded through an entry point of the group `sglang.srt.plugins`: no import, no patched files.

`settings` reads and checks the engine's configuration, and `seams` hooks the functions of SGLang that ARM needs.
`sites` finds the gated MLPs of the loaded model, and `serving` sets each token's position and strength. The operator,
the settings and what a request may ask are those of `armlet.integrations.vllm`.
"""

from armlet.integrations.sglang.seams import hook_sglang as register

__all__ = ["register"]
