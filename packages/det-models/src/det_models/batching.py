"""Pictures of concurrent requests, shown to a detector several at a time."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, Queue
from threading import Thread

from det_coco.images import decode_image
from det_models.detections import Detections
from det_models.predictor import Predictor

__all__ = ["Batcher"]

Job = tuple[bytes, Future[Detections]]


class Batcher:
    """A thread that shows a detector the pictures that others hand over, several at a time.

    Pictures wait as the files that they are, and are decoded with those of their batch alone.

    Args:
        detector: What they are shown to.
        batch: Pictures at a time.
        wait: Seconds that the first of a batch waits for others.
    """

    def __init__(self, detector: Predictor, batch: int, wait: float) -> None:
        self._detector, self._batch, self._wait = detector, batch, wait
        self._jobs: Queue[Job | None] = Queue()
        self._thread = Thread(target=self._work, daemon=True)
        self._thread.start()

    def detect(self, data: bytes) -> Future[Detections]:
        """What will be found in the content of a picture file, or the error; nobody looks at one that is cancelled."""
        future: Future[Detections] = Future()
        self._jobs.put((data, future))
        return future

    def close(self) -> None:
        """End the thread after what was handed over."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        with ThreadPoolExecutor(self._batch) as decoders:
            while jobs := self._next():
                # What is cancelled was too slow for whoever asked.
                self._answer([job for job in jobs if job[1].set_running_or_notify_cancel()], decoders)

    def _next(self) -> list[Job]:
        """The jobs of a batch, none of which follows the end."""
        jobs: list[Job] = []
        until = None
        with suppress(Empty):
            while len(jobs) < self._batch:
                job = self._jobs.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
                if job is None:
                    self._jobs.put(None)  # for the next call
                    break
                until = until or time.monotonic() + self._wait
                jobs.append(job)
        return jobs

    def _answer(self, jobs: Sequence[Job], decoders: ThreadPoolExecutor) -> None:
        decoding = [(decoders.submit(decode_image, data, "that was sent"), future) for data, future in jobs]
        pictures, futures = [], []
        for decoded, future in decoding:
            if error := decoded.exception():
                future.set_exception(error)
            else:
                pictures.append(decoded.result())
                futures.append(future)
        try:
            found = self._detector.predict(pictures, batch_size=self._batch)
        except Exception as error:
            for future in futures:
                future.set_exception(error)
        else:
            for future, one in zip(futures, found, strict=True):
                future.set_result(one)
