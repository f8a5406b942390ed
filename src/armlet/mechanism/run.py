"""Explains what filler tokens do: runs prompts without and with fillers through the layers, and compares them."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from armlet.attachment.config import layer_indices
from armlet.checkpoints.given import Model
from armlet.checkpoints.pretrained import Dtype, default_model, dtype_name
from armlet.layer.reading import open_model
from armlet.mechanism.layers import make_setup, measure_layers
from armlet.mechanism.records import summarise
from armlet.mechanism.result import Explanation
from armlet.presentation.arguments import LARGEST_SEED, plain_value, text_list, whole_number, whole_numbers
from armlet.presentation.interruption import collect_until_interrupted
from armlet.presentation.progress import progress
from armlet.presentation.terminal import working
from armlet.prompts.fillers import SYSTEM, Position, filler_conditions
from armlet.prompts.questions import BUILT_IN, FORMULAS, prompt_texts
from armlet.redistribution.errors import ArgumentError, description
from armlet.redistribution.policies import parse_policies
from armlet.redistribution.rows import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FILLER, COUNTS, EXPLAINED_POLICY = "/", (0, 10, 25, 40, 55, 70), "outward"  # defaults
LARGEST_COUNT = 99_999


def explain(
    model: Model | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    layers: int | str | Iterable[int] = "all",
    filler: str | Sequence[str] = FILLER,
    count: int | str | Iterable[int] = COUNTS,
    position: Position = "between",
    policy: Policy | str | Sequence[Policy | str] = EXPLAINED_POLICY,
    system: str = SYSTEM,
    prompt: str | Sequence[str] = (),
    seed: int = 0,
    dtype: Dtype = "auto",
    device: str | None = None,
) -> Explanation:
    """Measures filler tokens' effect on attention, gate and near-zero share, compared with a random sentence.

    The layers are those of the model without ARM, also if ARM is attached to a loaded model.

    Args:
        model: a folder, a hub id or a loaded causal language model; SmolLM2-135M-Instruct by default.
        tokenizer: the tokenizer of a loaded model.
        layers: "all", an index from 0, several, or text such as "0,14" or "0-5"; all layers up to the last are run.
        filler: one or several texts whose tokens are repeated.
        count: numbers of filler tokens, as a number, several, or text such as "10,25"; 0, the baseline, is always run.
        position: the fillers' position: "before" the system prompt, "between" it and the question, at the question's
            "end", or at a "random" token of the question.
        policy: one or several policies whose effect on each class of tokens is measured, without filler, as objects or
            as texts such as "outward:band=0.2".
        system: the system prompt.
        prompt: one or several questions; built-in ones by default.
        seed: seed of the random sentences, of keyed noise and of the bootstrap; 0 or more.
        dtype: dtype of the weights: "auto" (the model's), "float32", "bfloat16", "float16", "float64", or as torch's.
        device: device of the layers, such as "cuda"; where the model is by default, or the CPU.

    Returns:
        The changes of each layer, with 95 % intervals over prompts. After Ctrl-C, those of the finished layers.

    Raises:
        ArgumentError: an argument is unknown or out of range, too few tokens come after the filler, or a layer returns
            NaN or Inf.
        CheckpointError, UnsupportedModelError: the model cannot be read, or `Layer1` does not cover it.
        KeyboardInterrupt: Ctrl-C, before the first layer was finished.
    """
    seed, system = whole_number("seed", seed, 0, LARGEST_SEED), plain_value("system", system, str)
    fillers, chosen_layers = filler_conditions(filler_texts(filler), parse_counts(count)), layer_indices(layers)
    selection = None if isinstance(chosen_layers, str) else chosen_layers
    policies, questions = parse_policies(policy), prompt_texts(prompt, BUILT_IN + FORMULAS)
    last = max(selection) if selection else None
    compute = {"dtype": dtype, "device": device}
    opened = open_model(default_model() if model is None else model, tokenizer, last=last, option="layers", **compute)
    setup = make_setup(opened.tokenizer, questions, fillers, policies, system, position, seed)
    wanted = selection or range(opened.options.layer + 1)
    with progress("running layers", len(questions) * (opened.options.layer + 1)) as tick:
        findings, interrupted = collect_until_interrupted(measure_layers(opened.layers(), wanted, setup, tick))
    with working("summarising"):
        records = summarise(findings, setup)
    return Explanation(opened.name, dtype_name(dtype), setup, findings, *records, selection is not None, interrupted)


def filler_texts(filler: str | Sequence[str]) -> list[str]:
    """One or several fillers as a list; raises ArgumentError if there is none."""
    texts = text_list("filler", filler)
    if not texts:
        raise ArgumentError("filler: expected one or several texts, found none")
    return texts


def parse_counts(count: int | str | Iterable[int]) -> list[int]:
    """Numbers of tokens from a number, several, or text such as "0,10,25".

    Raises ArgumentError unless they are whole numbers up to 99999, one of them not 0.
    """
    numbers = whole_numbers("count", count, 0, LARGEST_COUNT, "0,10,25")
    if not any(numbers):
        raise ArgumentError(f"count: expected a number other than 0, which is always run, found {description(count)}")
    return numbers
