"""Calls in several threads at a time."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from threading import Thread
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def concurrently(call: Callable[[Item], Result], items: Sequence[Item], limit: int) -> list[Result]:
    """The results of a call for each item, in their order, with at most `limit` calls at a time.

    After the first error, which is raised, no further call starts. The threads are daemons, so that Ctrl-C does not
    wait for calls in progress, and no event loop is needed, so that a notebook's running one does not interfere.
    """
    futures: list[Future[Result]] = [Future() for _ in items]
    waiting = list(zip(futures, items, strict=True))
    queue = iter(waiting)  # shared by the threads; it ends when the list is cleared

    def work() -> None:
        for future, item in queue:
            try:
                future.set_result(call(item))
            except BaseException as error:  # raised again by `result`
                waiting.clear()
                future.set_exception(error)

    try:
        for _ in range(min(limit, len(items))):
            Thread(target=work, daemon=True).start()
        for future in wait(futures, return_when=FIRST_EXCEPTION).done:
            future.result()
        return [future.result() for future in futures]
    finally:
        waiting.clear()
