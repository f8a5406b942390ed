"""Loads a language model and its tokenizer, from a local folder or a hub id, for the command line.

Where transformers raises errors of many kinds or only warns, this raises one error of one line. Nothing is unpickled,
no foreign code is run, and no weight is initialised randomly.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch

from armlet.checkpoints.folder import CheckpointError, Folder, named_folder, one_line_errors, reason
from armlet.redistribution.errors import ArgumentError, description

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_FOLDER = Path("models", "smollm2-135m-instruct")
DEFAULT_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"

WEIGHT_DTYPES = ("float32", "bfloat16", "float16", "float64")
Dtype: TypeAlias = str | torch.dtype
"""One of `WEIGHT_DTYPES` by its name or as torch's dtype, or "auto"; results contain the name."""

Device: TypeAlias = str | torch.device
"""Where a model runs, by its name or as torch's device; results contain the name."""

TEMPLATE_FILE = "chat_template.json"  # of image-text models, whose tokenizer may have no template

TOKENIZER_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
# Not "*.safetensors": repositories often contain the same weights again under other names.
HUB_FILES = ("model*.safetensors", *TOKENIZER_FILES)

SAFE_LOADING: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}


def default_model() -> str:
    """The command line's default model: the demo's folder if it exists here, else its hub id."""
    return str(DEFAULT_FOLDER) if DEFAULT_FOLDER.is_dir() else DEFAULT_ID


def load(
    model_id: str, *, dtype: Dtype = "auto", device: Device | None = None
) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """Loads a model in eval mode, and its tokenizer, from a folder or a hub id (see `named_folder`).

    An image-text model is loaded without its image towers, if transformers has such a class for its configuration.
    The dtype "auto" keeps the checkpoint's dtype; the device None leaves the model on the CPU.

    Raises:
        CheckpointError: there is no such model, or it is incomplete, damaged, pickled or neither a causal language
            model nor an image-text model, or needs its own code.
        ArgumentError: the dtype is unknown, or the device cannot be used here.
    """
    check_device(device)
    weights_dtype = parse_dtype(dtype)
    folder = named_folder(model_id) or download(model_id)
    files = Folder(folder)
    with _quiet():
        config = _load_config(files)
        for file in sorted(set(files.weight_map().values())):
            files.shard(file)  # refuses a file that is missing or damaged
        tokenizer = _load_vocabulary(folder)
        model = _load_weights(folder, config, weights_dtype, device)
    return model, tokenizer


def load_tokenizer(model_id: str) -> "PreTrainedTokenizerBase":
    """Loads only a tokenizer; from a hub, only the repository's small files are downloaded."""
    folder = named_folder(model_id) or download(model_id, TOKENIZER_FILES)
    with _quiet():
        return _load_vocabulary(folder)


def check_device(device: Device | None) -> None:
    """Raises ArgumentError, with the reason, if a device cannot be used here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # the type depends on the backend
        raise ArgumentError(f"device {description(device)} cannot be used here ({reason(error)})") from error


def dtype_name(dtype: Dtype) -> str:
    """The name of the weights' dtype, "auto" for the checkpoint's; raises ArgumentError for any other."""
    name = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype
    if not isinstance(name, str) or name not in ("auto", *WEIGHT_DTYPES):
        raise ArgumentError(f"dtype: expected auto, {', '.join(WEIGHT_DTYPES)}, found {description(name)}")
    return name


def parse_dtype(dtype: Dtype) -> torch.dtype | None:
    """The weights' dtype; None for "auto", which keeps the checkpoint's dtype. Raises the error of `dtype_name`."""
    return getattr(torch, dtype_name(dtype), None)


def download(model_id: str, files: Sequence[str] = HUB_FILES) -> Path:
    """Downloads those files of a hub's model that are not in this machine's cache; returns the model's folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    problem = f"{model_id!r} is not a local folder, and the hub did not provide it: check the name or the network"
    advice = f"; in a checkout of armlet, `make demo` builds {DEFAULT_FOLDER}" if model_id == DEFAULT_ID else ""
    with one_line_errors(problem, advice):
        try:
            return Path(snapshot_download(model_id, allow_patterns=list(files)))
        except LocalEntryNotFoundError as error:  # its message is about the cache; the cause is what happened
            raise (error.__cause__ or error) from None


def _load_config(files: Folder) -> "PreTrainedConfig":
    from transformers import AutoConfig

    config = files.config(lambda: AutoConfig.from_pretrained(files.path, **SAFE_LOADING))
    if _loader(config) is None:
        kinds = "neither a causal language model nor an image-text model"
        raise files.config_refusal(f"model_type {config.model_type!r}, which is {kinds}")
    return config


def _loader(config: "PreTrainedConfig") -> Any:
    """The class of transformers that loads a model of this configuration, which can answer texts; None without one."""
    import transformers as hf

    if type(config) in hf.MODEL_FOR_CAUSAL_LM_MAPPING:
        return hf.AutoModelForCausalLM
    answers = type(config) in hf.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not config.is_encoder_decoder
    return hf.AutoModelForImageTextToText if answers else None


def _load_vocabulary(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    with one_line_errors(f"no tokenizer can be read from {folder}; it needs a whole tokenizer.json"):
        tokenizer = AutoTokenizer.from_pretrained(folder, **SAFE_LOADING)
    # If these files are missing, several families return a tokenizer without a vocabulary instead of an error.
    names = tokenizer.vocab_files_names.values()
    if not any((folder / name).is_file() for name in names):
        raise CheckpointError(f"no tokenizer can be read from {folder}; it needs one of {', '.join(sorted(names))}")
    if tokenizer.chat_template is None and (folder / TEMPLATE_FILE).is_file():
        template = Folder(folder).json(TEMPLATE_FILE).get("chat_template")
        tokenizer.chat_template = template if isinstance(template, str) else None
    return tokenizer


def _load_weights(
    folder: Path, config: "PreTrainedConfig", dtype: torch.dtype | None, device: Device | None
) -> "PreTrainedModel":
    settings = SAFE_LOADING | {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
    with one_line_errors(f"{folder} cannot be loaded as a language model"):
        loaded = _loader(config).from_pretrained(folder, config=config, dtype=dtype or "auto", **settings)
    model, info = cast("tuple[PreTrainedModel, dict[str, set[str]]]", loaded)  # a pair because of output_loading_info
    # transformers initialises these at random with only a warning; a mismatched key comes with its two shapes.
    if missing := sorted(info["missing_keys"] | {name for name, *_ in info["mismatched_keys"]}):
        raise CheckpointError(
            f"{folder} lacks weights of {type(model).__name__} or has them in another shape, {len(missing)} in all: "
            f"{', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}; use a complete checkpoint"
        )
    return model.eval().to(device)  # pyright: ignore[reportArgumentType] - a wrapper hides its `self`


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences transformers' log and progress bars inside the block, and restores both settings after it."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging

    with ExitStack() as restored:  # settings are restored in reverse order
        if are_progress_bars_disabled():
            restored.callback(disable_progress_bars)
        if logging.is_progress_bar_enabled():
            restored.callback(logging.enable_progress_bar)  # also enables the hub's bars
        restored.callback(logging.set_verbosity, logging.get_verbosity())
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        yield
