"""Reads and writes `armlet.json`: the arguments of `attach`, as versioned and validated JSON."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, SupportsIndex, TypedDict, TypeVar, cast

from armlet.attachment.origin import ORIGIN_KEY, Origin, parse_origin
from armlet.attachment.sites import ALL_EXPERTS, GATE, check_experts, check_site
from armlet.presentation.arguments import required_path, several, whole_number
from armlet.presentation.files import json_text
from armlet.redistribution.arguments import check_policy
from armlet.redistribution.built_in import BUILT_IN_POLICIES, POLICIES
from armlet.redistribution.errors import ArgumentError, ArmletError, description
from armlet.redistribution.near_zero import limited_by_share
from armlet.redistribution.noise import Noise, Source
from armlet.redistribution.policies import make_policy, settings, without_effect
from armlet.redistribution.registry import GROUP, is_in_session, stored_name
from armlet.redistribution.rows import Policy

ARMLET_FILE = "armlet.json"
CONFIG_VERSION = 1  # of a file with one placement
SEVERAL_VERSION = 2  # of a file with a list of placements
MAX_RANGE_LENGTH = len("9999-9999")
OTHER_KEYS = ("policy", "sha256", "layers", "site", "experts", "scope", "noise", "seed", "stream", ORIGIN_KEY)
"""The keys of a placement other than the policy's settings."""

PLACEMENTS_KEY = "placements"

LATER_DEFAULTS = {"limit": None, "side": "both"}
"""Settings of built-in policies that older versions cannot read: a file states them only where they differ."""

Parsed = TypeVar("Parsed")


class ConfigError(ArmletError, ValueError):
    """A configuration that cannot be read or written.

    The message names the file, the place in it, and what is expected there. A newer version needs a newer armlet.
    """


class AttachArguments(TypedDict):
    """The arguments of `attach()` for one placement; `site` may be absent if "gate", `experts` if "all"."""

    policy: Policy
    layers: int | list[int] | str
    scope: str
    noise: Source
    site: NotRequired[str]
    experts: NotRequired[str]


class SeveralPlacements(TypedDict):
    """The arguments of `attach()` for several placements."""

    policy: list[AttachArguments]


def setting_file(folder: Path, *settings: Mapping[str, object]) -> Path:
    """The path of the armlet.json that a result writes into a folder.

    Raises ArgumentError if the folder has one with another content than one of these settings.
    """
    path = folder / ARMLET_FILE
    if path.is_file() and path.read_bytes() not in [json_text(content).encode() for content in settings]:
        raise ArgumentError(f"{path}: exists and is not this result's setting; move it, or use another directory")
    return path


def parse_layers(text: str) -> list[int] | str:
    """Parses "all", or indices and inclusive ranges such as "0", "0,3" or "0-5,8"; raises ArgumentError otherwise."""
    if text == "all":
        return text
    layers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        digits = first.isdecimal() and (not dash or last.isdecimal()) and part.isascii()
        if not digits or len(part) > MAX_RANGE_LENGTH:
            raise ArgumentError(f"layers: expected indices such as 0 or 0,3 or 0-5, or all, found {description(text)}")
        layers += range(int(first), int(last or first) + 1)
        if dash and int(last) < int(first):
            raise ArgumentError(f"layers: the range {part} is empty; write {last}-{first}")
    return layers


def layer_indices(layers: object) -> list[int] | str:
    """The distinct indices, ascending, of an index, several, a range, or text (see `parse_layers`), or "all".

    Raises ArgumentError if there is none, or one is no index; the number of the model's layers is not known here.
    """
    if isinstance(layers, str):
        layers = parse_layers(layers)
    if isinstance(layers, str):
        return layers
    if not isinstance(layers, Iterable | SupportsIndex) or isinstance(layers, Mapping):
        expected = 'an index from 0, several, a range, or text such as "0,3" or "0-5" or "all"'
        raise ArgumentError(f"layers: expected {expected}, found {description(layers)}")
    indices = {whole_number("layers", layer, 0) for layer in several(layers)}
    if not indices:
        raise ArgumentError("layers: expected at least one layer, found none")
    return sorted(indices)


def describe(
    policy: Policy, layers: Sequence[int] | str, scope: str, noise: Source, site: str = GATE, experts: str = ALL_EXPERTS
) -> dict[str, object]:
    """Returns the content of an `armlet.json` with one placement.

    A policy's class in a file is named with the file's sha256, by which `parse_config` recognises it.

    Raises ConfigError if the noise is a tensor or has a generator.
    """
    if noise.kind == "explicit" or getattr(noise, "generator", None) is not None:
        raise ConfigError(f"{ARMLET_FILE} cannot store noise from a tensor or a generator: use Noise(seed)")
    check_site(site)
    check_experts(experts)
    later = LATER_DEFAULTS if type(policy) in BUILT_IN_POLICIES else {}
    stated = {name: value for name, value in settings(policy).items() if name not in later or value != later[name]}
    content = {"version": CONFIG_VERSION, **stored_name(policy), **stated}
    content |= {"layers": layers if isinstance(layers, str) else list(layers)}
    content |= {} if site == GATE else {"site": site}
    content |= {} if experts == ALL_EXPERTS else {"experts": experts}
    return content | {"scope": scope, "noise": noise.kind} | (settings(noise) if noise.kind == "keyed" else {})


def storing_problem(content: Mapping[str, Any]) -> str | None:
    """Why no armlet.json can have this content: a class in it is in this Python session alone; None if it can."""
    for placement in content.get(PLACEMENTS_KEY, [content]):
        if is_in_session(placement):
            problem = f"{ARMLET_FILE} cannot store {placement['policy']}, a class of this Python session"
            return f"{problem}: register it as an entry point of {GROUP}, or load it as file.py:Class"
    return None


def several_placements(contents: Iterable[Mapping[str, object]]) -> dict[str, object]:
    """Returns the content of an `armlet.json` with several placements, from the contents of files with one each."""
    placements = [{key: value for key, value in content.items() if key != "version"} for content in contents]
    return {"version": SEVERAL_VERSION, PLACEMENTS_KEY: placements}


def load_config(directory_or_file: str | Path) -> AttachArguments | SeveralPlacements:
    """Reads the arguments of `attach()` from an `armlet.json`: `attach(model, **load_config(directory))`.

    Of several placements, `policy` is the list of their arguments. An origin of the setting is not included: see
    `load_origin`.

    No file that an armlet.json names is ever run. A policy in a Python file is taken only if this process has loaded
    the same file before, as by `parse_policy("file.py:Class")`; a registered one needs its package.

    Raises:
        ConfigError: a missing file, invalid JSON, a newer version, unknown keys or values out of range; names the file.
        ArgumentError: not a path.
    """
    return _read_config(directory_or_file, parse_config)


def all_placements(arguments: AttachArguments | SeveralPlacements) -> list[AttachArguments]:
    """The placements of a configuration, one or several."""
    policy = arguments["policy"]
    return policy if isinstance(policy, list) else [cast("AttachArguments", arguments)]


def load_origin(directory_or_file: str | Path) -> Origin | None:
    """Reads from an `armlet.json` what chose its setting; None if the file does not say. Raises as `load_config`."""
    return _read_config(
        directory_or_file, lambda content: parse_config(content) and parse_origin(content.get(ORIGIN_KEY))
    )


def _read_config(directory_or_file: str | Path, parse: Callable[[Any], Parsed]) -> Parsed:
    path = required_path("path", directory_or_file)
    path = path / ARMLET_FILE if path.is_dir() else path
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: is not JSON (line {error.lineno}: {error.msg})") from error
    except (ArmletError, ValueError, RecursionError) as error:  # not UTF-8, or a number with thousands of digits
        raise ConfigError(f"{path}: {error}") from error


def parse_config(content: object) -> AttachArguments | SeveralPlacements:
    """Parses an `armlet.json`, in which all but `policy` has a default; raises ConfigError or ArgumentError."""
    if not isinstance(content, dict):
        raise ConfigError(f"expected an object, found {type(content).__name__}")
    version = content.get("version", CONFIG_VERSION)
    if type(version) is not int or version < 1:
        raise ConfigError(f"version must be an integer of at least 1, found {version!r}")
    if version > SEVERAL_VERSION:
        raise ConfigError(f"has version {version}, but this armlet reads up to {SEVERAL_VERSION}: upgrade armlet")
    if version == SEVERAL_VERSION:
        return _parse_several(content)
    return _parse_placement({key: value for key, value in content.items() if key != "version"})


def _parse_several(content: Mapping[str, object]) -> AttachArguments | SeveralPlacements:
    placements = content.get(PLACEMENTS_KEY)
    if set(content) != {"version", PLACEMENTS_KEY} or not (isinstance(placements, list) and placements):
        expected = f"version and {PLACEMENTS_KEY}, a list with at least one"
        raise ConfigError(f"version {SEVERAL_VERSION}: expected {expected}, found {description(content)}")
    arguments = list[AttachArguments]()
    for number, placement in enumerate(placements):
        try:
            if not isinstance(placement, dict):
                raise ConfigError(f"expected an object, found {type(placement).__name__}")
            arguments.append(_parse_placement(placement))
        except ArmletError as error:
            raise ConfigError(f"{PLACEMENTS_KEY}[{number}]: {error}") from error
    return arguments[0] if len(arguments) == 1 else SeveralPlacements(policy=arguments)


def _parse_placement(content: Mapping[str, Any]) -> AttachArguments:
    if "policy" not in content:
        raise ConfigError("has no policy: expected the content of an armlet.json, as Attachment.save writes it")
    policy_settings = {key: value for key, value in content.items() if key not in OTHER_KEYS}
    parse_origin(content.get(ORIGIN_KEY))
    policy = make_policy(str(content.get("policy")), policy_settings, sha256=content.get("sha256"))
    scope, site = content.get("scope", "token"), content.get("site", GATE)
    check_policy(policy, scope)
    check_site(site)
    experts = content.get("experts", ALL_EXPERTS)
    check_experts(experts)
    layers = content.get("layers", 0)
    indices = layers if isinstance(layers, list) else [layers]
    if layers != "all" and not (indices and all(type(index) is int and index >= 0 for index in indices)):
        raise ConfigError(f'layers must be indices from 0 or "all", found {layers!r}')
    arguments: AttachArguments = {"policy": policy, "layers": layers, "scope": scope, "noise": _parse_noise(content)}
    if site != GATE:
        arguments["site"] = site
    if experts != ALL_EXPERTS:
        arguments["experts"] = experts
    return arguments


def limited_layers(content: Mapping[str, object], report: Mapping[Any, Mapping[str, float]]) -> list[str]:
    """Says which settings of a policy had no effect, in which layers, from `armlet.json` and `Attachment.report`.

    Nothing is known of policies that are not built in.
    """
    if PLACEMENTS_KEY in content:  # the counts are those of all placements together
        placements = cast("list[dict[str, object]]", content[PLACEMENTS_KEY])
        return [sentence for placement in placements for sentence in limited_layers(placement, {})]
    if content.get("policy") not in POLICIES:
        return []
    config = _parse_placement({key: value for key, value in content.items() if key != "version"})
    sentences = without_effect(config["policy"])
    for layer, counts in report.items():
        if config["scope"] == "token" and counts["moved"]:
            width = round(counts["moved"] / (counts["share_moved"] * counts["tokens"]))
            share = counts["moved"] / ((counts["tokens"] - counts["passed"]) * width)  # without rows with NaN or Inf
            sentence = limited_by_share(config["policy"], share, width)
            sentences += [f"layer {layer}: {sentence}"] if sentence else []
    return sentences


def _parse_noise(content: Mapping[str, object]) -> Source:
    kind = content.get("noise", "keyed")
    keyed: dict[str, Any] = {key: content[key] for key in ("seed", "stream") if key in content}
    if kind == "keyed":
        return Noise(**keyed)
    if kind not in ("fresh", "midpoint") or keyed:
        expected = '"keyed" (with seed and stream), "fresh" or "midpoint"'
        raise ConfigError(f"noise must be {expected}, found {kind!r} {keyed}")
    return Noise.fresh() if kind == "fresh" else Noise.midpoint()
