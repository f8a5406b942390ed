"""Checks whether a loaded model applies the clamps that its configuration names."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from armlet.attachment.attached import refuse_attached
from armlet.bounds.conform_checks import PartCheck
from armlet.bounds.conform_forced import ForcedExperts, ForcedMlp, forced
from armlet.bounds.conform_natural import Natural, RawPart, watching_raw, watching_sites
from armlet.bounds.conform_parts import Part, find_parts
from armlet.bounds.conform_probe import SiteVerdict, try_clamp
from armlet.bounds.conform_result import Conformity
from armlet.checkpoints.given import Model, NamedModel, check_tokens, known_tokens, load_or_use
from armlet.checkpoints.pretrained import Dtype, default_model
from armlet.layer.capture import run_on_text
from armlet.presentation.interruption import keep_partial, until_interrupted
from armlet.presentation.progress import Tick, progress
from armlet.prompts.questions import BUILT_IN, encode_prompt, prompt_texts
from armlet.redistribution.errors import ArmletError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_MODULE = "the model has no gated MLP there, though the configuration names a clamp"
NO_CALL = "its module did not run for the prompts: other code computes it"
INTERRUPTED = "interrupted"


def conform(
    model: Model | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    prompt: str | Sequence[str] = (),
    dtype: Dtype = "auto",
    device: str | None = None,
) -> Conformity:
    """Checks whether a model applies the clamps of gate and up that its checkpoint was trained with.

    The configuration names them, see `presets.trained`. In each dense MLP, shared expert and routed expert with a
    clamp, the values of gate and of up are set to just below the limit, just above it, and far above it, in the code
    that runs: a clamp is applied if, and only if, the last two give the same output bit for bit, and the first another.
    So a clamp with another limit (by more than 3 %) is detected, too. The prompts show which values need the clamps.

    Args:
        model: a folder, a hub id or a loaded causal language model; SmolLM2-135M-Instruct by default.
        tokenizer: the tokenizer of a loaded model.
        prompt: one or several prompts; built-in ones by default.
        dtype: dtype of the weights: "auto" (the model's), "float32", "bfloat16", "float16" or "float64".
        device: device of the model, such as "cuda"; where a loaded model is, or the CPU.

    Returns:
        Each part of each layer with its clamp, whether it is applied, and its largest values. After Ctrl-C, what was
        finished.

    Raises:
        ArgumentError: an argument is out of range, the configuration has a limit that is not known, or the model cannot
            run on a text alone.
        AlreadyAttachedError: ARM is attached to the model.
        CheckpointError, UnsupportedModelError: the model cannot be loaded, or has no decoder layers.
        KeyboardInterrupt: Ctrl-C, before the model ran a prompt, which shows that it calls the modules.
    """
    texts = prompt_texts(prompt, BUILT_IN)
    opened = load_or_use(default_model() if model is None else model, tokenizer, dtype=dtype, device=device)
    refuse_attached(opened.model, "conform")
    ids = [encode_prompt(opened.tokenizer, text) for text in texts]
    for row in ids:
        check_tokens(opened.tokenizer, row[0].tolist(), known_tokens(opened.model), "prompt")
    return check_clamps(opened, ids)


def check_clamps(opened: NamedModel, prompts: Sequence[Tensor]) -> Conformity:
    """Checks a model without ARM on prompts `[1, s]`; raises the errors of `conform` about it."""
    model = opened.model
    trials = [_Trial(part) for part in find_parts(model, model.config)]
    clamped = [trial for trial in trials if trial.part.clamp]
    with until_interrupted() as interruption:
        if clamped:
            with progress("trying clamps", len(clamped)) as tick:
                for trial in clamped:
                    trial.run(model.dtype)
                    tick()
        with progress("running prompts", 2 * len(prompts)) as tick:
            _run_prompts(opened, trials, prompts, tick)
    interrupted = keep_partial(interruption, any(trial.natural.calls for trial in trials))
    implementation = getattr(model.config.get_text_config(), "_experts_implementation", None)
    routed = any(trial.part.kind == "routed" for trial in trials)
    checks = [trial.check(interrupted) for trial in trials]
    name, kept = opened.name, str(model.dtype).removeprefix("torch.")
    how = implementation if routed else None
    return Conformity(
        name, kept, "transformers", how, len(prompts), sum(map(torch.numel, prompts)), checks, interrupted
    )


@dataclass
class _Trial:
    """One part, and what is known about it so far."""

    part: Part
    raw: RawPart | None = None
    verdicts: tuple[SiteVerdict, ...] = ()
    reason: str = ""
    natural: Natural = field(default_factory=Natural)

    def run(self, dtype: torch.dtype) -> None:
        """Tries the clamp."""
        part = self.part
        assert part.clamp is not None
        if part.module is None:
            self.reason = NO_MODULE
            return
        trial = try_clamp(partial(forced, part.module, dtype), part.clamp)
        self.verdicts, self.reason = trial.verdicts, trial.reason
        if trial.columns and isinstance(trial.module, ForcedMlp | ForcedExperts):
            self.raw = RawPart(trial.module, trial.columns, part.clamp)

    def check(self, interrupted: bool) -> PartCheck:
        """The result. A module that the model does not run shows nothing about what it does."""
        part, natural, verdicts, reason = self.part, self.natural, self.verdicts, self.reason
        if part.clamp and verdicts and not natural.calls:
            verdicts, reason = (), INTERRUPTED if interrupted else NO_CALL
        shares = {site: share for site in natural.beyond if (share := natural.share(site)) is not None}
        return PartCheck(part.layer, part.kind, part.clamp, verdicts, reason, natural.largest, shares)


def _run_prompts(opened: NamedModel, trials: Sequence[_Trial], prompts: Sequence[Tensor], tick: Tick) -> None:
    """Runs the prompts as they are, and once more to read what `attach` can reach, if it can."""
    present = [trial for trial in trials if trial.part.module is not None]
    with ExitStack() as stack:
        for trial in present:
            stack.enter_context(watching_raw(trial.natural, trial.part, trial.raw))
        _run_texts(opened, prompts, tick)
    try:
        with watching_sites(opened.model, [(trial.part, trial.natural) for trial in present]):
            _run_texts(opened, prompts, tick)
    except ArmletError:
        pass  # the values stay unknown, and the table says so: code that ARM cannot be in


def _run_texts(opened: NamedModel, prompts: Sequence[Tensor], tick: Tick) -> None:
    for ids in prompts:
        run_on_text(opened.model, ids)
        tick()
