"""A report of a results file as a user calls it: seconds from files to page, and the size of the page.

    hatch run bench report [--images 5000]

The data are those of `bench evaluate`, with boxes and masks, and twenty pictures of noise under the names of all.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from evaluate import CLASSES, HEIGHT, WIDTH, as_rows, make_data
from measuring import append
from PIL import Image

from det_coco.__main__ import main as det_coco

SECONDS, MEBIBYTES = 30, 20


def make_pictures(folder: Path, images: int) -> None:
    """Write pictures with edges and noise, and link all names to them."""
    random = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    (folder / "val").mkdir()
    for n in range(20):
        coarse = random.integers(0, 255, (HEIGHT // 40, WIDTH // 40, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT))) + random.normal(0, 6, (HEIGHT, WIDTH, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "pictures" / f"{n}.jpg")
    for n in range(images):
        (folder / "val" / f"{n}.jpg").symlink_to(folder / "pictures" / f"{n % 20}.jpg")


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--json", type=Path, help="file to append a line to, such as benchmarks/results.jsonl")
    options = parser.parse_args(args, argparse.Namespace(device="cpu", threads=1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "annotations").mkdir()
        results = make_data(folder / "annotations", options.images, CLASSES, 7.2, 70.2, masks=True)
        (folder / "annotations" / "instances.json").rename(folder / "annotations" / "instances_val.json")
        (folder / "results.json").write_text(json.dumps(as_rows(results)))
        make_pictures(folder, options.images)
        page = folder / "report.html"
        began, cpu = time.perf_counter(), time.process_time()
        status = det_coco(
            ["report", str(folder / "results.json"), "--data", str(folder), "--split", "val", "--output", str(page)]
        )
        if status:
            raise SystemExit(status)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        mebibytes = page.stat().st_size / 2**20
    print(f"{options.images} images, {len(results[0])} detections with masks")
    print(f"{seconds:.1f} s of {SECONDS} s ({cpu:.1f} s of one core), {mebibytes:.1f} MiB of {MEBIBYTES} MiB")
    append([{"bench": "report", "images": options.images, "seconds": seconds, "mebibytes": mebibytes}], options)


if __name__ == "__main__":
    main()
