"""Settings of others: those published for `Outward` (arXiv 2510.01032, Table 9), and a model's own clamps (`trained`).

The authors chose the settings of Table 9 on the test sets.
"""

from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.outward import Outward
from armlet.redistribution.trained import trained as trained

PUBLISHED_TASKS = ("GPQA-D", "MATH-500", "AIME24", "AIME25", "HumanEval", "LiveCodeBench")

PUBLISHED_SETTINGS: dict[str, tuple[tuple[float, float] | None, ...]] = {
    "Qwen2.5-Math-1.5B": ((0.15, 0.995), (0.13, 0.995), (0.13, 0.995), (0.13, 0.995), (0.13, 0.995), None),
    "Qwen2.5-Math-7B": ((0.2, 0.995), (0.1, 0.95), (0.05, 0.90), (0.13, 0.995), (0.13, 0.95), None),
    "Qwen2.5-7B-Instruct": ((0.15, 0.995), (0.1, 0.995), None, (0.13, 0.95), (0.05, 0.90), (0.3, 0.995)),
    "Qwen2.5-32B-Instruct": ((0.05, 0.905), None, (0.13, 0.995), (0.05, 0.99), (0.13, 0.995), (0.3, 0.995)),
    "Llama-3.1-8B-Instruct": ((0.45, 0.80), (0.32, 0.90), (0.32, 0.90), None, (0.3, 0.90), (0.3, 0.90)),
    "Gemma-3-4B-it": ((0.5, 0.965), (0.25, 0.85), (0.25, 0.965), (0.25, 0.85), (0.25, 0.965), (0.25, 0.75)),
    "Gemma-3-27B-it": ((0.5, 0.965), (0.25, 0.85), (0.25, 0.85), (0.25, 0.70), (0.25, 0.85), (0.25, 0.85)),
}
"""Band (for Gemma: proportion) and ceiling for each of `PUBLISHED_TASKS`; None if the authors did not use ARM."""

ALIASES = {"gpqadiamond": "gpqad", "gpqa": "gpqad", "aime2024": "aime24", "aime2025": "aime25"}


def published(model_id: str, task: str) -> Outward:
    """Returns the authors' setting for a model and a task, as in their released code.

    Band or proportion and ceiling are from Table 9. Two settings are from the released code, which produced its
    results: Llama's share starts at 0.2 (0.02 in the paper), and Gemma's ceiling is computed from |a|.

    Args:
        model_id: a model of Table 9, with or without its organisation, in any case.
        task: GPQA-D, MATH-500, AIME24, AIME25, HumanEval or LiveCodeBench.

    Raises:
        ArgumentError: the model or the task is not in the table, or the authors did not use ARM there.
    """
    model, column = published_names(model_id, task)
    setting = PUBLISHED_SETTINGS[model][PUBLISHED_TASKS.index(column)]
    if setting is None:
        raise ArgumentError(f"presets: the authors did not use ARM for {model} on {column} (Table 9)")
    amount, ceiling = setting
    if model.startswith("Gemma"):
        return Outward(proportion=amount, ceiling=ceiling, ceiling_of="magnitude")
    return Outward(band=amount, ceiling=ceiling, share=(0.2, 0.25) if model.startswith("Llama") else Outward.share)


def published_names(model_id: str, task: str) -> tuple[str, str]:
    """The names of a model and a task as in Table 9; raises ArgumentError for those that are not there."""
    model = _find_name("model", str(model_id).rsplit("/", 1)[-1], tuple(PUBLISHED_SETTINGS))
    return model, _find_name("task", str(task), PUBLISHED_TASKS)


def is_test_set(task: str, name: str) -> bool:
    """Whether the name of a task or of a dataset says that it is the test set of a task of Table 9.

    GPQA counts as GPQA-D, which is a part of it.
    """
    key = _letters_and_digits(task)
    keys = {key, *(alias for alias, known in ALIASES.items() if known == key)}
    return any(key in _letters_and_digits(name) for key in keys)


def _find_name(kind: str, name: str, names: tuple[str, ...]) -> str:
    names_by_key = {_letters_and_digits(candidate): candidate for candidate in names}
    key = ALIASES.get(_letters_and_digits(name), _letters_and_digits(name))
    if key not in names_by_key:
        raise ArgumentError(f"presets: no published {kind} {name!r}; expected one of {', '.join(names)}")
    return names_by_key[key]


def _letters_and_digits(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
