"""Load a causal language model and its tokenizer, from a local folder or a hub id, for the command line.

What transformers says in many ways, or only warns of, becomes one clear line here. Nothing is unpickled, no foreign
code is run, and no weight is initialised at random.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import torch

from armlet.redistribution.errors import ArgumentError, ArmletError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_FOLDER = Path("models", "smollm2-135m-instruct")
DEFAULT_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# The weights and whatever a tokenizer may need. A hub folder often holds the same weights again under other names.
HUB_FILES = ["model*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]


class CheckpointError(ArmletError, OSError):
    """A model, or a part of it, that is not there or cannot be read."""


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
    _check_device(device)
    folder = _folder(model_id)
    with _quiet():
        config = _config(folder)
        _check_weights(folder)
        tokenizer = _tokenizer(folder)
        model = _model(folder, config, dtype, device)
    return model, tokenizer


def _check_device(device: str | torch.device | None) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either, by backend
        raise ArgumentError(f"device {str(device)!r} cannot be used here ({_reason(error)})") from error


def _folder(model_id: str) -> Path:
    folder = Path(os.path.expanduser(model_id))  # unlike Path.expanduser, takes an unknown user's name as it is
    if not (folder.exists() or model_id.startswith((".", "/", "~")) or model_id.count("/") > 1):
        return _from_hub(model_id)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise CheckpointError(f"{model_id!r} should be a folder with config.json and {WEIGHTS}; found {found} there")
    return folder


def _from_hub(model_id: str) -> Path:
    from huggingface_hub import snapshot_download

    with _explained(f"{model_id!r} is no folder here, and the hub did not give it: check the name or the network"):
        return Path(snapshot_download(model_id, allow_patterns=HUB_FILES))


def _config(folder: Path) -> PreTrainedConfig:
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    settings = _json(folder / "config.json")
    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise _refused(folder, settings, f"model_type {kind!r}, which this version of transformers does not know")
    with _explained(f"{folder / 'config.json'} is not a valid configuration of {kind}"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise _refused(folder, settings, f"model_type {kind!r}, which is not a causal language model")
    return config


def _refused(folder: Path, settings: dict[str, Any], found: str) -> CheckpointError:
    if "auto_map" in settings:
        return CheckpointError(
            f"{folder} needs Python code of its own (auto_map in config.json), which armlet does not run; "
            "load the model in Python, after reading that code, and call armlet.attach(model, policy)"
        )
    return CheckpointError(f"{folder / 'config.json'} has {found}; name a causal language model")


def _check_weights(folder: Path) -> None:
    from safetensors import SafetensorError, safe_open

    for file in _weight_files(folder):
        if not file.is_file():
            raise CheckpointError(f"{file} is missing, though {INDEX} names it; download the checkpoint again")
        try:
            with safe_open(file, framework="pt"):
                pass  # opening it compares the header with the file's length
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{file} is truncated or damaged ({_reason(error)}); download the checkpoint again"
            ) from error


def _weight_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        return [folder / name for name in _shards(folder / INDEX)]
    pickled = sorted(file.name for file in folder.glob("*.bin"))
    found = f"found {pickled[0]}, and pickle is never read" if pickled else "found no weights"
    raise CheckpointError(f"{folder} has neither {WEIGHTS} nor {INDEX}: {found}; convert or download it as safetensors")


def _shards(index: Path) -> list[str]:
    shards = _json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{index} has no weight_map from weights to files; download the checkpoint again")
    return sorted(set(shards.values()))


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    with _explained(f"no tokenizer can be read from {folder}; it needs a whole tokenizer.json"):
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

    with _explained(f"{folder} cannot be loaded as a causal language model"):
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


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise CheckpointError(f"{file} is missing; name the folder of a whole checkpoint")
    with _explained(f"{file} is not readable as JSON; download the checkpoint again"):
        content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is not a JSON object; download the checkpoint again")
    return content


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns whatever a library raises, of any type and of many lines, into one line that opens with `what`."""
    try:
        yield
    except Exception as error:
        raise CheckpointError(f"{what} ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    return shorten(f"{type(error).__name__}: {error}", 240, placeholder=" …")


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
