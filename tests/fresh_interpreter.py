"""What a statement loads in a fresh interpreter."""

import subprocess
import sys


def loaded_beyond_torch(statement):
    """Top-level third-party modules that `statement` loads in a fresh interpreter and torch does not."""
    program = (
        "import sys, torch; before = set(sys.modules)\n"
        f"{statement}\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "known = {name.partition('.')[0] for name in before} | set(sys.stdlib_module_names)\n"
        "print(*sorted(new - known))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return run.stdout.split()
