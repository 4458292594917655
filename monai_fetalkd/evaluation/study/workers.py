"""Processes that work off tasks of which some must wait for others."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Hashable, Mapping
from graphlib import TopologicalSorter
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from monai_fetalkd.utils.machine import root_error

__all__ = ["TaskError", "run_in_order"]

Task = TypeVar("Task", bound=Hashable)


class TaskError(Exception):
    """A task failed.

    Args:
        task: which.
        reason: its error in one sentence.
    """

    def __init__(self, task: Any, reason: str) -> None:
        super().__init__(f"{task}: {reason}")
        self.task = task
        self.reason = reason


def run_in_order(
    function: Callable[[Any], None], tasks: Mapping[Task, Any], needs: Mapping[Task, set[Task]], jobs: int
) -> Generator[Task, None, None]:
    """Call a function for each task in worker processes, each task as soon as those it needs are finished.

    Of the tasks that can be started, the first ones are. The workers end with the iterator, and with this process
    however that ends, so that nothing goes on training behind the user's back.

    Args:
        function: a function of a module, given the argument of each task.
        tasks: the argument of each task, in the order wanted.
        needs: for each task those that must be finished before; others than ``tasks`` are taken for finished.
        jobs: number of processes.

    Yields:
        Each task once it is finished.

    Raises:
        ValueError: when there is no process to do the work, or a task waits for itself.
        TaskError: when a task fails.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be 1 or more, got {jobs}.")
    order = TopologicalSorter({task: needs[task] & tasks.keys() for task in tasks})
    order.prepare()
    place = {task: number for number, task in enumerate(tasks)}
    ready: list[Task] = []
    workers = [_Worker(function) for _ in range(min(jobs, len(tasks)))]
    idle = list(workers)
    busy: dict[Connection, tuple[_Worker, Task]] = {}
    try:
        while order.is_active():
            ready = sorted([*ready, *order.get_ready()], key=place.__getitem__)
            while ready and idle:
                worker, task = idle.pop(), ready.pop(0)
                worker.connection.send(tasks[task])
                busy[worker.connection] = (worker, task)
            answered = wait(list(busy))
            for connection in [each for each in busy if each in answered]:
                worker, task = busy.pop(connection)
                if (error := worker.answer()) is not None:
                    raise TaskError(task, error)
                order.done(task)
                idle.append(worker)
                yield task
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process that calls the function for whatever comes through its connection, and answers with the error."""

    def __init__(self, function: Callable[[Any], None]) -> None:
        # spawned, as a forked process cannot use CUDA; not a daemon, as that may not have the processes of a loader
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, function))
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the connection

    def answer(self) -> str | None:
        try:
            return self.connection.recv()
        except EOFError:
            self.process.join()
            return f"its process was ended from outside (exit code {self.process.exitcode}), maybe for want of memory."

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, function: Callable[[Any], None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent ends this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            function(connection.recv())
        except Exception as error:
            traceback.print_exc()
            connection.send(_sentence(error))
        else:
            connection.send(None)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _sentence(error: BaseException) -> str:
    error = root_error(error)
    return str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"
