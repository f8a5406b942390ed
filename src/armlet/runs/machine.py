"""The machine that a run uses."""

import os
import platform
import re
from contextlib import suppress
from pathlib import Path


def machine() -> dict[str, object]:
    """Properties of this machine that may change the last bits of an answer."""
    import torch

    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
    }


def _processor() -> str:
    with suppress(OSError):
        names = re.search(r"^model name\s*:(.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        return names[1].strip() if names else platform.machine()
    return platform.processor() or platform.machine()
