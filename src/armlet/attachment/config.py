"""`armlet.json`: how ARM was attached, as a versioned and validated file that people can read and write."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from armlet.attachment.sites import GATE, check_site
from armlet.presentation.files import write_json
from armlet.redistribution.arguments import check_policy
from armlet.redistribution.errors import ArgumentError, ArmletError
from armlet.redistribution.noise import Noise, Source
from armlet.redistribution.rows import Policy
from armlet.redistribution.spelling import make_policy, settings

FILE = "armlet.json"
VERSION = 1
LONGEST_RANGE = len("9999-9999")
ATTACHING = ("layers", "site", "scope", "noise", "seed", "stream")


class ConfigError(ArmletError, ValueError):
    """A configuration that cannot be read, or not be written."""


def parse_layers(text: str) -> list[int] | str:
    """Layers from "all" or a list of indices and ranges, ends included: "0", "0,3", "0-5,8".

    Raises:
        ArgumentError: anything else.
    """
    if text == "all":
        return text
    layers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > LONGEST_RANGE:
            raise ArgumentError(f"layers: expected indices such as 0 or 0,3 or 0-5, or all, found {text!r}")
        layers += range(int(first), int(last or first) + 1)
        if dash and int(last) < int(first):
            raise ArgumentError(f"layers: the range {part} is empty; write {last}-{first}")
    return layers


def save_config(
    directory: str | Path, policy: Policy, layers: Sequence[int], scope: str, noise: Source, site: str = GATE
) -> Path:
    """Writes `armlet.json` into `directory`, whole or not at all; returns its path.

    Raises:
        ConfigError: the noise is a tensor or holds a generator, or the file cannot be written.
    """
    content = describe(policy, layers, scope, noise, site)
    path = Path(directory) / FILE
    return write_json(path, content)


def describe(policy: Policy, layers: Sequence[int], scope: str, noise: Source, site: str = GATE) -> dict[str, Any]:
    """The content of an `armlet.json`. The site is in it where it is not "gate".

    Raises:
        ConfigError: the noise is a tensor or holds a generator.
    """
    plain = {"version": VERSION, "policy": policy.name, **settings(policy)}
    return plain | {"layers": list(layers), **_elsewhere(site), "scope": scope, **_plain_noise(noise)}


def load_config(directory_or_file: str | Path) -> dict[str, Any]:
    """The arguments of `attach()` from an `armlet.json`: `attach(model, **load_config(directory))`.

    Raises:
        ConfigError: no such file, no JSON, a newer version, unknown keys or values out of range; names the file.
    """
    path = Path(directory_or_file)
    path = path / FILE if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return parse_config(content)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: is no JSON (line {error.lineno}: {error.msg})") from error
    except (ArmletError, ValueError, RecursionError) as error:  # no text, or a number of thousands of digits
        raise ConfigError(f"{path}: {error}") from error


def parse_config(content: object) -> dict[str, Any]:
    """The arguments of `attach()` from the content of an `armlet.json`. Everything but `policy` has a default.

    Raises:
        ConfigError, ArgumentError: says what is wrong.
    """
    if not isinstance(content, dict):
        raise ConfigError(f"expected an object, found {type(content).__name__}")
    _check_version(content.get("version", VERSION))
    rest = {key: value for key, value in content.items() if key not in ("version", "policy", *ATTACHING)}
    policy = make_policy(str(content.get("policy")), rest)
    scope = content.get("scope", "token")
    check_policy(policy, scope)
    found = {"policy": policy, "layers": _layers(content), "scope": scope, "noise": _noise(content)}
    return found | _elsewhere(content.get("site", GATE))


def _elsewhere(site: str) -> dict[str, str]:
    """The entry of a site that is not the usual one, which files from before there were two do not name."""
    check_site(site)
    return {} if site == GATE else {"site": site}


def _check_version(version: object) -> None:
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ConfigError(f"version must be an integer of at least 1, found {version!r}")
    if version > VERSION:
        raise ConfigError(f"is of version {version}, this armlet reads up to {VERSION}: upgrade armlet")


def _layers(content: dict[str, Any]) -> int | list[int] | str:
    layers = content.get("layers", 0)
    indices = layers if isinstance(layers, list) else [layers]
    whole = all(isinstance(index, int) and not isinstance(index, bool) and index >= 0 for index in indices)
    if layers != "all" and not (whole and indices):
        raise ConfigError(f'layers must be indices from 0 or "all", found {layers!r}')
    return layers


def _noise(content: dict[str, Any]) -> Source:
    kind = content.get("noise", "keyed")
    keyed = {key: content[key] for key in ("seed", "stream") if key in content}
    if kind == "keyed":
        return Noise(**keyed)
    if kind not in ("fresh", "midpoint") or keyed:
        raise ConfigError(
            f'noise must be "keyed" (with seed and stream), "fresh" or "midpoint", found {kind!r} {keyed}'
        )
    return Noise.fresh() if kind == "fresh" else Noise.midpoint()


def _plain_noise(noise: Source) -> dict[str, Any]:
    if noise.kind == "keyed":
        return {"noise": "keyed", **settings(noise)}
    if noise.kind == "explicit" or getattr(noise, "generator", None) is not None:
        raise ConfigError(f"{FILE} cannot keep noise from a tensor or a generator: use Noise(seed)")
    return {"noise": noise.kind}
