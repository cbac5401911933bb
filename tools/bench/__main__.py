"""``hatch run bench NAME [OPTIONS]``: measurements, each a table of ours, a peer and the ratio, from one run."""

import importlib
import sys
from pathlib import Path

BENCHES = {
    "ops": "operators beside torchvision and pycocotools",
    "train_step": "training steps of whole detectors beside torchvision's",
    "roofline": "what a training step asks of a GPU, counted without one",
    "infer": "inference of whole detectors beside torchvision's",
    "cpu": "a CPU in one table: float32 and bfloat16, YOLACT and memory, beside the peers",
    "growth": "time and memory against objects, area, classes and batch, beside torchvision's",
    "precision": "what bfloat16 costs in learning and in finding",
    "export": "exported detectors in their runtimes, beside their checkpoints",
    "int8": "detectors in 8 bits beside their checkpoints, by two ways of quantising",
    "yolact": "YOLACT beside the original: a picture with its masks, and the training step",
    "loader": "loading beside torchvision's data sets and transforms",
    "index": "opening annotation files beside pycocotools",
    "learn": "Mask R-CNN from scratch beside torchvision's",
    "evaluate": "COCO's metrics beside pycocotools, and LVIS's",
    "report": "a page about a results file",
    "cascade": "Cascade Mask R-CNN beside Mask R-CNN",
    "before": "an older checkout beside this one: operators, inference and training steps",
}


def main(args: list[str]) -> int:
    if not args or args[0] not in BENCHES:
        print("usage: hatch run bench NAME [OPTIONS]\n")
        for name, what in BENCHES.items():
            print(f"  {name:<10} {what}")
        return 0 if not args or args[0] in ("-h", "--help") else 2
    sys.path.insert(0, str(Path(__file__).parent))
    if args[0] not in ("ops", "before", "evaluate", "index", "report"):
        importlib.import_module("apps.common.process").tune()  # what it sets is read when torch loads
    return importlib.import_module(args[0]).main(args[1:]) or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
