"""The engines that run a model for the evaluating commands: this process, vLLM, or a server."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from typer import Context, Option

from armlet.checkpoints.folder import ABACUS
from armlet.commands.options import ComputeOptions, refuse_unused
from armlet.evaluation.conditions.conditions import Condition
from armlet.evaluation.engines.engine import Engine, OpenEngine, WithGatePlacebos
from armlet.evaluation.tasks.problems import Task
from armlet.presentation.terminal import working
from armlet.redistribution.errors import ArgumentError

SERVED_BATCH = 256  # items sent to vLLM at once; it forms its own batches


@dataclass(frozen=True)
class LoadedEngineOptions:
    """The engine that loads the model, and its settings."""

    engine: Annotated[
        Literal["local", "vllm"], Option(help="Engine that runs the model: transformers in this process, or vLLM.")
    ] = "local"
    engine_args: Annotated[str | None, Option(help="vLLM's arguments as JSON: '{\"tensor_parallel_size\": 2}'.")] = None

    @property
    def batch(self) -> int | None:
        """The batch size; None for the plan's default."""
        return SERVED_BATCH if self.engine == "vllm" else None

    def named(self, model: str | None) -> dict[str, str | None]:
        """The name of the model that runs; vLLM runs the embedded one by default, as this process does."""
        return {"model": model or (ABACUS if self.engine == "vllm" else None)}

    def check_loaded(self, compute: ComputeOptions) -> None:
        """Refuses options that would have no effect or would be wrong."""
        if self.engine == "local" and self.engine_args is not None:
            raise ArgumentError("--engine-args: only vLLM uses them; add --engine vllm, or leave them out")
        if self.engine == "vllm" and compute.device:
            raise ArgumentError("--device: vLLM chooses its own; leave it out")
        self._vllm_arguments()

    def open_vllm(
        self,
        model: str | None,
        compute: ComputeOptions,
        compared: Sequence[Condition],
        tasks: Sequence[Task],
        *,
        adaptable: bool = False,
    ) -> Engine:
        """Opens vLLM for conditions and tasks; if `adaptable`, an eager engine that answers other treatments, too.

        Raises ArmletError if that fails, or it cannot run them.
        """
        from armlet.integrations.vllm.engine import VllmEngine, check_conditions

        check_conditions(compared, tasks)
        options, model = self._vllm_arguments(), model or ABACUS
        if adaptable and not options.setdefault("enforce_eager", True):
            raise ArgumentError("--engine-args: a search changes ARM in the engine, which must be eager; leave it out")
        with working(f"loading {model} in vLLM"):
            return VllmEngine(model, compared, dtype=compute.dtype, options=options, seed=compute.seed)

    def _vllm_arguments(self) -> dict[str, Any]:
        problem = f"--engine-args: expected a JSON object, found {self.engine_args!r}"
        try:
            arguments = json.loads(self.engine_args or "{}")
        except ValueError as error:
            raise ArgumentError(f"{problem} ({error})") from error
        if not isinstance(arguments, dict):
            raise ArgumentError(problem)
        return arguments


@dataclass(frozen=True)
class EngineOptions(LoadedEngineOptions):
    """The engine that runs the model, which may be a server, and its settings."""

    endpoint: Annotated[str | None, Option(help="An OpenAI-compatible server that answers as MODEL.")] = None
    treated_endpoint: Annotated[
        str | None,
        Option(
            help="The same server with ARM attached, as --policy or --config state. For vLLM, it may be the same one: "
            "ARM is then turned off by request."
        ),
    ] = None
    concurrency: Annotated[int, Option(min=1, help="Concurrent requests to an endpoint.")] = 16

    @property
    def is_local(self) -> bool:
        """Whether this process runs the model, and so can attach placebos."""
        return not self.endpoint and self.engine == "local"

    def check(self, context: Context, compute: ComputeOptions, *, stated: bool) -> None:
        """Refuses options that would have no effect or would be wrong; `stated`: --policy or --config is present."""
        if self.treated_endpoint and not self.endpoint:
            raise ArgumentError("--treated-endpoint: needs --endpoint, the same server without ARM")
        if self.treated_endpoint and not stated:
            raise ArgumentError("--treated-endpoint: state with --policy or --config what is attached to that server")
        if self.endpoint and (compute.dtype != "auto" or compute.device):
            raise ArgumentError("--endpoint: --dtype and --device are the server's own; leave them out")
        if self.endpoint:
            refuse_unused(context, ("engine",), "an --endpoint runs the model")
        else:
            refuse_unused(context, ("concurrency",), "applies to an --endpoint, and there is none")
        self.check_loaded(compute)

    def opener(self, model: str | None, compute: ComputeOptions) -> OpenEngine:
        """Returns `open` for a model."""
        opened = partial(self.open, model, compute)
        return opened if self.endpoint else WithGatePlacebos(opened)

    def open(
        self, model: str | None, compute: ComputeOptions, compared: Sequence[Condition], tasks: Sequence[Task]
    ) -> Engine:
        """Opens a server or vLLM for conditions and tasks; raises ArmletError if that fails or it cannot run them."""
        if self.endpoint:
            return self._server(self.endpoint, model, compute.seed, compared, tasks)
        return self.open_vllm(model, compute, compared, tasks)

    def _server(
        self, url: str, model: str | None, seed: int, compared: Sequence[Condition], tasks: Sequence[Task]
    ) -> Engine:
        from armlet.evaluation.engines.endpoint import Endpoint

        if model is None:
            raise ArgumentError(
                "--endpoint: name the model as the server knows it: armlet evaluate MODEL --endpoint URL"
            )
        treated = self.treated_endpoint
        server = Endpoint(url, model=model, treated_endpoint=treated, concurrency=self.concurrency, seed=seed)
        server.check(compared, tasks)
        if server.switched:
            server.check_switch()
        return server
