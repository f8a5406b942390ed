"""What runs a model for the commands that evaluate: this process, vLLM, or a server."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from armlet.commands.arguments import refuse_idle, refuse_meta
from armlet.presentation.terminal import notes
from armlet.redistribution.errors import ArgumentError

if TYPE_CHECKING:
    from armlet.evaluation.conditions.conditions import Condition
    from armlet.evaluation.engines.engine import Engine
    from armlet.evaluation.tasks.problems import Task

SERVED_BATCH = 256
"""Items at once in vLLM, which forms its own batches."""


class EngineName(StrEnum):
    """What runs the model."""

    local = "local"
    vllm = "vllm"


EngineOption = Annotated[EngineName, typer.Option(help="What runs the model: transformers in this process, or vLLM.")]
EngineArgsOption = Annotated[
    str | None, typer.Option(help="vLLM's arguments as JSON: '{\"tensor_parallel_size\": 2}'.")
]
EndpointOption = Annotated[str | None, typer.Option(help="An OpenAI-compatible server that answers as MODEL.")]
TreatedEndpointOption = Annotated[
    str | None,
    typer.Option(
        help="The same server with ARM attached; --policy or --config say how. Of vLLM it may be the same address: "
        "ARM is turned off by request then."
    ),
]
ConcurrencyOption = Annotated[int, typer.Option(min=1, help="Requests at a time to an endpoint.")]


@dataclass(frozen=True)
class EngineChoice:
    """The options of `armlet evaluate` that say what runs the model."""

    model: str | None
    engine: EngineName
    engine_args: str | None
    endpoint: str | None
    treated_endpoint: str | None
    concurrency: int
    dtype: str
    device: str | None
    seed: int

    @property
    def is_local(self) -> bool:
        """This process runs the model, and can attach whatever a placebo needs."""
        return not self.endpoint and self.engine is EngineName.local

    @property
    def batch(self) -> int | None:
        """Items at once; None for the plan's default."""
        return SERVED_BATCH if self.engine is EngineName.vllm else None

    def check(self, context: typer.Context, *, stated: bool) -> None:
        """Refuses options that would change nothing, or that say something that is not so.

        Args:
            context: of the command.
            stated: a policy or a configuration was given.

        Raises:
            ArgumentError: names the option.
        """
        if self.treated_endpoint and not self.endpoint:
            raise ArgumentError("--treated-endpoint: needs --endpoint, the same server without ARM")
        if self.treated_endpoint and not stated:
            raise ArgumentError("--treated-endpoint: say with --policy or --config what that server has attached")
        if self.endpoint and (self.dtype != "auto" or self.device):
            raise ArgumentError("--endpoint: --dtype and --device are the server's own; leave them out")
        if self.endpoint:
            refuse_idle(context, ("engine",), "an --endpoint runs the model")
        else:
            refuse_idle(context, ("concurrency",), "is that of an --endpoint, and there is none")
        self._vllm_options()

    def open(self, compared: "Sequence[Condition]", tasks: "Sequence[Task]") -> "Engine":
        """The engine, ready for these conditions and tasks.

        Raises:
            ArmletError: it cannot be reached or loaded, or cannot run them.
        """
        if self.endpoint:
            return self._server(self.endpoint, compared, tasks)
        if self.engine is EngineName.vllm:
            return self._offline(compared, tasks)
        return local_engine(self.model, self.dtype, self.device, self.seed)

    def _vllm_options(self) -> dict[str, Any]:
        if self.engine is EngineName.local:
            if self.engine_args is not None:
                raise ArgumentError("--engine-args: are vLLM's; add --engine vllm, or leave them out")
            return {}
        if self.device:
            raise ArgumentError("--device: vLLM chooses its own; leave it out")
        refused = f"--engine-args: expected a JSON object, found {self.engine_args!r}"
        try:
            options = json.loads(self.engine_args or "{}")
        except ValueError as error:
            raise ArgumentError(f"{refused} ({error})") from error
        if not isinstance(options, dict):
            raise ArgumentError(refused)
        return options

    def _server(self, url: str, compared: "Sequence[Condition]", tasks: "Sequence[Task]") -> "Engine":
        from armlet.evaluation.engines.endpoint import Endpoint

        if self.model is None:
            raise ArgumentError(
                "--endpoint: name the model as the server knows it: armlet evaluate MODEL --endpoint URL"
            )
        server = Endpoint(
            url,
            model=self.model,
            treated_url=self.treated_endpoint,
            concurrency=self.concurrency,
            seed=self.seed,
        )
        server.check(compared, tasks)
        if server.switched:
            server.check_switch()
        return server

    def _offline(self, compared: "Sequence[Condition]", tasks: "Sequence[Task]") -> "Engine":
        from armlet.checkpoints.identity import ABACUS
        from armlet.integrations.vllm.engine import Offline, single_treatment

        treatment, model = single_treatment(compared, tasks), self.model or ABACUS
        with notes.status(escape(f"loading {model} in vLLM ...")):
            return Offline(model, treatment, dtype=self.dtype, options=self._vllm_options(), seed=self.seed)


def local_engine(model: str | None, dtype: str, device: str | None, seed: int) -> "Engine":
    """The model in this process.

    Raises:
        CheckpointError, ArgumentError: it cannot be loaded.
    """
    from armlet.checkpoints.identity import ABACUS
    from armlet.evaluation.engines.local import Local

    refuse_meta(device)
    with notes.status(escape(f"loading {model or ABACUS} ...")):
        engine = Local(model or ABACUS, dtype=dtype, device=device, seed=seed)
    from transformers.utils import logging

    logging.set_verbosity_error()  # this process is the command's own, and stderr is for what the user must know
    return engine
