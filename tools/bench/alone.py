"""An operator without its peer, in a process of its own: milliseconds of the fastest call within two seconds.

python -P tools/bench/alone.py NAME

`before` runs it. A peer's threads and memory would disturb times of half a millisecond; `operators` is that of the
checkout on the path, which may be older than this file.
"""

import sys
import time

import torch
from operators import CASES

SECONDS = 2.0
LEAST_CALLS = 7


def main(name: str) -> float:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    (case,) = (case for case in CASES if case.name == name and case.unit == "ms")
    ours = case.build().ours
    ours()
    taken: list[float] = []
    while len(taken) < LEAST_CALLS or sum(taken) < SECONDS:
        start = time.perf_counter()
        ours()
        taken.append(time.perf_counter() - start)
    return min(taken) * 1e3


if __name__ == "__main__":
    print(main(sys.argv[1]))
