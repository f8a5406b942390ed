"""The setting to take along: in Python, for vLLM, as armlet.json, and as a link, with what they leave out."""

import shlex
from dataclasses import dataclass

from armlet.attachment.config import ARMLET_FILE
from armlet.checkpoints.folder import ABACUS
from armlet.playground.reading import Reader
from armlet.playground.setting import NO_EXPERT, TEXT, Setting
from armlet.redistribution.errors import ArgumentError


@dataclass(frozen=True)
class Exports:
    """What a reader of the page can copy."""

    codes: dict[str, str]  # by title
    link: str  # a query; empty if there is none
    notes: list[str]  # what the codes do not have, and why there is no link


def make_exports(reader: Reader, setting: Setting) -> Exports:
    """The setting in every form."""
    codes = {"Python": setting.python(), "vLLM": serving(reader, setting), ARMLET_FILE: setting.armlet_json()}
    notes = list[str]()
    if setting.placebo:
        notes.append("The placebo is in the link alone: the others have the policy.")
    if setting.expert != NO_EXPERT:
        notes.append("The chosen expert is in the link alone: ARM acts in all experts of a layer.")
    if setting.sample != TEXT:
        notes.append(f"The sample is in the link alone: the others have the policy in layer {setting.layer}.")
    try:
        return Exports(codes, setting.link(), notes)
    except ArgumentError as error:
        return Exports(codes, "", [*notes, f"There is no link. {error}."])


def serving(reader: Reader, setting: Setting) -> str:
    """The command that serves the model through vLLM with the armlet.json beside it, or why there is none."""
    name, folder = reader.opened.name, reader.opened.folder
    if folder is None or name == ABACUS:
        return f"# vLLM serves a folder or a hub id, and {name} is neither."
    command = f"""vllm serve {shlex.quote(name)} --additional-config '{{"armlet": "{ARMLET_FILE}"}}'"""
    # On a GPU, vLLM may choose a kernel for experts in which ARM cannot be; on a CPU it has one.
    return (
        f"{command} --moe-backend triton  # on a CPU without --moe-backend" if reader.has_experts(setting) else command
    )
