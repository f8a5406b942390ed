"""Identifies a model: its folder, and a hash of what determines its answers, in files or loaded."""

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from armlet.checkpoints.folder import named_folder
from armlet.checkpoints.pretrained import download
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

HASHED_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""The files that determine a model's answers."""

ORIGIN_KEYS = {"_name_or_path", "name_or_path", "transformers_version"}  # of configurations and models: not of answers

LOADED = "loaded:"
"""Begins the fingerprint of a loaded model, which never equals that of its files."""

PROBE_TEXT = "What is 12 + 3.5?\n\tÉté: {x} 数."
PROBE_TOKENS = 16
"""The fixed text and the number of fixed tokens with which a loaded model and its tokenizer are tried."""

LOGITS = "the logits of a fixed prompt"
"""A place in `model_state`."""

_tokens: "WeakKeyDictionary[object, str]" = WeakKeyDictionary()  # of functions whose content cannot be read


def model_folder(model: str) -> Path:
    """The folder of a model (see `named_folder`); a hub id's is downloaded into the hub's cache."""
    return named_folder(model) or download(model)


def fingerprint(folder: Path) -> str:
    """The sha256 over the names and contents of a model's files, in hexadecimal."""
    total = hashlib.sha256()
    for file in sorted({file for pattern in HASHED_FILES for file in folder.glob(pattern)}):
        with file.open("rb") as content:
            total.update(f"{file.name}\n{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def loaded_fingerprint(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> str:
    """`LOADED`, and the sha256 over what determines a loaded model's answers, in hexadecimal.

    Covers the configurations, of generation too; each module's class, plain attributes, functions, attention
    implementation and hooks; the name, shape, dtype and bytes of each parameter and buffer; the tokenizer; and what
    both do: the float32 bits of the logits of a fixed prompt of `PROBE_TOKENS` tokens, and how `PROBE_TEXT` is encoded,
    decoded and put into the chat template. Equal for two loads of one checkpoint on one machine with one number of
    threads, which may change the last bits. What a user's hook or replaced method does cannot be read, so with one the
    fingerprint is another for another function and in another process.

    Cannot see a change outside weights, configurations and plain attributes that has no effect on these logits and
    texts: one that depends on other tokens, longer prompts, padding, the cache of earlier tokens, or time. A chat
    template that contains the date is not tried. The model, gradients and torch's random state stay as they are, but a
    hook sees one call more.

    Raises ArgumentError if a weight has no values in memory, as an offloaded one.
    """
    configs = [_plain_config(model.config), _plain_config(getattr(model, "generation_config", None))]
    modules = [(name, _module_facts(module)) for name, module in model.named_modules(remove_duplicate=False)]
    text = json.dumps([configs, modules, _tokenizer_facts(tokenizer)], sort_keys=True, default=str)
    total = hashlib.sha256(text.encode())
    tensors = {**dict(model.named_buffers()), **model.state_dict()}  # some buffers are not in the state dict
    for name, tensor in sorted(tensors.items()):
        _hash_tensor(total, name, tensor)
    total.update(probe_logits(model).numpy().tobytes())
    return LOADED + total.hexdigest()


def model_state(model: "PreTrainedModel", *, whole: bool) -> dict[str, str]:
    """What a loaded model is and does, by place, so that a change can be named: equal for equal models.

    The places are torch's default dtype, the modules with their functions and hooks, and the logits of a fixed prompt.
    `whole` adds the configuration, the modules' plain attributes, and each parameter and buffer, of which all bytes are
    read. Without it, values that a model itself sets during a call, as some rotary embeddings do, are no change.

    Raises ArgumentError if `whole`, and a weight has no values in memory, as an offloaded one.
    """
    state = {"torch's default dtype": str(torch.get_default_dtype())}
    for name, module in model.named_modules(remove_duplicate=False):
        kind, *attributes, functions, attention, hooks = _module_facts(module)
        facts = {"class": [kind, attention], "functions": functions, "hooks": hooks}
        facts |= {"attributes": attributes} if whole else {}
        state |= {f"the {fact} of {name or 'the model'}": str(value) for fact, value in facts.items()}
    if whole:
        state["the configuration"] = str(_plain_config(model.config))
        for name, tensor in {**dict(model.named_buffers()), **model.state_dict()}.items():
            total = hashlib.sha256()
            _hash_tensor(total, name, tensor)
            state[name] = total.hexdigest()
    state[LOGITS] = hashlib.sha256(probe_logits(model).numpy().tobytes()).hexdigest()
    return state


def _hash_tensor(total: "hashlib._Hash", name: str, tensor: Tensor) -> None:
    """Adds a tensor's name, shape, dtype and bytes to a hash; raises ArgumentError if it has no values in memory."""
    if tensor.is_meta:
        raise ArgumentError(f"model: {name} has no values in memory; load the whole model, without offloading")
    total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
    flat = tensor.cpu().contiguous().flatten()  # bfloat16 has no numpy dtype, and a scalar no view of its bytes
    total.update(flat.view(torch.uint8).numpy().data)


def probe_logits(model: "PreTrainedModel") -> Tensor:
    """The logits of a fixed prompt, float32 `[PROBE_TOKENS, vocabulary]`; draws in the model are from a fixed seed."""
    size, device = model.config.get_text_config().vocab_size, model.device
    ids = torch.tensor([[n * size // (PROBE_TOKENS + 1) for n in range(1, PROBE_TOKENS + 1)]], device=device)
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return output.logits[0].float().cpu().contiguous()


def _plain_config(config: "PretrainedConfig | GenerationConfig | None") -> dict[str, Any]:
    return {key: value for key, value in (config.to_dict() if config else {}).items() if key not in ORIGIN_KEYS}


def _module_facts(module: nn.Module) -> list[object]:
    """What a module computes apart from its tensors and children, as far as it can be read."""
    public = {name: value for name, value in vars(module).items() if name[0] != "_" and name not in ORIGIN_KEYS}
    plain = {name: value for name, value in public.items() if isinstance(value, bool | int | float | str)}
    functions = {name: function_identity(value) for name, value in public.items() if callable(value)}
    attention = getattr(getattr(module, "config", None), "_attn_implementation", None)
    hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
    users = [function_identity(hook) for hook in hooks if not _qualified_name(hook).startswith("transformers.")]
    return [_qualified_name(type(module)), module.extra_repr(), plain, functions, attention, users]


def function_identity(function: object) -> list[str]:
    """A library's function by its name and a partial one also by its arguments; any other is equal only to itself."""
    if type(function) is partial:
        return [*function_identity(function.func), str(function.args), str(function.keywords)]
    name = _qualified_name(function)
    if name.startswith(("torch", "transformers")) and not hasattr(function, "__wrapped__"):  # functools.wraps lies
        return [name]
    try:
        return [name, _tokens.setdefault(function, uuid4().hex)]
    except TypeError:  # it cannot be recognised later
        return [name, uuid4().hex]


def _qualified_name(value: object) -> str:
    """The module and name of a function or class; of any other object, those of its class."""
    named: Any = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _tokenizer_facts(tokenizer: "PreTrainedTokenizerBase") -> list[object]:
    """How a tokenizer splits and joins text, also of `PROBE_TEXT`; no padding and truncation, which each call sets."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    steps = json.loads(fast.to_str()) if fast else tokenizer.get_vocab()
    rules = {key: value for key, value in steps.items() if not fast or key not in ("padding", "truncation")}
    spaces = getattr(tokenizer, "clean_up_tokenization_spaces", None)
    names = [_qualified_name(type(tokenizer)), tokenizer.special_tokens_map, tokenizer.chat_template, spaces]
    functions = {name: function_identity(value) for name, value in vars(tokenizer).items() if callable(value)}
    ids = tokenizer(PROBE_TEXT)["input_ids"]
    texts = [tokenizer.decode(ids, skip_special_tokens=skip) for skip in (False, True)]
    return [*names, rules, functions, ids, *texts, _templated(tokenizer)]


def _templated(tokenizer: "PreTrainedTokenizerBase") -> object:
    """`PROBE_TEXT` in the chat template, or its error; None without a template or if it contains the date."""
    if tokenizer.chat_template is None or "strftime_now" in str(tokenizer.chat_template):
        return None
    turns = [{"role": "user", "content": PROBE_TEXT}]
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program from the checkpoint, and may raise anything
        return str(error)
