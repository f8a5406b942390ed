"""The local engine: batches of prompts through a Hugging Face model, with and without ARM."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from armlet.evaluation.conditions import Condition
from armlet.evaluation.engine import Ask, Output, Sampling, printable
from armlet.evaluation.likelihood import LogProbabilities, weigh_choices
from armlet.evaluation.padding import pad_left
from armlet.layer.attach import Attachment, attach
from armlet.layer.folder import named_folder
from armlet.layer.pretrained import download, load
from armlet.prompting.fillers import Prompt, filler_tokens, make_plain_prompt, make_prompt
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ABACUS = "abacus"

HASHED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""What decides what a model answers."""


class Local:
    """A model in this process.

    Args:
        model: `ABACUS`, a folder or a hub id.
        dtype: of the weights; "auto" keeps the checkpoint's.
        device: where it runs; None is the CPU.
        seed: of random fillers and places.

    Raises:
        CheckpointError, ArgumentError: as `armlet.layer.pretrained.load`.
    """

    def __init__(self, model: str, *, dtype: str = "auto", device: str | None = None, seed: int = 0) -> None:
        from transformers import GenerationConfig

        self.name, self.dtype, self.seed = model, dtype, seed
        self.folder = abacus() if model == ABACUS else named_folder(model) or download(model)
        self.model, self.tokenizer = load(str(self.folder), dtype=dtype, device=device)
        own: Any = self.model.generation_config
        # Nothing but what the run states decides an answer: no penalty, filter or temperature of the checkpoint's.
        self.model.generation_config = GenerationConfig(
            bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=padding(self.tokenizer)
        )
        self._fired: dict[str, Any] = {}
        self._prompt = lru_cache(maxsize=4096)(self._make_prompt)

    def describe(self) -> dict[str, Any]:
        """Name, weights' hash, dtype, device, and the seed of fillers."""
        return {
            "model": self.name,
            "sha256": fingerprint(self.folder),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": self.model.device.type,
            "seed": self.seed,
        }

    def length(self, ask: Ask) -> int:
        """Tokens of the prompt without filler."""
        return len(self._prompt(ask, "between").ids)

    def answer(
        self, asks: Sequence[Ask], condition: Condition, sampling: Sampling, *, batch: int, sample: int
    ) -> list[Output]:
        """One answer to each ask, all in one batch; the global generator is put back."""
        padded = pad_left([self._tokens(ask, condition) for ask in asks], padding(self.tokenizer))
        ids, mask = (each.to(self.model.device) for each in padded)
        how: dict[str, Any] = {"do_sample": False}
        if condition.temperature:
            how = {"do_sample": True, "temperature": condition.temperature, "top_p": sampling.top_p, "top_k": 0}
        watched = LogProbabilities(ids.shape[1]) if condition.role == "best-of" else None
        if watched:
            from transformers import LogitsProcessorList

            how["logits_processor"] = LogitsProcessorList([watched])
        device = self.model.device
        kept = [] if device.type == "cpu" else [device]
        with torch.random.fork_rng(kept, device_type=device.type), torch.no_grad(), self._treated(condition, sample):
            torch.manual_seed(stream(sampling.seed, batch, sample))
            made: Any = self.model.generate(  # type: ignore[operator]
                ids, attention_mask=mask, max_new_tokens=sampling.max_new_tokens, **how
            )
        rows = [self._cut(row) for row in made[:, ids.shape[1] :].tolist()]
        means = watched.means(made, [len(row) for row, _ in rows]) if watched else [None] * len(rows)
        return [
            Output(printable(str(self.tokenizer.decode(row, skip_special_tokens=True))), len(row), ended, mean)
            for (row, ended), mean in zip(rows, means, strict=True)
        ]

    def weigh(self, asks: Sequence[Ask], condition: Condition) -> list[list[float]]:
        """The summed log-likelihood of each choice behind the prompt."""
        prompts = [self._tokens(ask, condition) for ask in asks]
        choices = [self._continuations(ask) for ask in asks]
        with torch.no_grad(), self._treated(condition, 0):
            return weigh_choices(self.model, prompts, choices, condition.weighing)

    def fired(self) -> dict[str, Any]:
        """ARM's report of the last call."""
        return self._fired

    @contextmanager
    def _treated(self, condition: Condition, sample: int) -> Iterator[Attachment | None]:
        self._fired = {}
        if condition.treatment is None:
            yield None
            return
        with attach(self.model, **condition.treatment.arguments(condition.placebo, sample)) as attachment:
            yield attachment
            self._fired = {str(layer): report for layer, report in attachment.report().items()}

    def _make_prompt(self, ask: Ask, position: Any) -> Prompt:
        problem, seed = ask.problem, (self.seed, ask.number)
        if problem.choices:
            context, question = framed(problem.context, problem.question)
            return make_plain_prompt(self.tokenizer, context, question, position=position, seed=seed)
        return make_prompt(self.tokenizer, problem.question, system=ask.system, position=position, seed=seed)

    def _tokens(self, ask: Ask, condition: Condition) -> Tensor:
        filling = condition.filling
        if filling is None:
            return self._prompt(ask, "between").ids
        filler = filler_tokens(self.tokenizer, filling.filler, seed=self.seed, prompt=ask.number)
        return self._prompt(ask, filling.position).filled(filler)

    def _continuations(self, ask: Ask) -> list[list[int]]:
        """Each choice's tokens, as the tokenizer cuts them behind the prompt."""
        text = "".join(framed(ask.problem.context, ask.problem.question))
        own: Any = self.tokenizer(text)
        wholes: Any = self.tokenizer([f"{text} {choice}" for choice in ask.problem.choices])
        found = [whole[len(own["input_ids"]) :] for whole in wholes["input_ids"]]
        if not all(found):
            empty = ask.problem.choices[found.index([])]
            raise ArgumentError(f"item {ask.problem.id}: the tokenizer gives no token for the choice {empty!r}")
        return found

    def _cut(self, row: list[int]) -> tuple[list[int], bool]:
        """The tokens up to the end, that included, and whether there is one."""
        ends: Any = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        at = next((at for at, token in enumerate(row) if token in ends), None)
        return (row, False) if at is None else (row[: at + 1], True)


def framed(context: str, question: str) -> tuple[str, str]:
    """The text before a choice: a context to go on from, or a question with "Answer:" behind it.

    A passage with a question is the context of that question; both as lm-eval frames such tasks.
    """
    if not question:
        return "", context
    return (f"{context}\n" if context else ""), f"Question: {question}\nAnswer:"


def abacus() -> Path:
    """The folder of the embedded model."""
    return Path(__file__).parent / ABACUS


def padding(tokenizer: "PreTrainedTokenizerBase") -> int:
    """The padding token; it is masked, so that any will do where there is none."""
    known: Any = tokenizer
    return next((token for token in (known.pad_token_id, known.eos_token_id) if token is not None), 0)


def stream(seed: int, batch: int, sample: int) -> int:
    """The seed of a batch's sampling: the same for all conditions, so that they differ by what they are alone."""
    digest = hashlib.sha256(f"{seed}/{batch}/{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % 2**63


def fingerprint(folder: Path) -> str:
    """sha256 over the names and contents of a model's files."""
    total = hashlib.sha256()
    for file in sorted({file for pattern in HASHED for file in folder.glob(pattern)}):
        with file.open("rb") as content:
            total.update(f"{file.name}\n{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
