"""Load a causal language model and its tokenizer, from a local folder or a hub id, for the command line.

What transformers says in many ways, or only warns of, becomes one clear line here. Nothing is unpickled, no foreign
code is run, and no weight is initialised at random.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from armlet.checkpoints.checkpoint import known_kind, refused
from armlet.checkpoints.folder import CONFIG, CheckpointError, Folder, explained, named_folder, reason, weight_map
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_FOLDER = Path("models", "smollm2-135m-instruct")
DEFAULT_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"

DTYPES = ("float32", "bfloat16", "float16", "float64")

TOKENIZER_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
# A hub folder often holds the same weights again under other names.
HUB_FILES = ("model*.safetensors", *TOKENIZER_FILES)


def default_model() -> str:
    """The model of the command line where none is named: the demo's folder if it is here, else its hub id."""
    return str(DEFAULT_FOLDER) if DEFAULT_FOLDER.is_dir() else DEFAULT_ID


def load(
    model_id: str, *, dtype: str | torch.dtype = "auto", device: str | torch.device | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a model in eval mode, and its tokenizer.

    Args:
        model_id: a folder with config.json, safetensors weights and a tokenizer, or a hub id. What starts with ".",
            "/" or "~", exists here, or has more than one slash is a folder; the hub is not asked for it.
        dtype: of the weights; "auto" keeps the checkpoint's.
        device: where the model goes; None leaves it on the CPU.

    Raises:
        CheckpointError: no such model, or one that is incomplete, damaged, pickled, not a causal language model, or in
            need of code of its own.
        ArgumentError: a device that cannot be used here.
    """
    check_device(device)
    folder = named_folder(model_id) or download(model_id)
    with _quiet():
        config = _config(Folder(folder))
        _check_weights(Folder(folder))
        tokenizer = _tokenizer(folder)
        model = _model(folder, config, dtype, device)
    return model, tokenizer


def load_tokenizer(model_id: str) -> PreTrainedTokenizerBase:
    """Loads a tokenizer alone; of a hub's repository, its small files.

    Args:
        model_id: as in `load`.

    Raises:
        CheckpointError: no such model, or one without a tokenizer.
    """
    folder = named_folder(model_id) or download(model_id, TOKENIZER_FILES)
    with _quiet():
        return _tokenizer(folder)


def check_device(device: str | torch.device | None) -> None:
    """Refuses a device that cannot be used here.

    Raises:
        ArgumentError: says why.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either, by backend
        raise ArgumentError(f"device {str(device)!r} cannot be used here ({reason(error)})") from error


def parse_dtype(name: str) -> torch.dtype | None:
    """A dtype of weights by its name; None for "auto", the checkpoint's.

    Raises:
        ArgumentError: another name.
    """
    if name not in ("auto", *DTYPES):
        raise ArgumentError(f"dtype: expected auto, {', '.join(DTYPES)}, found {name!r}")
    return None if name == "auto" else getattr(torch, name)


def download(model_id: str, files: Sequence[str] = HUB_FILES) -> Path:
    """Brings a model of a hub into the hub's cache here, as far as it is not there; returns its folder.

    Raises:
        CheckpointError: the hub did not give it.
    """
    from huggingface_hub import snapshot_download

    with explained(f"{model_id!r} is no folder here, and the hub did not give it: check the name or the network"):
        return Path(snapshot_download(model_id, allow_patterns=list(files)))


def _config(files: Folder) -> PreTrainedConfig:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    settings = files.json(CONFIG)
    kind = known_kind(files, settings)
    with explained(f"{files.place(CONFIG)} is not a valid configuration of {kind}"):
        config = AutoConfig.from_pretrained(files.path, trust_remote_code=False, local_files_only=True)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise refused(files, settings, f"model_type {kind!r}, which is not a causal language model")
    return config


def _check_weights(files: Folder) -> None:
    for file in sorted(set(weight_map(files).values())):
        files.shard(file)


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    with explained(f"no tokenizer can be read from {folder}; it needs a whole tokenizer.json"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    # Where the files are missing, several families give a tokenizer without a vocabulary instead of an error.
    names = tokenizer.vocab_files_names.values()
    if not any((folder / name).is_file() for name in names):
        raise CheckpointError(f"no tokenizer can be read from {folder}; it needs one of {', '.join(sorted(names))}")
    return tokenizer


def _model(
    folder: Path, config: PreTrainedConfig, dtype: str | torch.dtype, device: str | torch.device | None
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    with explained(f"{folder} cannot be loaded as a causal language model"):
        # Any: the declared result leaves out the pair that output_loading_info asks for.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # so that they are listed in `info`, and refused below by name
            output_loading_info=True,
        )
    model, info = loaded
    _check_complete(folder, model, info)
    return model.eval().to(device)


def _check_complete(folder: Path, model: PreTrainedModel, info: dict[str, Any]) -> None:
    """Transformers initialises at random what it does not find, and only warns."""
    lacking = sorted(info["missing_keys"] | {name for name, *_ in info["mismatched_keys"]})
    if lacking:
        raise CheckpointError(
            f"{folder} lacks weights of {type(model).__name__} or has them in another shape, {len(lacking)} in all: "
            f"{', '.join(lacking[:3])}{', …' if len(lacking) > 3 else ''}; name a complete checkpoint"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences transformers' log and progress bars, and leaves both settings as they were."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    no_hub_bars = are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # which switches the hub's bars on as well
        if no_hub_bars:
            disable_progress_bars()
