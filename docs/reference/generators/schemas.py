"""JSON schemas of the files that armlet reads and writes, from the types that it reads and writes them with."""

from typing import Any

from pydantic import TypeAdapter

from armlet.attachment.config import CONFIG_VERSION, SEVERAL_VERSION
from armlet.attachment.origin import ORIGIN_VERSION, Origin
from armlet.attachment.sites import ALL_EXPERTS, EXPERTS, GATE, SITES
from armlet.bounds.extremes import QUANTITIES
from armlet.bounds.limits_measure import Limit
from armlet.bounds.limits_rows import LimitRow, TokenPeak
from armlet.evaluation.engines.engine import Output
from armlet.evaluation.grading.grade import Grade
from armlet.evaluation.report.findings import (
    ChosenAnswers,
    ConditionFindings,
    DiscordantItem,
    LayerActivity,
    NoiseFloor,
    PlannedPower,
    TaskFindings,
    WrittenAnswers,
)
from armlet.evaluation.settings import ConditionSettings, RunSettings, SettingOrigin, TaskSettings
from armlet.evaluation.studies.definition import Claim, Omission, Study, StudyModel, StudyTask, StudyTreatment
from armlet.redistribution.policies import POLICIES, knobs
from armlet.statistics.comparison import Comparison
from armlet.statistics.perplexity import PerplexityRatio
from generators.json_schema import DIALECT, Schema, described, list_of, object_of, references, typed


def schemas() -> dict[str, Schema]:
    """Every schema, by the name of its file in docs/reference/schemas."""
    return {
        "armlet": armlet_json(),
        "data": data_row(),
        "items": journal_line(),
        "limits": limits_json(),
        "manifest": typed(RunSettings, TaskSettings, ConditionSettings, SettingOrigin),
        "report": report_json(),
        "study": typed(Study, StudyModel, StudyTask, StudyTreatment, Claim, Omission),
    }


def armlet_json() -> Schema:
    """An armlet.json of version 1, one placement, or of version 2, several."""
    any_policy: Schema = {"oneOf": references(POLICIES), "unevaluatedProperties": False}
    one = {"title": "version 1", "properties": {"version": {"const": CONFIG_VERSION}}, **any_policy}
    several = {"version": {"const": SEVERAL_VERSION}, "placements": list_of(any_policy, minItems=1)}
    two = {"title": "version 2", **object_of(several, required=[*several])}
    definitions = {
        "placement": _placement(),
        **{name: _policy(kind) for name, kind in POLICIES.items()},
        "origin": _origin(),
    }
    return {"$schema": DIALECT, "title": "armlet.json", "oneOf": [one, two], "$defs": definitions}


def _policy(policy: Any) -> Schema:
    """A placement with the settings of this policy."""
    stated = TypeAdapter(policy).json_schema()["properties"]
    settings = {
        knob.name: {**stated[knob.name], "description": f"{knob.meaning}; {knob.allowed}"}
        for knob in knobs()
        if knob.policy == policy.name
    }
    return {"allOf": [{"$ref": "#/$defs/placement"}], "properties": {"policy": {"const": policy.name}, **settings}}


def _placement() -> Schema:
    """The policy's name, and where it acts: the arguments of `attach`."""
    index = {"type": "integer", "minimum": 0}
    where: Schema = {
        "policy": {"enum": [*POLICIES], "description": "its settings are further keys"},
        "layers": {
            "anyOf": [{"const": "all"}, index, list_of(index, minItems=1)],
            "default": 0,
            "description": "from 0",
        },
        "site": {"enum": [*SITES], "default": GATE, "description": "where ARM acts in a layer"},
        "experts": {"enum": [*EXPERTS], "default": ALL_EXPERTS, "description": "of a mixture of experts"},
        "scope": {"enum": ["token", "sequence", "call"], "default": "token", "description": "of the statistics"},
        "noise": {"enum": ["keyed", "fresh", "midpoint"], "default": "keyed", "description": "the uniform draws"},
        "seed": {"type": "integer", "default": 0, "description": "of keyed noise"},
        "stream": {"type": "integer", "default": 0, "description": "of keyed noise"},
        "origin": {"$ref": "#/$defs/origin", "description": "what chose the setting, if a search or a table did"},
    }
    return object_of(where, required=["policy"], closed=False)


def _origin() -> Schema:
    schema = typed(Origin)
    del schema["$schema"]
    version = {"type": "integer", "const": ORIGIN_VERSION, "description": "of this object's format"}
    return schema | object_of({"version": version, **schema["properties"]}, required=["version", *schema["required"]])


def data_row() -> Schema:
    """A row of a task's JSON Lines file: a question with an answer, a choice, or a program with its tests."""
    text = {"type": "string", "minLength": 1}
    id_ = {"type": ["string", "integer"], "description": "unique in the file; a hash of the row by default"}
    answer = {"type": ["string", "number"], "description": "the right one; of a text with ####, what follows it"}
    written = {
        "id": id_,
        "question": {**text, "description": "what is asked"},
        "answer": answer,
        "solution": {"type": "string", "description": "a worked one, shown if the row is a few-shot example"},
    }
    chosen = {
        "id": id_,
        "context": {"type": "string", "description": "text before the question; it or the question is needed"},
        "question": {"type": "string", "description": "what is asked"},
        "choices": {**list_of(text, minItems=2), "description": "the continuations, scored by their log-likelihood"},
        "gold": {"type": "integer", "minimum": 0, "description": "index of the right choice, from 0"},
    }
    program = {
        "id": id_,
        "prompt": {**text, "description": "the beginning of the program"},
        "test": {**text, "description": "the tests, a function check(candidate)"},
        "entry_point": {**text, "description": "the function that the tests call"},
        "canonical_solution": {"type": "string", "description": "the rest of the program, for few-shot examples"},
    }
    kinds = {
        "question_and_answer": object_of(written, required=["question", "answer"], closed=False),
        "multiple_choice": object_of(chosen, required=["choices", "gold"], closed=False),
        "program": object_of(program, required=["prompt", "test", "entry_point"], closed=False),
    }
    return {"$schema": DIALECT, "title": "a row", "anyOf": references(kinds), "$defs": kinds}


def journal_line() -> Schema:
    """A line of items.jsonl: a record, or the line that closes a batch."""
    identity: Schema = {
        "task": {"type": "string"},
        "condition": {"type": "string", "description": "its name, as in the report"},
        "item": {"type": "string", "description": "the item's id"},
        "sample": {"type": "integer", "description": "from 0"},
        "batch": {"type": "integer", "description": "from 0"},
    }
    answer = {**identity, **described(Output), **described(Grade)}
    choice = {
        **identity,
        "loglikelihoods": {**list_of({"type": "number"}), "description": "of the choices"},
        "extracted": {"type": "string", "description": "index of the most likely choice"},
        "correct": {"type": "boolean"},
        "correct_normalised": {"type": "boolean", "description": "by log-likelihood for each character"},
    }
    closing = {
        "closed": {"type": "array", "description": "task, batch, condition and sample"},
        "items": {"type": "integer", "description": "records of the batch, which are the lines before this one"},
        "arm": {"type": "object", "description": "what ARM did in each layer"},
    }
    shapes = {"written_answer": answer, "choice": choice, "closing_line": closing}
    kinds = {name: object_of(shape, required=[*shape]) for name, shape in shapes.items()}
    return {"$schema": DIALECT, "title": "a line", "anyOf": references(kinds), "$defs": kinds}


def limits_json() -> Schema:
    """What `armlet limits` writes: headroom, limits, and placements for `attach`."""
    ratio, limit = described(PerplexityRatio), described(Limit)
    number: Schema = {"type": "number"}
    factors = {"type": "object", "additionalProperties": object_of({"factor": number, "bits": number})}
    peak = object_of({**described(TokenPeak), "headroom": {**factors, "description": "by format"}})
    missing = {"type": ["number", "null"]}
    layer = {
        "layer": {"type": "integer"},
        **dict.fromkeys(QUANTITIES, peak),
        "nvfp4 zeros": missing,
        "nvfp4 lost": missing,
    }
    told = described(LimitRow)
    row = limit | {name: told[name] for name in ("calibration", "before", "after", "within")}
    row |= dict.fromkeys(("alone", "without", "owed"), object_of(ratio)) | {
        "share": told["share"],
        "recommended": told["recommended"],
    }
    limit_set: Schema = {
        "layers": {**list_of({"type": "integer"}), "description": "those with a limit"},
        "cost": {**object_of(ratio), "description": "ratio of perplexities to the model without limits"},
        "perplexity": number,
        "largest": {**list_of(number), "description": "the largest product of each layer"},
        "over": {**list_of({"type": "integer"}), "description": "layers whose product exceeds the bound"},
        "placements": {**list_of({"type": "object"}), "description": "for `attach`, as in an armlet.json"},
        "swiglu_limits": {**list_of(number), "description": "a clamp of the activated gate for each layer; 0 is none"},
    }
    both = {"anyOf": [object_of(limit_set, required=[*limit_set]), {"type": "null"}]}
    top: Schema = {
        "source": {"type": "string", "description": "the model"},
        "dtype": {"type": "string"},
        "data": {"type": ["string", "object", "null"], "description": "the text; null for the built-in one"},
        "bound": {**number, "description": "what no product may exceed"},
        "interrupted": {"type": "boolean", "description": "Ctrl-C left something out"},
        "layers": {**list_of(object_of(layer, required=["layer"])), "description": "largest values and headroom"},
        "limits": {**list_of(object_of(row, required=[*row])), "description": "the layers that need one"},
        "all": {**both, "description": "all limits together"},
        "recommended": {**both, "description": "those that cost no more than allowed"},
        "figures": {**list_of({"type": "string"}), "description": "paths"},
        "setting": {**list_of({"type": "string"}), "description": "path of the armlet.json"},
    }
    return {"$schema": DIALECT, "title": "limits.json", **object_of(top, required=[*top], closed=False)}


def report_json() -> Schema:
    """What `armlet evaluate` writes."""
    manifest = typed(RunSettings, TaskSettings, ConditionSettings, SettingOrigin)
    definitions = manifest.pop("$defs")
    del manifest["$schema"]
    task = described(TaskFindings)
    parts: dict[str, Schema] = {
        "manifest": manifest,
        "task": object_of(task),
        "condition": object_of(_condition()),
        "comparison": object_of(_comparison()),
        "planned": object_of(described(PlannedPower)),
        "discordant": object_of(described(DiscordantItem)),
        "noise_floor": object_of(described(NoiseFloor)),
    }
    for name in ("conditions", "comparisons"):
        task[name] = {**list_of({"$ref": f"#/$defs/{name[:-1]}"}), "description": task[name].get("description", "")}
    task["planned"] = {"$ref": "#/$defs/planned", "description": "the power of this many items, before the run"}
    task["discordant"] = {**list_of({"$ref": "#/$defs/discordant"}), "description": "items that one side alone answers"}
    task["noise_floor"] = {"anyOf": [{"$ref": "#/$defs/noise_floor"}, {"type": "null"}], "description": "the A/A run"}
    top: Schema = {
        "armlet": {"type": "string", "description": "the version of armlet"},
        "complete": {"type": "boolean", "description": "every item is answered under every condition"},
        "margin": {
            "type": ["number", "null"],
            "description": "the largest difference that would not matter, as a share",
        },
        "verdicts": {**list_of({"type": "string"}), "description": "a sentence for each judged comparison"},
        "tasks": {**list_of({"$ref": "#/$defs/task"}), "description": "those with an answered item"},
        "manifest": {"$ref": "#/$defs/manifest", "description": "the run's settings, as in manifest.json"},
        "search": {"type": "object", "description": "of `confirm`: the search that chose the setting"},
    }
    required = [name for name in top if name != "search"]
    return {
        "$schema": DIALECT,
        "title": "report.json",
        **object_of(top, required=required),
        "$defs": parts | definitions,
    }


def _condition() -> Schema:
    answers = described(WrittenAnswers) | described(ChosenAnswers)
    layers = {"type": "object", "additionalProperties": object_of(described(LayerActivity))}
    stated = described(ConditionFindings)
    del stated["answers"]
    return stated | answers | {"arm": {**layers, "description": "by layer; empty without ARM"}}


def _comparison() -> Schema:
    sides: Schema = {
        "condition": {"type": "string", "description": "the treated side"},
        "against": {"type": "string", "description": "the other side"},
        "judged": {"type": "boolean", "description": "it receives a verdict; controls do not"},
    }
    bound = {"type": ["number", "null"]}
    corrected: Schema = {
        "interval": {**list_of(bound, minItems=2, maxItems=2), "description": "low and high; null is infinite"},
        "verdict": {"type": "string", "description": "for judged comparisons after Holm's correction"},
        "p_holm": {"type": "number", "description": "corrected over all judged comparisons"},
        "p_equivalence_holm": {"type": "number", "description": "the same for the tests of the margin"},
    }
    return sides | described(Comparison) | corrected
