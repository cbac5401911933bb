"""The apps as a user calls them, but in this process and small."""

import json
import subprocess
from pathlib import Path
from typing import Any

from apps.cascade_rcnn.config import RECIPES as CASCADE_RCNN
from apps.common.app import App
from apps.common.main import main
from apps.faster_rcnn.config import RECIPES as FASTER_RCNN
from apps.mask_rcnn.config import RECIPES as MASK_RCNN
from apps.retinanet.config import RECIPES as RETINANET
from apps.yolact.config import RECIPES as YOLACT
from testing.processes import start_python

APPS = {
    "mask_rcnn": App(name="mask_rcnn", recipes=MASK_RCNN),
    "faster_rcnn": App(name="faster_rcnn", recipes=FASTER_RCNN),
    "cascade_rcnn": App(name="cascade_rcnn", recipes=CASCADE_RCNN),
    "yolact": App(name="yolact", recipes=YOLACT),
    "retinanet": App(name="retinanet", recipes=RETINANET),
}
# A tenth of a second a step; three sizes of images, so that their draw is part of what must be resumed.
NETWORK = "--backbone.width 8 --backbone.pyramid-channels 16 --detector.box.channels 32 --detector.rpn.samples 32"
SIZES = "--data.batch 2 --data.train-sizes 56 64 72 --data.test-size 64 --data.max-size 96"
SMALL = f"{NETWORK} {SIZES}".split()
SMALL_RETINANET = f"--backbone.width 8 --backbone.pyramid-channels 16 --detector.convs 1 {SIZES}".split()
STEPS = ["--solver.steps", "4", "--train.log-interval", "2"]
MASKS = ["--detector.mask.channels", "16"]
YOLACT_NETWORK = "--backbone.width 8 --backbone.pyramid-channels 16 --detector.channels 16 --detector.prototypes 8"
SMALL_YOLACT = f"{YOLACT_NETWORK} --data.batch 2 --data.size 64".split()


def call(app: str, *args: object) -> int:
    """Status of `hatch run apps/<app> ARGS`."""
    try:
        return main(APPS[app], [str(arg) for arg in args])
    except SystemExit as error:  # --help
        return int(error.code or 0)


def small(app: str) -> list[str]:
    """Options for a network and images that train in a second."""
    if app == "yolact":
        return [*SMALL_YOLACT]
    if app == "retinanet":
        return [*SMALL_RETINANET]
    return [*SMALL] if app == "faster_rcnn" else [*SMALL, *MASKS]


def train(app: str, data: Path, output: Path, *args: object) -> int:
    """Status of a training of four small steps."""
    return call(app, "train", "--data", data, "--output", output, *small(app), *STEPS, *args)


def process(app: str, *args: object, **options: Any) -> subprocess.Popen[str]:
    """The same in a process of its own."""
    return start_python("-m", f"apps.{app}", *args, **options)


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text())
