"""An older checkout beside this one: the same benches in both, turn by turn, and the ratio of our own times.

    hatch run bench before DIR [--benches ops infer train_step] [--data DATA] [--rounds 5] [--limit 1.03] [--check]

DIR is another checkout of this repository in which `hatch run` has made its environment. With `--data`, a data set in
the COCO layout, the loader is measured too. Every round runs a bench, or one operator without its peer, once in each
checkout, as a process of its own, so that both meet the same machine within seconds; a row compares the fastest of the
rounds, since whatever else the machine does only adds to a time. `--check` ends with status 1 where a ratio is over the
limit.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from operators import CASES

ROOT = Path(__file__).parents[2]
ARGUMENTS = {
    "ops": [],
    "infer": ["--repeat", "5", "--warmup", "2"],
    "train_step": ["--repeat", "3", "--warmup", "1"],
    "loader": ["--images", "128"],
}


def rows(bench: str, record: Path) -> Iterator[tuple[str, float]]:
    """(name, our seconds or milliseconds) of what a bench recorded."""
    for line in record.read_text().splitlines():
        row = json.loads(line)
        if bench == "loader":
            yield f"loader, an image of {row['size']}", 1000 / row["images_per_second"]["ours"]
            continue
        for side, seconds in row["seconds"].items():
            if side.startswith("ours"):
                yield f"{bench} {row['model']} {row['batch']} {side}", seconds


def works(bench: str, data: Path | None) -> list[list[str]]:
    """Arguments of the parts of a bench that are run one by one; `data` is that of the loader."""
    if bench == "ops":
        return [[case.name] for case in CASES if case.unit == "ms"]
    return [[*ARGUMENTS[bench], *(["--data", str(data)] if bench == "loader" else [])]]


def run(checkout: Path, bench: str, arguments: list[str]) -> dict[str, float]:
    """Our times of a bench in a checkout, by row."""
    python = checkout / ".hatch" / "default" / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"{checkout} has no environment yet: run `hatch run python -V` there.")
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "rows"
        tools = checkout / "tools" / "bench"
        command: list[str | Path] = [python, tools, bench, *arguments, "--json", record]
        if bench == "ops":
            command = [python, "-P", Path(__file__).with_name("alone.py"), *arguments]
        environment = {**os.environ, "PYTHONPATH": f"{checkout}{os.pathsep}{tools}"}
        done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"`bench {bench}` failed in {checkout}:\n{done.stderr}")
        return {arguments[0]: float(done.stdout)} if bench == "ops" else dict(rows(bench, record))


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the older checkout")
    parser.add_argument("--benches", nargs="+", choices=list(ARGUMENTS), help="all that there is data for")
    parser.add_argument("--data", type=Path, help="data set in the COCO layout, for the loader")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=1.03, help="largest ratio of the time now to the time before")
    parser.add_argument("--check", action="store_true", help="status 1 where a ratio is over the limit")
    options = parser.parse_args(args)
    benches = options.benches or [bench for bench in ARGUMENTS if bench != "loader" or options.data]
    if "loader" in benches and options.data is None:
        parser.error("the loader is measured on a data set: --data DATA")
    print(f"{'work':<50} {'before':>9} {'now':>9} {'ratio':>7}")
    missed = False
    sides = (options.before.resolve(), ROOT)
    for bench in benches:
        unit = "ms" if bench in ("ops", "loader") else "s"
        for arguments in works(bench, options.data and options.data.resolve()):
            taken: dict[str, dict[Path, list[float]]] = defaultdict(lambda: defaultdict(list))
            for number in range(options.rounds):
                for checkout in sides if number % 2 == 0 else reversed(sides):
                    for name, value in run(checkout, bench, arguments).items():
                        taken[name][checkout].append(value)
            for name, found in taken.items():
                if len(found) == len(sides):
                    before, now = (min(found[path]) for path in sides)
                    verdict = "" if now <= options.limit * before else "  OVER"
                    missed |= bool(verdict)
                    times = f"{before:6.3f} {unit:<2} {now:6.3f} {unit:<2}"
                    print(f"{name:<50} {times} {now / before:6.3f}x{verdict}", flush=True)
    return int(options.check and missed)


if __name__ == "__main__":
    sys.exit(main())
