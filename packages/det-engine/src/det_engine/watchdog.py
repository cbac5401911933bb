"""Notices a process that does not move any more, and names it."""

import contextlib
import faulthandler
import json
import os
import sys
import threading
import time
from types import TracebackType

import torch.distributed as dist

from det_engine.distributed import rank, world_size

HUNG = 75
"""Exit status of processes that end because one of them hangs."""
# In the order in which a step passes through them: of two processes at the same step, the earlier phase hangs.
_PHASES = ("data", "step", "log", "checkpoint", "evaluation", "end")


class Watchdog:
    """Ends the job when no process has moved for `limit` seconds, naming those that are furthest behind.

    A process that waits for another one cannot tell why. So each posts now and then, from a thread of its own, how far
    it is; the one with the smallest step and phase is what the others wait for. One that is alive prints its stack.

    Args:
        limit: seconds.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._at = (0, _PHASES.index("data"))
        self._moves = 0
        self._pause = min(5.0, limit / 5)
        self._stop = threading.Event()
        self._thread = None
        if world_size() > 1:
            store = dist.distributed_c10d._get_default_store()
            self._store = dist.PrefixStore("watchdog", store.clone() if hasattr(store, "clone") else store)
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def at(self, step: int, phase: str) -> None:
        """Note that this process begins `phase` of `step`."""
        self._at = (step, _PHASES.index(phase))
        self._moves += 1

    def _watch(self) -> None:
        # Counted in pauses of this thread: a machine that was suspended has not hung.
        seen, still = -1, 0.0
        with contextlib.suppress(RuntimeError):  # the store is gone: the job is ending
            while not self._stop.wait(self._pause):
                self._store.set(str(rank()), json.dumps([*self._at, time.time()]))
                moves = self._moves
                still = still + self._pause if moves == seen else 0.0
                seen = moves
                if still >= self._limit:
                    self._end()

    def _end(self) -> None:
        """Name the processes that are furthest behind, once for all, and leave."""
        keys = [str(number) for number in range(world_size())]
        posts = [json.loads(self._store.get(key)) if self._store.check([key]) else [0, 0, 0.0] for key in keys]
        furthest = min((step, phase) for step, phase, _ in posts)
        behind = [number for number, post in enumerate(posts) if tuple(post[:2]) == furthest]
        if len(behind) == world_size():
            # All are in the same place: one of them is silent, or it is the exchange itself that hangs.
            silent = [number for number, post in enumerate(posts) if time.time() - post[2] > self._limit]
            behind = silent or behind
        if self._store.add("verdict", 1) == 1:
            names = " and ".join(map(str, behind))
            plural = len(behind) > 1
            print(
                f"error: Process{'es' if plural else ''} {names} of {world_size()} "
                f"{'have' if plural else 'has'} not moved for {self._limit:g} seconds (after step {furthest[0]}, in "
                f"phase {_PHASES[furthest[1]]}); ending the job.",
                file=sys.stderr,
                flush=True,
            )
        if rank() in behind:
            faulthandler.dump_traceback(file=sys.stderr)
        else:
            # The others leave a moment later, so that who hangs has noticed it too, and is seen to end first.
            time.sleep(2 * self._pause)
        os._exit(HUNG)
