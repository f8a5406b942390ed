"""Explains what filler tokens do: runs prompts without and with fillers through the layers, and compares them."""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from armlet.attachment.config import layer_indices
from armlet.attachment.sites import UnsupportedModelError
from armlet.checkpoints.given import Model, check_tokens, known_tokens, load_or_use
from armlet.checkpoints.pretrained import Dtype, default_model, dtype_name
from armlet.layer.capture import why_whole_model
from armlet.layer.options import activation_label
from armlet.layer.reading import ChangedModelError, open_model
from armlet.mechanism.layers import LayerFindings, Setup, make_setup, measure_layers
from armlet.mechanism.measure import MIXTURE_GATE
from armlet.mechanism.records import summarise
from armlet.mechanism.result import Explanation
from armlet.mechanism.whole_model import measure_model, readable_layers
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

    The layers are those of the model without ARM, also if ARM is attached to a loaded model. Where `Layer1` does not
    cover a model, or a loaded one computes something else than its configuration says, the whole model runs with eager
    attention, and the same quantities are read where `attach` puts ARM. In a mixture of experts, a token's activated
    gate is those of its routed experts, one after another in the order of experts; shared experts are left out.

    Args:
        model: a folder, a hub id or a loaded language model; SmolLM2-135M-Instruct by default.
        tokenizer: the tokenizer of a loaded model.
        layers: "all", an index from 0, several, or text such as "0,14" or "0-5"; all layers up to the last are run. Of
            "all", layers whose gate or attention cannot be read are left out, and named.
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
        The changes of each layer, with 95 % intervals over prompts. After Ctrl-C, those of the finished layers; a whole
        model finishes all of them at its end.

    Raises:
        ArgumentError: an argument is unknown or out of range, too few tokens come after the filler, or a layer returns
            NaN or Inf.
        CheckpointError, UnsupportedModelError: the model or a selected layer cannot be read.
        KeyboardInterrupt: Ctrl-C, before the first layer was finished.
    """
    seed, system = whole_number("seed", seed, 0, LARGEST_SEED), plain_value("system", system, str)
    fillers, chosen_layers = filler_conditions(filler_texts(filler), parse_counts(count)), layer_indices(layers)
    selection = None if isinstance(chosen_layers, str) else chosen_layers
    policies, questions = parse_policies(policy), prompt_texts(prompt, BUILT_IN + FORMULAS)
    asked = default_model() if model is None else model, tokenizer

    def setup(tokenizer: "PreTrainedTokenizerBase") -> Setup:
        return make_setup(tokenizer, questions, fillers, policies, system, position, seed)

    try:
        measured = _read_layers(*asked, selection, questions, setup, dtype, device)
    except (ChangedModelError, UnsupportedModelError) as error:
        wanted, because = "all" if selection is None else selection, why_whole_model(error)
        measured = _read_model(*asked, wanted, setup, dtype, device, because)
    with working("summarising"):
        records = summarise(measured.findings, measured.setup)
    reading = measured.sentences
    if mixtures := [str(findings.layer) for findings in measured.findings if findings.experts]:
        reading = [*reading, f"layer {', '.join(mixtures)} (a mixture of experts): {MIXTURE_GATE}"]
    end = selection is not None, measured.interrupted, reading, measured.activation
    return Explanation(measured.name, dtype_name(dtype), measured.setup, measured.findings, *records, *end)


class _Measured(NamedTuple):
    name: str
    setup: Setup
    findings: list[LayerFindings]
    interrupted: bool
    activation: str  # its label in the diagram
    sentences: list[str]  # how the layers were read, and which were left out


def _read_layers(
    model: Model,
    tokenizer: "PreTrainedTokenizerBase | None",
    selection: Sequence[int] | None,
    texts: Sequence[str],
    make: Callable[["PreTrainedTokenizerBase"], Setup],
    dtype: Dtype,
    device: str | None,
) -> _Measured:
    """Measures by `Layer1`, one layer in memory at a time."""
    last = max(selection) if selection else None
    opened = open_model(model, tokenizer, dtype=dtype, device=device, last=last, option="layers", texts=texts)
    wanted = selection or range(opened.options.layer + 1)
    setup = make(opened.tokenizer)
    with progress("running layers", len(setup.prompts) * (opened.options.layer + 1)) as tick:
        measured = collect_until_interrupted(measure_layers(opened.layers(), wanted, setup, tick))
    return _Measured(opened.name, setup, *measured, opened.options.activation, [])


def _read_model(
    model: Model,
    tokenizer: "PreTrainedTokenizerBase | None",
    wanted: Sequence[int] | str,
    make: Callable[["PreTrainedTokenizerBase"], Setup],
    dtype: Dtype,
    device: str | None,
    because: str,
) -> _Measured:
    """Measures in the whole model, at the sites of `attach`; because: why not by `Layer1`."""
    opened = load_or_use(model, tokenizer, dtype=dtype, device=device)
    setup = make(opened.tokenizer)
    for row in (*(prompt.ids for prompt in setup.prompts), *chain.from_iterable(setup.tokens)):
        check_tokens(opened.tokenizer, row.tolist(), known_tokens(opened.model), "prompt or filler")
    experts, unread = readable_layers(opened, wanted, setup)
    with progress("running prompts", len(setup.prompts) * (1 + len(setup.fillers))) as tick:
        measured = collect_until_interrupted(measure_model(opened, experts, setup, tick))
    left_out = {why: ", ".join(str(i) for i in unread if unread[i] == why) for why in unread.values()}
    sentences = [f"left out: layer {layers} ({why})" for why, layers in left_out.items()]
    label = activation_label(opened.model.config)
    return _Measured(opened.name, setup, *measured, label, [f"read from the whole model: {because}", *sentences])


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
