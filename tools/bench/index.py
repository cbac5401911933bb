"""Opening annotation files beside pycocotools: CPU seconds and memory of one process, and of 40 processes together.

    hatch run bench index [--images 30000] [--objects 220000] [--decimals 2]

By default a file like a quarter of COCO's train2017: 30,000 images of 640 x 480, 220,000 polygons of 24 points on
average, with two decimals. Each measurement has a process of its own, which has imported everything before. The file is
in the system's memory, so that no disk is measured. *First* is an opening with an empty cache, which it fills; *later*
finds it filled. The 40 processes are 8 that open the file at once, each with 4 workers, and all look at every point.
"""

import argparse
import json
import multiprocessing
import os
import re
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from measuring import append, peak_memory

HEIGHT, WIDTH, CLASSES = 480, 640, 80
RANKS, WORKERS = 8, 4


def write_file(file: Path, images: int, objects: int, decimals: int) -> None:
    """Write an annotation file as COCO's are, its objects in no order."""
    random = np.random.default_rng(0)
    sides = np.exp(random.uniform(np.log(12), np.log(300), (objects, 2)))
    corners = random.random((objects, 2)) * ((WIDTH, HEIGHT) - sides)
    counts = np.maximum(4, random.gamma(1.6, 15, objects)).astype(int)
    owners = random.integers(0, images, objects).tolist()
    classes = np.minimum(random.exponential(CLASSES / 5, objects).astype(int), CLASSES - 1).tolist()
    with file.open("w") as out:
        out.write('{"info":{"description":"synthetic"},"licenses":[],"images":')
        json.dump([_image(n) for n in range(images)], out, separators=(",", ":"))
        out.write(',"annotations":[')
        for n in range(objects):
            angles = np.linspace(0, 2 * np.pi, counts[n], endpoint=False)
            radii = 0.5 * (1 - 0.3 * random.random((counts[n], 1)))
            outline = corners[n] + sides[n] * (0.5 + radii * np.stack((np.cos(angles), np.sin(angles)), axis=1))
            box = np.round([*corners[n], *sides[n]], decimals)
            polygon = np.round(outline, decimals).reshape(-1).tolist()
            annotation = {
                "segmentation": [polygon], "area": float(sides[n].prod() * 0.6), "iscrowd": 0,
                "image_id": 17 * owners[n] + 9, "bbox": box.tolist(), "category_id": classes[n] + 1, "id": 900000 + n,
            }  # fmt: skip
            out.write("," * bool(n) + json.dumps(annotation, separators=(",", ":")))
        names = [{"supercategory": "thing", "id": n + 1, "name": f"class {n}"} for n in range(CLASSES)]
        out.write('],"categories":' + json.dumps(names, separators=(",", ":")) + "}")


def _image(number: int) -> dict[str, Any]:
    address = f"http://images.cocodataset.org/train2017/{number:012d}.jpg"
    return {
        "license": 3, "file_name": f"{number:012d}.jpg", "coco_url": address, "height": HEIGHT, "width": WIDTH,
        "date_captured": "2013-11-14 11:18:45", "flickr_url": address, "id": 17 * number + 9,
    }  # fmt: skip


def open_ours(file: Path) -> Any:
    """Open a file with det_coco."""
    from det_coco import CocoIndex

    return CocoIndex.load(file, file.parent, check_images=False)


def open_pycocotools(file: Path) -> Any:
    """Open a file with pycocotools."""
    from pycocotools.coco import COCO

    return COCO(str(file))


def measure(opens: Any, file: Path) -> tuple[float, float]:
    """CPU seconds and more memory in MiB of an opening, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (opens, file))


def _measured(opens: Any, file: Path) -> tuple[float, float]:
    import pycocotools.coco  # noqa: F401

    import det_coco  # noqa: F401

    before, began = peak_memory(reset=True), time.process_time()
    kept = opens(file)
    seconds = time.process_time() - began
    more = peak_memory() - before
    del kept
    return seconds, more


def share(file: Path) -> tuple[int, float]:
    """How often the file is read when all ranks open it, and the memory of all ranks and workers for it, in MiB."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_shared, file).result()


def _shared(file: Path) -> tuple[int, float]:
    from det_coco import annotations
    from det_coco._json import FileText

    context = multiprocessing.get_context("fork")
    reads, total, ranks = context.Value("i", 0), context.Value("d", 0.0), context.Barrier(RANKS * (1 + WORKERS))
    split = annotations.split_text

    def counted(file: Path, source: FileText) -> tuple[Any, Any]:
        with reads.get_lock():
            reads.value += 1
        return split(file, source)

    annotations.split_text = counted

    def look(index: Any) -> None:
        index.masks.points.sum()
        ranks.wait(600)  # all have the pages before any is asked for its part of them, and until all have been
        with total.get_lock():
            total.value += _proportional(index)
        ranks.wait(600)

    def rank() -> None:
        index = open_ours(file)
        workers = [context.Process(target=look, args=(index,)) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        look(index)
        for worker in workers:
            worker.join()

    processes = [context.Process(target=rank) for _ in range(RANKS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return reads.value, total.value


def _proportional(index: Any) -> float:
    """This process's part of the pages that hold the points, each page divided by those who have it, in MiB."""
    start = index.masks.points.__array_interface__["data"][0]
    maps = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    for text in maps[1:]:
        first, last = (int(end, 16) for end in text.split(maxsplit=1)[0].split("-"))
        if first <= start < last:
            return int(re.findall(r"Pss:\s+(\d+)", text)[0]) / 1024
    return 0.0


def main(args: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=30000)
    parser.add_argument("--objects", type=int, default=220000)
    parser.add_argument("--decimals", type=int, default=2, help="of coordinates; 17: as Python writes what it computed")
    parser.add_argument("--repeat", type=int, default=3, help="openings of each kind, of which the median counts")
    parser.add_argument("--json", type=Path, help="file to append a line per row to, such as benchmarks/results.jsonl")
    options = parser.parse_args(args, argparse.Namespace(device="cpu", threads=1))
    with tempfile.TemporaryDirectory() as folder:
        append(compare(Path(folder), options), options)


def compare(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Print and give a row for the first opening and for later ones."""
    file = folder / "instances.json"
    write_file(file, options.images, options.objects, options.decimals)
    print(f"{options.images} images, {options.objects} objects, {file.stat().st_size >> 20} MiB; MiB above the base")
    print(f"{'':<16} {'ours':>16} {'pycocotools':>16} {'faster':>8} {'target':>7} {'memory':>8} {'target':>7}")
    taken: dict[str, list[tuple[float, float]]] = {"theirs": [], "first": [], "later": []}
    for turn in range(options.repeat):
        os.environ["DET_CACHE"] = str(folder / f"cache{turn}")
        taken["first"].append(measure(open_ours, file))
        taken["later"].append(measure(open_ours, file))
        taken["theirs"].append(measure(open_pycocotools, file))
    medians = {kind: tuple(map(statistics.median, zip(*pairs, strict=True))) for kind, pairs in taken.items()}
    theirs, rows = medians["theirs"], []
    for kind, faster, memory in (("first", 4, 0.5), ("later", 100, 0.1)):
        own = medians[kind]
        print(
            f"{kind + ' opening':<16} {own[0]:7.3f} s {own[1]:4.0f} M {theirs[0]:8.3f} s {theirs[1]:4.0f} M "
            f"{theirs[0] / own[0]:7.1f}x {faster:6}x {own[1] / theirs[1]:7.3f}x {memory:6}x"
        )
        rows.append(
            {"bench": "index", "work": f"{kind} opening", "images": options.images, "objects": options.objects,
             "target": faster, "cpu_seconds": {"ours": own[0], "pycocotools": theirs[0]},
             "mebibytes": {"ours": own[1], "pycocotools": theirs[1]}}
        )  # fmt: skip
    os.environ["DET_CACHE"] = str(folder / "shared")
    reads, total = share(file)
    print(f"{RANKS} ranks with {WORKERS} workers each: read {reads} time(s), {total:.0f} M of points in all of them")
    return [*rows, {"bench": "index", "work": f"{RANKS} ranks", "reads": reads, "mebibytes": {"ours": total}}]
