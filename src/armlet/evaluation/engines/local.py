"""The local engine: batches of prompts through a Hugging Face model, with and without ARM."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from armlet.attachment.attach import attach
from armlet.attachment.attached import refuse_attached
from armlet.checkpoints.given import Model, known_tokens, load_or_use
from armlet.checkpoints.identity import LOGITS, model_state
from armlet.checkpoints.pretrained import Device, Dtype
from armlet.evaluation.conditions.conditions import AnyTreatment, Condition, Filling
from armlet.evaluation.conditions.interventions import Intervention
from armlet.evaluation.engines.engine import Ask, Engine, Output, Sampling, derived_seed
from armlet.evaluation.engines.likelihood import LogProbabilities, choice_loglikelihoods
from armlet.evaluation.engines.tokens import Tokens, ended, pad
from armlet.presentation.terminal import note, working
from armlet.prompts.generation import Decoding, generate_tokens, padding_token
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Local(Engine):
    """A model in this process (see `load_or_use`); `seed` is for random fillers and their positions.

    Raises:
        CheckpointError, ArgumentError: as `load_or_use`.
        AlreadyAttachedError: ARM is attached to the model, so the baseline would be treated.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        *,
        dtype: Dtype = "auto",
        device: Device | None = None,
        seed: int = 0,
    ) -> None:
        self.named, self.seed = load_or_use(model, tokenizer, dtype=dtype, device=device), seed
        self.model, self.tokenizer = self.named.model, self.named.tokenizer
        refuse_attached(self.model, "evaluate")
        self.tokens = Tokens(self.tokenizer, seed, known_tokens(self.model))
        self._fired: dict[str, object] = {}

    def check(self, treatments: Iterable[AnyTreatment | None], fillings: Iterable[Filling] = ()) -> None:
        """Tries treatments before anything is answered, a user's function on a fixed prompt.

        Raises the errors of `attach` for treatments that the model cannot have, and ArgumentError for a function that
        fails or leaves the model changed, and for fillers with tokens that the model has no embedding for. Notes on
        stderr a function that changes no logit.
        """
        for filling in fillings:
            self.tokens.filler(filling.filler)
        for treatment in treatments:
            if isinstance(treatment, Intervention):
                with working(f"trying {treatment.name}"):
                    self._try(treatment)
            elif treatment is not None:
                attach(self.model, treatment.policy, **treatment.place()).detach()

    def describe(self) -> dict[str, object]:
        """The model's name, weights' hash, dtype and device, the fillers' seed, and the date if its template has it."""
        return {
            "model": self.named.name,
            "sha256": self.named.fingerprint,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": self.model.device.type,
            "seed": self.seed,
            **({"date": self.tokens.date} if self.tokens.date else {}),
        }

    def set_date(self, date: str) -> None:
        """Sets the date that the chat template sees, such as "2026-11-29"."""
        self.tokens.set_date(date)

    def length(self, ask: Ask) -> int:
        """The number of tokens of the prompt without filler."""
        return self.tokens.length(ask)

    def shown_prompt(self, ask: Ask) -> str:
        """The text of the prompt's tokens, with special ones."""
        return self.tokens.shown_prompt(ask)

    def answer(
        self, asks: Sequence[Ask], condition: Condition, sampling: Sampling, *, batch: int, sample: int
    ) -> list[Output]:
        """Returns one answer to each ask, all generated in one batch."""
        padding = padding_token(self.tokenizer, self.tokens.known)
        ids, mask = pad([self.tokens.prompt(ask, condition) for ask in asks], "left", padding)
        filters, seed = {"top_p": sampling.top_p, "top_k": 0}, derived_seed(sampling.seed, batch, sample, bits=63)
        decoding = Decoding(sampling.max_new_tokens, condition.temperature, filters, seed)
        recorder = LogProbabilities() if condition.role == "best-of" else None
        processors = [lambda _, scores: _refuse_nan(condition, scores), *([recorder] if recorder else [])]
        with self._treated(condition, sample):
            answers = generate_tokens(self.model, ids, mask, decoding, padding=padding, processors=processors)
        end_tokens = self.model.generation_config.eos_token_id
        rows = [ended(row, end_tokens) for row in answers[:, ids.shape[1] :].tolist()]
        means = recorder.means(answers, [len(row) for row, _ in rows]) if recorder else [None] * len(rows)
        text = self.tokens.text
        return [Output(text(row), len(row), end, mean) for (row, end), mean in zip(rows, means, strict=True)]

    def score_choices(self, asks: Sequence[Ask], condition: Condition) -> list[list[float]]:
        """Returns the summed log-likelihood of each choice after its prompt."""
        prompts = [self.tokens.prompt(ask, condition) for ask in asks]
        choices = [self.tokens.choices(ask) for ask in asks]
        with torch.no_grad(), self._treated(condition, 0):
            loglikelihoods = choice_loglikelihoods(self.model, prompts, choices, condition.weighing)
        _refuse_nan(condition, torch.tensor([value for group in loglikelihoods for value in group]))
        return loglikelihoods

    def fired(self) -> dict[str, object]:
        """ARM's report of the last call."""
        return self._fired

    @contextmanager
    def _treated(self, condition: Condition, sample: int) -> Iterator[None]:
        self._fired = {}
        if condition.treatment is None:
            yield
            return
        if isinstance(condition.treatment, Intervention):
            with self._intervened(condition.treatment, whole=False):
                yield
            return
        treatment = condition.treatment.for_sample(condition.placebo, sample)
        with attach(self.model, treatment.policy, **treatment.place()) as attachment:
            yield
            self._fired = {str(layer): report for layer, report in attachment.report().items()}

    def _try(self, treatment: Intervention) -> None:
        with self._intervened(treatment, whole=True) as before:
            changed = model_state(self.model, whole=False)[LOGITS] != before[LOGITS]
        if not changed:
            note(f"treatment {treatment.name} changes nothing: no logit of a fixed prompt is different", style="yellow")

    @contextmanager
    def _intervened(self, treatment: Intervention, *, whole: bool) -> Iterator[dict[str, str]]:
        """The model with a user's function; yields the state before, which must also be the state afterwards.

        Raises ArgumentError if it is another one, because the baseline's next answers would be treated.
        """
        before = model_state(self.model, whole=whole)
        with treatment.applied(self.model):
            yield before
        after = model_state(self.model, whole=whole)
        if changed := [place for place in before | after if before.get(place) != after.get(place)]:
            problem = f"changed {changed[0]} and did not restore it, so the baseline would be treated, too"
            raise ArgumentError(f"treatment {treatment.name}: {problem}; undo it after the yield, values from a copy")


def _refuse_nan(condition: Condition, scores: Tensor) -> Tensor:
    """The scores; raises ArgumentError for NaN, of which the choice would be graded as if the model had answered."""
    if scores.isnan().any():
        problem = "the model's logits are NaN, so its answers mean nothing"
        raise ArgumentError(f"condition {condition.name}: {problem}; correct the treatment, or use a wider dtype")
    return scores
