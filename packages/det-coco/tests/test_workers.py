"""What is said where the system ends a process that loads images."""

import pytest

from det_coco import DataError
from det_coco.workers import ended_worker, naming_ended_workers

WORDS = r"was ended \(DataLoader worker \(pid.*\), which is what happens where memory, .* take fewer workers"


@pytest.mark.parametrize(
    "reason",
    [
        "DataLoader worker (pid 12) is killed by signal: Killed. ",
        "DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that it is out of shared memory.",
        "DataLoader worker (pid(s) 12, 13) exited unexpectedly",
        "DataLoader worker (pid 12) exited unexpectedly with exit code 1.\nDetails are lost due to multiprocessing.",
    ],
)
def test_wherever_the_main_process_is(reason):
    with pytest.raises(DataError, match=WORDS), naming_ended_workers():
        raise RuntimeError(reason)
    assert "take fewer workers" in str(ended_worker(RuntimeError(reason)))


def test_other_errors_are_none_of_it():
    with pytest.raises(RuntimeError, match="shape"), naming_ended_workers():
        raise RuntimeError("shape of DataLoader worker (pid 12) is killed by signal")
    assert ended_worker(RuntimeError("shape")) is None
    assert "take fewer workers" in str(ended_worker(ConnectionResetError("reset")))


def test_what_a_worker_itself_raised_is_in_the_last_line():
    error = RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nTraceback ...\nNo space left on device.")
    assert "was ended (No space left on device), which" in str(ended_worker(error))
