"""Runs the cells of a study on a Ray cluster; a cell whose process is killed is run again and resumes."""

# pyright: reportMissingImports=false

import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

from armlet.evaluation.studies.cells import CellOutcome, Job, run_cell
from armlet.presentation.progress import progress
from armlet.redistribution.errors import ArgumentError, ArmletError

RETRIES = 3  # number of retries of a cell whose process ended without an answer
RAY_SETTINGS = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
"""Ray sends nothing home, and its processes get their share of a processor that others use, too; a user's own win."""

LOCAL = "local"  # the address that starts Ray on this machine


def run_on_ray(jobs: Sequence[Job], address: str) -> Iterator[CellOutcome]:
    """Runs cells on a cluster, as many at once as its processors and GPUs allow; yields them as they end.

    The run folders must be on a disk that all machines of the cluster share.

    Args:
        jobs: the cells.
        address: Ray's address, such as "auto" or "ray://host:10001"; "local" starts Ray on this machine.

    Raises:
        ArgumentError: Ray is not installed, or no machine of the cluster is large enough for a cell.
        ArmletError: there is no cluster at the address.
    """
    ray = _connected(address)
    try:
        _check_resources(ray, jobs)
        remote = ray.remote(run_cell_there)
        waiting = {
            remote.options(
                num_cpus=job.cell.model.cpus, num_gpus=job.cell.model.gpus, max_retries=RETRIES, name=job.cell.name
            ).remote(job): job
            for job in jobs
        }
        with progress("running cells", len(jobs)) as tick:
            while waiting:
                (reference, *_), _ = ray.wait(list(waiting))
                job = waiting.pop(reference)
                yield _outcome(ray, reference, job)
                tick()
    finally:
        ray.shutdown()


def run_cell_there(job: Job) -> CellOutcome:
    """Runs a cell in a process of the cluster, which must see the study's folder."""
    if not job.run.parent.is_dir():
        raise ArgumentError(f"{job.run.parent} is not on this machine; put the study's folder on a shared disk")
    return run_cell(job)


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError as error:
        raise ArgumentError("--ray: needs an extra package: pip install 'armlet[cluster]'") from error
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        options = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if address == LOCAL else {}
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ArmletError(f"--ray: no cluster at {address!r} ({str(error).splitlines()[0]})") from error
    return ray


def _check_resources(ray: Any, jobs: Sequence[Job]) -> None:
    """Refuses cells that would wait forever, because no machine is large enough for them."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for job in jobs:
        needed = {"CPU": job.cell.model.cpus, "GPU": job.cell.model.gpus}
        if not any(all(machine.get(name, 0) >= count for name, count in needed.items()) for machine in machines):
            wanted = " and ".join(f"{count} {name}s" for name, count in needed.items())
            raise ArgumentError(f"--ray: no machine of the cluster has {wanted}, which {job.cell.name} needs")


def _outcome(ray: Any, reference: Any, job: Job) -> CellOutcome:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return CellOutcome(job.cell, failure=str(error).strip().splitlines()[-1])
