"""What one run of the tests leaves is nothing to another."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from run_folder import CACHES, PREFIX, remove_abandoned

KILLED = """
import os, signal
from pathlib import Path
from run_folder import use_run_folder

use_run_folder()
half = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"], "kernel.so")
half.parent.mkdir()
half.touch()
os.kill(os.getpid(), signal.SIGKILL)
"""

NEXT = """
import os
from run_folder import use_run_folder

print(use_run_folder(), *(os.listdir(os.environ["TMPDIR"])), sep="\\n")
"""


def run(code, folder):
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_every_library_keeps_its_files_in_the_folder_of_the_run():
    import huggingface_hub.constants
    import matplotlib
    import numba
    from hypothesis.configuration import storage_directory
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    places = [huggingface_hub.constants.HF_HOME, matplotlib.get_cachedir(), numba.config.CACHE_DIR, cache_dir()]
    places += [storage_directory().path, *(os.environ[variable] for variable in CACHES)]
    (folder,) = {Path(place).parent for place in places}
    assert folder.name.startswith(f"{PREFIX}{os.getpid()}-")


def test_a_run_that_was_killed_leaves_nothing_to_the_next(tmp_path):
    assert run(KILLED, tmp_path).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert (left / "inductor" / "kernel.so").exists()
    folder, *there = run(NEXT, tmp_path).stdout.split()
    assert there == [Path(folder).name] != [left.name]
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_run_that_goes_on_is_left_alone(tmp_path):
    mine = tmp_path / f"{PREFIX}{os.getpid()}-x"
    mine.mkdir()
    remove_abandoned(tmp_path)
    assert mine.exists()
