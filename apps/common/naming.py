"""Options named beside what the packages' messages call parameters: `max_edges (--data.max-edges)`."""

import logging
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager

from apps.common.app import App
from det_coco import DataError
from det_coco.workers import naming_ended_workers
from det_engine import EngineError
from det_engine.cli import UsageError
from det_models import OptionError

_LOADING = {
    "max_instances": "--data.max-instances",
    "max_edges": "--data.max-edges",
    "max_polygons": "--data.max-polygons",
    "drop_excess": "--data.drop-excess True",
    "exif=False": "--data.exif False",
    "buckets": "--data.buckets",
    "workers": "--data.workers",
}
_DETECTING = {"exif=False": "--exif False", "max_detections": "--max-detections"}
_OPTIONS = {"train": _LOADING, "benchmark": _LOADING, "eval": _DETECTING, "predict": _DETECTING}
# What a detector is told, with which its messages begin.
_DETECTOR = {
    "batch": "--batch",
    "batch_size": "--batch",
    "classes": "--classes",
    "max_detections": "--max-detections",
    "nms_iou": "--nms-iou",
    "precision": "--precision",
    "size": "--size",
}
# What det_engine is told: its parameters, and the sections that they have in a recipe.
_TRAINING = re.compile(r"\b(solver|settings)\.([a-z]\w*)")
_SECTIONS = {"solver": "solver", "settings": "train"}
# Of a training, whose evaluations count what its detector finds.
_MAX_DETECTIONS = dict.fromkeys(("retinanet", "yolact"), "--detector.max-detections")


@contextmanager
def options_named(app: App, command: str) -> Generator[None]:
    """A block whose errors, and lines about data, name the options of a command.

    Args:
        app: of the command.
        command: its name.
    """
    options = _OPTIONS.get(command, {})
    if command == "train":
        options = {**options, "max_detections": _MAX_DETECTIONS.get(app.name, "--detector.box.max-detections")}

    def rename(record: logging.LogRecord) -> bool:
        record.msg, record.args = with_options(record.getMessage(), options), ()
        return True

    log = logging.getLogger("det_coco")
    log.addFilter(rename)
    try:
        with naming_ended_workers():
            yield
    except DataError as error:
        error.args = (with_options(str(error), options),)
        raise
    except OptionError as error:
        error.args = (_beginning_with_option(str(error)),)
        raise
    except EngineError as error:
        if command == "train" and not isinstance(error, UsageError):
            message = _TRAINING.sub(_section_named, str(error))
            error.args = (message.replace(": replay ", f": hatch run apps/{app.name} replay "),)
        raise
    finally:
        log.removeFilter(rename)


def with_options(message: str, options: Mapping[str, str]) -> str:
    """A message with options beside the parameters that it names, each where it comes first.

    Args:
        message: of a package.
        options: by parameter.
    """
    for parameter, option in options.items():
        # Not where it is part of a path.
        message = re.sub(rf"(?<![\w./\\-]){parameter}(?![\w/\\-]|\.\w)", f"{parameter} ({option})", message, count=1)
    return message


def _section_named(found: re.Match[str]) -> str:
    return f"{found[0]} (--{_SECTIONS[found[1]]}.{found[2].replace('_', '-')})"


def _beginning_with_option(message: str) -> str:
    parameter, space, rest = message.partition(" ")
    option = _DETECTOR.get(parameter)
    return message if option is None else f"{parameter} ({option}){space}{rest}"
