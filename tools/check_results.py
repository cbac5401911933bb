"""Fail unless a run reached its figures: ``check_results.py results.json bbox.AP50=0.70 segm.AP50=0.60``."""

import json
import sys
from pathlib import Path


def main(results_file: str, *floors: str) -> int:
    results = json.loads(Path(results_file).read_text())
    missed = 0
    for floor in floors:
        name, _, least = floor.partition("=")
        task, _, metric = name.partition(".")
        reached = results[task][metric]
        missed += reached < float(least)
        print(f"{name}: {reached:.3f} (at least {least}){'' if reached >= float(least) else '  MISSED'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
