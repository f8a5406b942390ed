"""Tunes: searches settings on one part of the items. Confirms: measures the best one on the other part, once."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from armlet.checkpoints.folder import ABACUS
from armlet.checkpoints.given import Model, check_running_device, model_name
from armlet.checkpoints.pretrained import Device, Dtype, dtype_name
from armlet.evaluation.batches import checked_run_folder
from armlet.evaluation.conditions.conditions import Treatment, conditions
from armlet.evaluation.engines.engine import OpenEngine
from armlet.evaluation.engines.local import Local
from armlet.evaluation.options import AnswerOptions, ConditionOptions, refuse_sampling
from armlet.evaluation.plan import servable_conditions
from armlet.evaluation.result import Findings
from armlet.evaluation.run import announce_plan
from armlet.evaluation.search.folder import (
    TEST_FOLDER,
    check_origin,
    confirm_search,
    plan_confirmation,
    plan_tuning,
    read_search,
    record_confirmation,
    run_search,
)
from armlet.evaluation.search.results import Search, SearchArguments
from armlet.evaluation.search.search import Space, candidate_layers, searched_names, stated_settings
from armlet.evaluation.tasks.sources import ARITHMETIC, TaskSource, collect_tasks, task_sources
from armlet.presentation.arguments import (
    LARGEST_SEED,
    given_path,
    output_folder,
    refuse_changed,
    whole_number,
    whole_number_or_none,
)
from armlet.redistribution.errors import ArgumentError
from armlet.redistribution.noise import Noise
from armlet.redistribution.policies import parse_one_policy
from armlet.redistribution.registry import class_in_file
from armlet.redistribution.rows import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tune(
    model: Model | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    policy: Policy | str = "outward",
    search: str | Sequence[str] | None = None,
    layers: int | str | Sequence[int | str | Sequence[int]] = 0,
    scope: str = "token",
    site: str = "gate",
    experts: str = "all",
    trials: int = 20,
    task: TaskSource | Sequence[TaskSource] = ARITHMETIC,
    items: int | None = None,
    difficulty: int | None = None,
    max_new_tokens: int | None = AnswerOptions.max_new_tokens,
    system: str | None = AnswerOptions.system,
    allow_code: bool = AnswerOptions.allow_code,
    batch: int | None = AnswerOptions.batch,
    shots: int = AnswerOptions.shots,
    examples: str | Path | None = AnswerOptions.examples,
    template: str | None = AnswerOptions.template,
    engine: OpenEngine | None = None,
    run: str | Path | None = None,
    seed: int = 0,
    dtype: Dtype = "auto",
    device: Device | None = None,
) -> Search:
    """Searches settings of a policy on one half of the items; `confirm` measures the best one on the other half.

    Args:
        model: a folder, a hub id or a loaded causal language model; by default "abacus", a tiny one for arithmetic.
        tokenizer: the tokenizer of a loaded model.
        policy: the policy; its settings that are in its text or not at their defaults stay fixed.
        search: one or two settings to search, such as "band,ceiling"; by default two that depend on the policy,
            without those that it fixes.
        layers: one or several candidates: an index, several ("0,3"), a range ("0-5") or "all" each.
        scope: values over which statistics are taken, as in `armlet.attach`.
        site: where ARM acts in a layer, as in `armlet.attach`.
        experts: on which experts of a mixture, as in `armlet.attach`.
        trials: number of trials in addition to those of the sensitivity map, which uses the first candidate of layers.
        task: the tasks, as in `evaluate`.
        items: items of each task, as in `evaluate`; about half of them are for tuning.
        difficulty: difficulty of arithmetic.
        max_new_tokens: maximum length of an answer; by default it depends on the task.
        system: the system prompt; by default it depends on the task.
        allow_code: whether model-written programs may run, in a sandbox.
        batch: batch size in items; it may slightly change results.
        shots: number of few-shot examples before each item, as turns of a chat or as text.
        examples: a JSON Lines file with the examples, with rows as of a task, which must not be among the items; of a
            worked solution the whole text is shown.
        template: the text of a question, with "{question}" once; by default the question alone, or in plain text
            "Question: {question}" and, on a line of its own, "Answer:".
        engine: opens another engine than a model in this process, which must answer any treatment; `confirm` needs it,
            too.
        run: the search's folder; by default one in armlet-runs/ named after the search.
        seed: seed of the search, of keyed noise and of random items.
        dtype: dtype of the weights, as in `evaluate`.
        device: device of the model, as in `evaluate`.

    Returns:
        All trials. After Ctrl-C, those that were finished.

    Raises:
        ArgumentError: an argument is unknown or out of range, there are too few items to search and to confirm, or the
            search's test items have been used.
        CheckpointError, UnsupportedModelError, AlreadyAttachedError, RunError: as in `evaluate`.
        KeyboardInterrupt: Ctrl-C, before the first trial was finished.
    """
    prompts = shots, given_path("examples", examples), template
    answers = AnswerOptions(max_new_tokens, system, allow_code, batch, *prompts)
    folder, seed = checked_run_folder(run), whole_number("seed", seed, 0, LARGEST_SEED)
    items, difficulty = whole_number_or_none("items", items, 1), whole_number_or_none("difficulty", difficulty, 0)
    treatment = Treatment(parse_one_policy(policy, scope), 0, scope, Noise(seed), site, experts)
    stated = stated_settings(policy)
    chosen = searched_names(search, treatment.policy, stated), candidate_layers(layers)
    space = Space(treatment, *chosen, whole_number("trials", trials, 0), seed, stated)
    tasks = collect_tasks(task, items, difficulty, seed)
    refuse_sampling(tasks, answers)
    sources = task_sources(task)
    arguments = SearchArguments(
        model=None if model is None else model_name(model),
        task=[source for source in sources if isinstance(source, str)],
        data=[str(source) for source in sources if isinstance(source, Path)],
        items=items,
        difficulty=difficulty,
        **dict[str, Any](vars(answers) | {"examples": examples and str(examples)}),
        seed=seed,
        dtype=dtype_name(dtype),
        device=check_running_device(device),
    )
    plan = plan_tuning(arguments, tasks)
    candidates = [replace(treatment, layers=candidate) for candidate in space.layers]
    if engine:
        loading = {"tokenizer": (tokenizer, None), "dtype": (dtype, "auto"), "device": (device, None)}
        refuse_changed("has no effect, because another engine runs the model", **loading)
        opened = engine(conditions(candidates, [], placebos=False), plan.tasks)
    else:
        opened = Local(ABACUS if model is None else model, tokenizer, dtype=dtype, device=device, seed=seed)
        opened.check(candidates)
    with closing(opened):
        announce_plan(plan)
        return run_search(space, plan, opened, arguments, folder)


def confirm(
    search: Search | str | Path,
    model: Model | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    *,
    task: TaskSource | Sequence[TaskSource] | None = None,
    policy: str | None = None,
    margin: float | None = None,
    engine: OpenEngine | None = None,
    out: str | Path | None = None,
) -> Findings:
    """Measures a search's best setting on its test items, with placebos; possible once, and recorded.

    Args:
        search: the result of `tune`, or its folder.
        model: the search's model if it was passed to `tune` as a loaded one.
        tokenizer: the search's tokenizer if one was passed to `tune`.
        task: all tasks of the search, if some were passed to `tune` as dicts or as a `Task`.
        policy: "file.py:Class" if the search's policy is in a file, which is run; no file is run without it.
        margin: the largest difference that would not matter, in percentage points, as in `evaluate`.
        engine: opens the search's engine, if it was not a model in this process.
        out: folder for the report; by default the search's run on the test items.

    Raises:
        ArgumentError: there is no finished search, its test items have been used, or its model, items or policy
            changed or have to be passed again.
        CheckpointError, RunError: as in `evaluate`.
        KeyboardInterrupt: Ctrl-C, before an item was answered under every condition.
    """
    margin = ConditionOptions(margin=margin).margin
    folder = search.folder if isinstance(search, Search) else search
    if not isinstance(folder, str | Path) or not Path(folder).is_dir():
        raise ArgumentError(f"search: expected a search's folder, as `armlet tune` makes it, found {str(folder)!r}")
    folder = Path(folder)
    result = read_search(folder)
    if policy is not None:
        class_in_file(policy)
    report = output_folder("out", folder / TEST_FOLDER if out is None else out)
    if isinstance(search, Search) and not search.is_same_as(result):
        raise ArgumentError(
            f"search: {folder} now has another search, or other trials; to confirm those, pass the folder"
        )
    arguments = result.arguments
    recorded: list[TaskSource] = [*(arguments.task or ()), *map(Path, arguments.data)]
    if task is None and result.has_items_as_objects:
        raise ArgumentError(
            f"task: items of {folder} were passed as objects; pass all tasks again: confirm(..., task=...)"
        )
    if "vllm" in result.engine and not engine:
        raise ArgumentError(f"{folder}: the search ran in vLLM; pass engine=, or use `armlet confirm`")
    check_origin(folder, result, loaded=tokenizer is not None or not isinstance(model, str | Path | None))
    tasks = collect_tasks(recorded if task is None else task, arguments.items, arguments.difficulty, arguments.seed)
    plan = replace(plan_confirmation(folder, result, tasks, policy), margin=margin)
    if engine:
        loading = {"model": (model, None), "tokenizer": (tokenizer, None)}
        refuse_changed("has no effect, because another engine runs the search's model", **loading)
        plan = replace(plan, conditions=servable_conditions(plan.conditions, plan.tasks, engine)[0])
        opened = engine(plan.conditions, plan.tasks)
    else:
        loading = {} if model is not None else {"dtype": arguments.dtype, "device": arguments.device}
        named = (arguments.model or ABACUS) if model is None else model
        opened = Local(named, tokenizer, seed=arguments.seed, **loading)
    with closing(opened):
        announce_plan(plan)
        findings = confirm_search(folder, result, plan, opened)
    findings.save(report)
    if not findings.interrupted:
        record_confirmation(folder, result, findings)
    return findings
