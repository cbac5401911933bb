"""Notices a job in which nothing moves any more, and names the process that the others wait for.

One beats in every command: `distributed.processes` starts it, and a training tells it where it is.
"""

import contextlib
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, ClassVar, NoReturn

import torch
import torch.distributed as dist

from det_engine.liveness import children, cpu_seconds, is_stopped

HUNG = 75
"""Exit status of processes that end because one of them hangs."""
# In the order in which a step passes through them: of two processes at the same step, the earlier phase hangs.
_PHASES = ("start", "data", "step", "log", "checkpoint", "evaluation", "end")
# Where the host itself works. In the others it waits for an accelerator, which may look like work.
_OF_THE_HOST = ("start", "evaluation", "end")
# A share of the time that a process which only waits does not compute.
_WORKING = 0.02
# Processes may need so long until they are there, however impatient somebody is afterwards; in seconds.
_ARRIVAL = 60.0
# Who lost its launcher has so many seconds to finish its step and write a checkpoint.
_FAREWELL = 120.0


class Watchdog:
    """Ends the job when no process has moved for `limit` seconds, naming those that the others wait for.

    A process moves when it says so (`at`), and where the host works, when it or one of its workers computes: a long
    evaluation is alive. A process that waits for another one cannot tell why. So each posts now and then, from a thread
    of its own, how far it is. The others wait for one that does not even post, as it was stopped, or else for the one
    with the smallest step and phase. One that is alive prints its stack.

    Without other processes it watches over the data workers, the only ones that can keep a single process waiting.

    A process whose launcher is gone is stopped as by SIGTERM.

    Args:
        limit: seconds.
        device: what is computed on.
        number: of this process among all, from 0.
        count: how many there are.
        store: what they share, None for a single one.
        launcher: the process that started this one and whose end is this one's, or None.
    """

    current: ClassVar["Watchdog | None"] = None

    def __init__(
        self,
        limit: float,
        device: torch.device,
        *,
        number: int = 0,
        count: int = 1,
        store: dist.Store | None = None,
        launcher: int | None = None,
    ) -> None:
        self.limit = limit
        self._device, self._number, self._count, self._launcher = device, number, count, launcher
        self._store = None if store is None else dist.PrefixStore("watchdog", _own(store))
        self._at = (0, _PHASES.index("start"))
        self._moves = 0
        self._seen: dict[Any, float] = {}
        self._silence = [0.0] * count
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        Watchdog.current = self
        if self._store is not None:
            self._post()  # whoever stops at once is known, and can be continued
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        Watchdog.current = None
        self._stop.set()
        self._thread.join(timeout=5)

    def at(self, step: int, phase: str) -> None:
        """Note that this process begins `phase` of `step`."""
        self._at = (step, _PHASES.index(phase))
        self._moves += 1

    @property
    def _pause(self) -> float:
        return min(5.0, self.limit / 5)

    def _watch(self) -> None:
        # Counted in pauses of this thread: a machine that was suspended has not hung.
        still = 0.0
        while not self._stop.wait(self._pause):
            if self._launcher is not None and os.getppid() != self._launcher:
                self._end_without_launcher()
                return
            try:
                still = 0.0 if self._anybody_moved() else still + self._pause
                if (still >= self.limit or self._is_decided()) and not self._stop.is_set():
                    self._end()
            except RuntimeError:  # the store is gone: the job is ending
                self._store, still = None, 0.0

    def _is_decided(self) -> bool:
        """Whether another process has ended the job, perhaps while this one was stopped."""
        return self._store is not None and self._store.check(["verdict"])

    def _anybody_moved(self) -> bool:
        """Whether there was a sign of life since the last call."""
        if self._host_works(self._device, self._at[1]) and self._computes(os.getpid(), *children()):
            self._moves += 1
        if self._store is None:
            # At a breakpoint, say, nobody else is kept waiting.
            waits_for_worker = _PHASES[self._at[1]] in ("data", *_OF_THE_HOST) and children()
            return self._changed("own", self._moves) or not waits_for_worker
        self._post()
        moved = False
        for number, found in enumerate(self._posts()):
            if found is None:
                # Those that are still on their way have their time.
                self._silence[number] += self._pause
                moved |= self._silence[number] < _ARRIVAL
                continue
            _, phase, moves, process, host, kind, posts = found
            new = self._changed(("posts of", number), posts)
            self._silence[number] = 0.0 if new else self._silence[number] + self._pause
            moved |= self._changed(("moves of", number), moves)
            # A process in a library that keeps Python's lock cannot post, but it works.
            if number != self._number and host == socket.gethostname() and self._host_works(torch.device(kind), phase):
                moved |= self._computes(process)
        return moved

    def _post(self) -> None:
        """Tell the others how far this process is."""
        assert self._store is not None
        self._seen["posts"] = self._seen.get("posts", 0) + 1
        own = (self._moves, os.getpid(), socket.gethostname(), self._device.type, self._seen["posts"])
        self._store.set(str(self._number), json.dumps([*self._at, *own]))

    def _posts(self) -> list[list[Any] | None]:
        """What each process last posted."""
        assert self._store is not None
        keys = map(str, range(self._count))
        return [json.loads(self._store.get(key)) if self._store.check([key]) else None for key in keys]

    def _changed(self, name: Any, value: float) -> bool:
        before, self._seen[name] = self._seen.get(name), value
        return before != value

    def _computes(self, *processes: int) -> bool:
        spent = {process: cpu_seconds(process) for process in processes}
        before = {process: self._seen.get(("seconds of", process), now) for process, now in spent.items()}
        self._seen |= {("seconds of", process): now for process, now in spent.items()}
        return any(spent[process] - before[process] > _WORKING * self._pause for process in processes)

    @staticmethod
    def _host_works(device: torch.device, phase: int) -> bool:
        return device.type == "cpu" or _PHASES[phase] in _OF_THE_HOST

    def _end(self) -> NoReturn:
        """Name the processes that the others wait for, once for all, and leave."""
        workers = "".join(
            f" Its data worker {child} {'is stopped' if is_stopped(child) else 'delivers nothing'}."
            for child in (children() if _PHASES[self._at[1]] in ("data", "start", "evaluation") else [])
        )
        store = self._store
        if store is None:
            self._say(f"This process has not moved for {self.limit:g} seconds{_place(*self._at)}.{workers}")
            self._leave()
        posts = self._posts()
        silent = [number for number, seconds in enumerate(self._silence) if seconds >= self.limit / 2]
        places = [(post[0], post[1]) for post in posts if post is not None]
        behind = silent or [n for n, post in enumerate(posts) if post is not None and (post[0], post[1]) == min(places)]
        if store.add("verdict", 1) == 1:
            names = " and ".join(map(str, behind))
            plural = len(behind) > 1
            self._say(
                f"Process{'es' if plural else ''} {names} of {self._count} {'have' if plural else 'has'} not moved for "
                f"{self.limit:g} seconds{_place(*min(places))}; ending the job."
            )
        if self._number in behind:
            if workers:
                self._say(f"Process {self._number} waits.{workers}")
            faulthandler.dump_traceback(file=sys.stderr)
        else:
            # The others leave a moment later, so that who hangs has noticed it too, and is seen to end first.
            self._stop.wait(2 * self._pause)
            for number in behind:
                self._wake(posts[number])
        self._leave()

    @staticmethod
    def _wake(post: list[Any] | None) -> None:
        """Continue a stopped process of this machine, or the signal that ends it would never reach it."""
        if post is not None and post[4] == socket.gethostname() and is_stopped(post[3]):
            with contextlib.suppress(OSError):
                os.kill(post[3], signal.SIGCONT)

    def _end_without_launcher(self) -> None:
        """Stop as by SIGTERM, with a checkpoint where there is something to keep, but not later than in a while."""
        if self._number == 0:
            self._say("The process that started this job has ended; this one ends too.")
        os.kill(os.getpid(), signal.SIGTERM)
        if not self._stop.wait(_FAREWELL):
            self._leave(128 + signal.SIGTERM)

    def _leave(self, status: int = HUNG) -> NoReturn:
        for child in children():
            with contextlib.suppress(OSError):
                os.kill(child, signal.SIGKILL)
        os._exit(status)

    @staticmethod
    def _say(text: str) -> None:
        print(f"error: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def watched(limit: float, device: torch.device) -> Iterator[Watchdog]:
    """The watchdog of this process, with another limit within the block; one of its own where there is none.

    Args:
        limit: seconds.
        device: what is computed on.
    """
    current = Watchdog.current
    if current is None:
        together = dist.is_available() and dist.is_initialized()
        job: dict[str, Any] = {}
        if together:
            store = dist.distributed_c10d._get_default_store()
            job = {"number": dist.get_rank(), "count": dist.get_world_size(), "store": store}
        with Watchdog(limit, device, **job) as own:
            yield own
        return
    before, current.limit = current.limit, limit
    try:
        yield current
    finally:
        current.limit = before


def _own(store: Any) -> dist.Store:
    """A connection that no other thread uses."""
    return store.clone() if hasattr(store, "clone") else store


def _place(step: int, phase: int) -> str:
    return "" if _PHASES[phase] == "start" else f" (after step {step}, in phase {_PHASES[phase]})"
