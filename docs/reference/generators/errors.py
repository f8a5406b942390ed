"""The page of errors: each public class, its cause and its mend, from its docstring."""

import inspect

from armlet import errors

HEADER = """# Errors

Every error that armlet raises on purpose is an `ArmletError`, of `armlet.errors`. Its message is one line: what was
expected, what was found, and what to do. On the command line, that line is all, and the exit code is 2.

```python
import armlet
from armlet import errors

try:
    armlet.load_config("no-such-folder")
except errors.ArmletError as error:
    print(error)
```

"""


def page() -> str:
    """The page."""
    return HEADER + "\n\n".join(map(_section, errors.__all__[1:])) + "\n"


def _section(name: str) -> str:
    cause, mend = cause_and_mend(name)
    return f"## {name}\n\n{cause}\n\n**What to do.** {mend}\n\nIt is also: {_also(name)}."


def cause_and_mend(name: str) -> tuple[str, str]:
    """The first paragraph of its docstring, and the rest."""
    cause, _, mend = inspect.cleandoc(getattr(errors, name).__doc__).partition("\n\n")
    return cause.replace("\n", " "), mend.replace("\n", " ")


def _also(name: str) -> str:
    """The other classes of Python or armlet that it is."""
    bases = getattr(errors, name).__mro__[1:]
    nearest = [base for base in bases if base.__name__ not in ("ArmletError", "Exception", "BaseException", "object")]
    return ", ".join(f"`{base.__name__}`" for base in nearest)
