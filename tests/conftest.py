"""At most two threads, reproducible hypothesis runs, and the data that may lie beside the checkout."""

import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from devices import ON_GPU
from run_folder import use_run_folder

use_run_folder()

torch.set_num_threads(min(2, torch.get_num_threads()))  # one, where `.ci/run` gives the suite one core
# A shell's background jobs ignore Ctrl-C, and so would what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Examples are derived from the test itself: main fails for a reason in main, not for another draw.
settings.register_profile("reproducible", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("reproducible")

ROOT = Path(__file__).parents[1]
MISSING = {} if find_spec("triton") else {"triton interpreter": "Triton is not installed (pip install triton)"}
MISSING |= {} if ON_GPU else {"cuda": "needs an NVIDIA GPU (make gpu)"}
"""Why tests are skipped, by the environment that they need."""


def pytest_runtest_setup(item):
    """Skips tests that need another environment than this one."""
    for marker in item.iter_markers("needs"):
        if marker.args[0] in MISSING:
            pytest.skip(MISSING[marker.args[0]])


@pytest.fixture(autouse=True, scope="session")
def no_lines_of_progress():
    """However slow the machine is, stderr shows what a command has to say and no lines of progress."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("rich") is None:  # as where `make gpu` may run: then nothing shows progress
            yield
            return
        for name in ("terminal.FIRST_LINE_SECONDS", "progress.LINE_SECONDS", "progress.LONG_SECONDS"):
            patch.setattr(f"armlet.presentation.{name}", 1e6)
        yield


@pytest.fixture(scope="session")
def shared():
    """The folder with expected outputs of the published algorithm."""
    folder = ROOT.parent / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip(f"no {folder.name}/golden beside the checkout: the published outputs are not there to compare with")
    return folder


@pytest.fixture(scope="session")
def smollm2_folder():
    """SmolLM2-135M-Instruct, brought by `make models`; `make test` brings it, so there nothing is skipped."""
    folder = ROOT / "models" / "smollm2-135m-instruct"
    if not (folder / "config.json").is_file():
        if os.environ.get("ARMLET_REQUIRE_MODEL"):
            pytest.fail("models/smollm2-135m-instruct is missing: run `make test`")
        pytest.skip("models/smollm2-135m-instruct is missing: `make test` brings it")
    return folder


@pytest.fixture(scope="session")
def smollm2(smollm2_folder):
    """(model, tokenizer) in float32."""
    from armlet.checkpoints.pretrained import load

    return load(str(smollm2_folder), dtype="float32")
