"""What runs a model for the commands that evaluate: this process, vLLM, or a server."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rich.markup import escape
from typer import Context, Option

from armlet.checkpoints.identity import ABACUS
from armlet.commands.options import ComputeOptions, refuse_idle
from armlet.evaluation.conditions.conditions import Condition
from armlet.evaluation.engines.engine import Engine
from armlet.evaluation.tasks.problems import Task
from armlet.presentation.terminal import notes
from armlet.redistribution.errors import ArgumentError

SERVED_BATCH = 256
"""Items at once in vLLM, which forms its own batches."""


@dataclass(frozen=True)
class EngineOptions:
    """What runs the model."""

    engine: Annotated[
        Literal["local", "vllm"], Option(help="What runs the model: transformers in this process, or vLLM.")
    ] = "local"
    engine_args: Annotated[str | None, Option(help="vLLM's arguments as JSON: '{\"tensor_parallel_size\": 2}'.")] = None
    endpoint: Annotated[str | None, Option(help="An OpenAI-compatible server that answers as MODEL.")] = None
    treated_endpoint: Annotated[
        str | None,
        Option(
            help="The same server with ARM attached; --policy or --config say how. Of vLLM it may be the same address: "
            "ARM is turned off by request then."
        ),
    ] = None
    concurrency: Annotated[int, Option(min=1, help="Requests at a time to an endpoint.")] = 16

    @property
    def is_local(self) -> bool:
        """This process runs the model, and can attach whatever a placebo needs."""
        return not self.endpoint and self.engine == "local"

    @property
    def batch(self) -> int | None:
        """Items at once; None for the plan's default."""
        return SERVED_BATCH if self.engine == "vllm" else None

    def check(self, context: Context, compute: ComputeOptions, *, stated: bool) -> None:
        """Refuses options that would change nothing, or that say something that is not so.

        `stated`: a policy or a configuration was given.
        """
        if self.treated_endpoint and not self.endpoint:
            raise ArgumentError("--treated-endpoint: needs --endpoint, the same server without ARM")
        if self.treated_endpoint and not stated:
            raise ArgumentError("--treated-endpoint: say with --policy or --config what that server has attached")
        if self.endpoint and (compute.dtype != "auto" or compute.device):
            raise ArgumentError("--endpoint: --dtype and --device are the server's own; leave them out")
        if self.endpoint:
            refuse_idle(context, ("engine",), "an --endpoint runs the model")
        else:
            refuse_idle(context, ("concurrency",), "is that of an --endpoint, and there is none")
        if self.engine == "local" and self.engine_args is not None:
            raise ArgumentError("--engine-args: are vLLM's; add --engine vllm, or leave them out")
        if self.engine == "vllm" and compute.device:
            raise ArgumentError("--device: vLLM chooses its own; leave it out")
        self._vllm_arguments()

    def open(
        self, model: str | None, compute: ComputeOptions, compared: Sequence[Condition], tasks: Sequence[Task]
    ) -> Engine:
        """The engine, ready for conditions and tasks; ArmletError where it cannot be loaded, or cannot run them."""
        if self.endpoint:
            return self._server(self.endpoint, model, compute.seed, compared, tasks)
        if self.engine == "local":
            return local_engine(model, compute)
        from armlet.integrations.vllm.engine import VllmEngine, single_treatment

        treatment, model = single_treatment(compared, tasks), model or ABACUS
        with notes.status(escape(f"loading {model} in vLLM ...")):
            return VllmEngine(model, treatment, dtype=compute.dtype, options=self._vllm_arguments(), seed=compute.seed)

    def _vllm_arguments(self) -> dict[str, Any]:
        refused = f"--engine-args: expected a JSON object, found {self.engine_args!r}"
        try:
            arguments = json.loads(self.engine_args or "{}")
        except ValueError as error:
            raise ArgumentError(f"{refused} ({error})") from error
        if not isinstance(arguments, dict):
            raise ArgumentError(refused)
        return arguments

    def _server(
        self, url: str, model: str | None, seed: int, compared: Sequence[Condition], tasks: Sequence[Task]
    ) -> Engine:
        from armlet.evaluation.engines.endpoint import Endpoint

        if model is None:
            raise ArgumentError(
                "--endpoint: name the model as the server knows it: armlet evaluate MODEL --endpoint URL"
            )
        treated = self.treated_endpoint
        server = Endpoint(url, model=model, treated_url=treated, concurrency=self.concurrency, seed=seed)
        server.check(compared, tasks)
        if server.switched:
            server.check_switch()
        return server


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Says on stderr that a model is loaded; afterwards transformers is silent there."""
    with notes.status(escape(f"loading {name} ...")):
        yield
    from transformers.utils import logging

    logging.set_verbosity_error()  # this process is the command's own, and stderr is for what the user must know


def local_engine(model: str | None, compute: ComputeOptions) -> Engine:
    """The model in this process; raises CheckpointError or ArgumentError where it cannot be loaded."""
    from armlet.evaluation.engines.local import Local

    with loading(model or ABACUS):
        return Local(model or ABACUS, dtype=compute.dtype, device=compute.device, seed=compute.seed)
