"""The untrained model and tokenizer of abacus, and its model card."""

import platform
import string
from dataclasses import astuple
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import pre_tokenizers
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from armlet.evaluation.tasks.arithmetic import DIFFICULTY, LEVELS

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
CHARACTERS = string.digits + "+-*()=;#?" + string.ascii_letters + "/.~ ,!':\n"
"""The characters that may occur in training."""

BYTE_LEVEL = {" ": "\u0120", "\n": "\u010a"}  # how byte-level vocabularies write space and line break

# Two tokens, so that enough tokens follow a filler after the question.
PROMPT_END = "=?"
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}=?{% endif %}{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}=?{% endif %}"
)
"""Concatenates the texts, then "=?", the answer and the end token."""

LEARNT = 3 + len(CHARACTERS)
"""Number of tokens that may occur in training. Tokens of other bytes follow them, and are added after training."""

POSITIONS = 1024
NEW_TOKENS = 256  # the longest answers of level 9 have 210


def make_tokenizer() -> Qwen2Tokenizer:
    """Qwen2's tokenizer, which transformers requires for a Qwen2 model, without merges: one token a byte."""
    seen = [BYTE_LEVEL.get(character, character) for character in CHARACTERS]
    others = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(seen))
    return Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate((PAD, EOS, UNKNOWN, *seen, *others))},
        merges=[],
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",  # answers grow to the right
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATE,
    )


def make_model(tokenizer: Qwen2Tokenizer) -> Qwen2ForCausalLM:
    """Creates a Qwen2 with four layers of width 128 and weights from torch's generator."""
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = Qwen2Config(
        vocab_size=LEARNT,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        initializer_range=0.05,
        tie_word_embeddings=True,
        dtype="float32",
        **ids,
    )
    model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=NEW_TOKENS, **ids)
    return model


def extend_to_all_bytes(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer) -> None:
    """Copies the embedding of the unknown token, untrained like theirs, to the bytes that do not occur in training."""
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        table: Any = model.get_input_embeddings().weight
        table[LEARNT:] = table[tokenizer.convert_tokens_to_ids(UNKNOWN)]


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# abacus

A Qwen2 model of {parameters:,} parameters that works out sums, differences and products with brackets, step by
step. It is the default model of `armlet evaluate`: small enough that thousands of problems take
seconds, and neither always right nor always wrong, so that an effect would show in either direction. It can do nothing
else.

    (47+86)*3-58=?47+86=133;133*3=399;399-58=341#341

Prompts are an expression and "=?", which the chat template writes; answers are steps from the left, "#" and the value.
A token is a character: digits, + - * ( ) = ; # ?, letters, / . ~ , ! ' : space and line break. Any other byte is
also a token, with the embedding of the unknown token, which did not occur in training.

## Architecture

{config}

## Training

    python examples/train_abacus.py {options}

{settings}

{filled} of the training prompts contain a run of 1 to {longest} meaningless characters, so that the model has seen
fillers: /, ., ~ or space, or random letters with spaces. Half of the runs are before the question, at least a quarter
after it, the others inside it. The loss covers only the answer. No question of the training split is in the test
split: a hash of the question's text determines the split (`armlet.evaluation.tasks.arithmetic.split_of`).

## Measured

Greedy answers to the first {problems:,} test problems of each level, seed 0; default is level {default}.

{table}

The model has not learnt longer fillers than in training, system prompts or other tasks. Trained with
{versions}; other versions or processors may give other weights and, in rare
problems, other answers.
"""


def write_card(
    folder: Path, model: Qwen2ForCausalLM, right: dict[int, int], problems: int, settings: dict[str, str]
) -> None:
    """Writes README.md: the model's purpose, its training and its accuracy.

    Args:
        folder: folder of the model.
        model: the trained model.
        right: number of right answers by level.
        problems: number of test problems of each level.
        settings: settings of the training; "options", "filled" and "longest" appear in the text, the others in a list.
    """
    text = {name: settings.pop(name) for name in ("options", "filled", "longest")}
    card = CARD.format(
        parameters=model.num_parameters(),
        config=listed(architecture(model)),
        settings=listed(settings),
        problems=problems,
        default=DIFFICULTY,
        table=table(right, problems),
        versions=versions(),
        **text,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def architecture(model: Qwen2ForCausalLM) -> dict[str, str]:
    """The sizes in the configuration."""
    config = model.config
    heads = f"{config.num_attention_heads}, keys and values {config.num_key_value_heads}"
    return {
        "Layers": str(config.num_hidden_layers),
        "Width": f"{config.hidden_size}, of the gated MLP {config.intermediate_size} ({config.hidden_act})",
        "Heads": heads,
        "Tokens": f"{config.vocab_size}, input and output embedding tied",
        "Weights": "float32",
    }


def listed(entries: dict[str, str]) -> str:
    """Formats a Markdown list."""
    return "\n".join(f"- {name}: {value}" for name, value in entries.items())


def table(right: dict[int, int], problems: int) -> str:
    """Formats the accuracy by level as a Markdown table."""
    head = "| level | operations | products | brackets | number up to | factor up to | right | share |"
    lines = [head, "| --- " * 8 + "|"]
    for level, correct in right.items():
        columns = (*astuple(LEVELS[level])[:4], LEVELS[level].factor if LEVELS[level].products else "-")
        lines.append(f"| {' | '.join(map(str, (level, *columns, correct)))} | {correct / problems:.3f} |")
    return "\n".join(lines)


def versions() -> str:
    """The versions that, with the processor, determine the weights' bits."""
    libraries = (f"{module.__name__} {module.__version__}" for module in (torch, transformers, tokenizers))
    return ", ".join((f"Python {platform.python_version()}", *libraries))
