"""Tokenizes the beginning of a text, without the special tokens that a tokenizer puts at the end of each text."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_beginning(
    tokenizer: "PreTrainedTokenizerBase", text: str, *, special: bool = True
) -> tuple[list[int], list[int]]:
    """The token ids of a text that is followed by an answer or a choice.

    A tokenizer may put special tokens around each text. Those before it (BOS) are what models are trained with; those
    after it (EOS) would say that the text has ended, and a choice would be scored by its end token.

    Args:
        tokenizer: any tokenizer.
        text: the text, with at least one token.
        special: whether to put special tokens before it; a chat template writes them itself.

    Returns:
        The ids, and the index in the text after each token's last character, 0 for special tokens; the indices are
        empty if the tokenizer is slow.
    """
    settings = {"return_special_tokens_mask": True, "return_offsets_mapping": tokenizer.is_fast}
    encoded: Any = tokenizer(text, add_special_tokens=special, **settings)
    count = max((index + 1 for index, mark in enumerate(encoded["special_tokens_mask"]) if not mark), default=0)
    return encoded["input_ids"][:count], [end for _, end in encoded.get("offset_mapping", ())][:count]
