"""Shows what armlet needs of vLLM, and whether a vLLM has it: `python -m armlet.integrations.vllm [FOLDER]`.

FOLDER is a package `vllm`, for example of an unpacked wheel, by default the installed one. Its source is read, nothing
is imported. Exits with 1 if something is missing.
"""

import sys
from pathlib import Path

from armlet.integrations.vllm.seams import SEAMS
from armlet.integrations.vllm.source import installed_source, missing_places


def seam_lines(source: Path) -> list[tuple[str, str, list[str]]]:
    """Returns when each seam is needed, its place, and what `source` lacks of it."""
    return [(time, seam.place, missing_places(seam.needs, source)) for time, seams in SEAMS.items() for seam in seams]


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else installed_source()
    lines = seam_lines(folder)
    for time, place, missing in lines:
        print(f"{time:16}{place}: {'missing ' + ', '.join(missing) if missing else 'as needed'}")
    sys.exit(any(missing for time, _, missing in lines if time != "repair"))  # a vLLM without it needs none
