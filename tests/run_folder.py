"""A folder of this run alone for what compilers and libraries keep between processes.

A run that is killed may leave half a file in a cache, and the next one would read it: so no run reads another's.
"""

import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "armlet-tests-"
CACHES = {
    "HF_HOME": "huggingface",
    "HYPOTHESIS_STORAGE_DIRECTORY": "hypothesis",
    "MPLCONFIGDIR": "matplotlib",
    "NUMBA_CACHE_DIR": "numba",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "VLLM_CACHE_ROOT": "vllm",
    "XDG_CACHE_HOME": "cache",
}
"""The variables by which a folder is named, before the library is imported, and what it is called here."""


def use_run_folder() -> Path:
    """Makes the folder and names it to this process and those that it starts; it goes when this process ends."""
    parent = Path(tempfile.gettempdir())
    remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
    for variable, name in CACHES.items():
        os.environ[variable] = str(folder / name)
    atexit.register(_remove, folder, os.getpid())
    return folder


def remove_abandoned(parent: Path) -> None:
    """Removes the folders in `parent` of runs that are no more: one that was killed left its own."""
    for folder in parent.glob(f"{PREFIX}*-*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdecimal() and not _alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(process: int) -> bool:
    with suppress(PermissionError):  # another user's
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # and not a process that was forked from it
        shutil.rmtree(folder, ignore_errors=True)
