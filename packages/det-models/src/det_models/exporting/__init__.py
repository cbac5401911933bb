"""From a checkpoint to a file that another runtime runs: ONNX, OpenVINO, torch.export, AOTInductor, ExecuTorch."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from det_coco import BatchShape
from det_models.config import ModelConfig
from det_models.conversion import described
from det_models.errors import OptionError
from det_models.exported.fitting import FittingResize
from det_models.exported.runtimes import sha256
from det_models.exporting.ascend import atc_command, prepare
from det_models.exporting.card import card_of, card_path, example_path
from det_models.exporting.example import example
from det_models.exporting.executorch import write_executorch
from det_models.exporting.half import halve
from det_models.exporting.int8 import quantize
from det_models.exporting.onnx import quiet, write_onnx
from det_models.exporting.openvino import write_openvino
from det_models.exporting.program import Program, exported_program
from det_models.exporting.settings import SUFFIXES, Precision, Settings, Target, shapes_of
from det_models.exporting.torch_archives import write_aoti, write_pt2
from det_models.images import batches_of
from det_models.inference import optimize_for_inference, plain_tensors
from det_models.weights import Weights, open_weights

__all__ = ["Settings", "export"]

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def export(
    weights: str | os.PathLike[str] | Weights,
    path: str | os.PathLike[str],
    to: Target = "onnx",
    *,
    batch: int | Literal["dynamic"] | None = None,
    size: tuple[int, int] | None = None,
    buckets: bool = False,
    precision: Precision = "fp32",
    preprocessing: Literal["in", "out"] = "in",
    masks: Literal["full", "28", "none"] = "28",
    ascend: bool = False,
    calibration: Iterable[Any] = (),
) -> list[Path]:
    """Write a detector for another runtime, whole: suppression and masks are in the file.

    Beside it lie a card, `NAME.json`, with all that the file says of itself too, and an example, `NAME.py`, that needs
    NumPy and the runtime alone. :func:`det_models.load` takes the file, or the card.

    Args:
        weights: The detector, or a file that :func:`det_models.open_weights` reads.
        path: The file: `.onnx`, `.xml` for OpenVINO, `.pt2`, or `.pte` for ExecuTorch.
        to: The runtime, see :class:`~det_models.exporting.Settings`.
        batch: Images of a batch, or `dynamic`: any number of them. By default that, or 1 for ExecuTorch and Ascend.
        size: (height, width) in pixels that pictures are padded to, multiples of 32; a picture that is larger after
            its usual resize is made smaller. By default a shape that holds all of them.
        buckets: Instead, a file for each of the configuration's shapes, landscape and portrait, whose names end so.
        precision: Number format of weights and of convolutions and products: `fp32`, `fp16`, `bf16`, `int8`.
        preprocessing: `in`: the file takes RGB pixels of 0 to 255. `out`: it takes normalised ones.
        masks: `28`: as the network makes them; `full`: as large as the input; `none`.
        ascend: For Ascend's compiler: its operators alone, and the command line beside the file.
        calibration: Pictures, of any kind that a detector takes, from which `int8` learns the ranges of numbers.

    Returns:
        What was written, the card last.

    Raises:
        OptionError: An argument is none that this detector or runtime can have; the message names those that it can.
        CheckpointError: The file holds no detector, or one that cannot be built here.
    """
    if batch is None:
        batch = 1 if ascend or to == "executorch" else "dynamic"
    settings = Settings(
        to=to, batch=batch, precision=precision, preprocessing=preprocessing, masks=masks, ascend=ascend
    )
    path = Path(path)
    if path.suffix != SUFFIXES[to]:
        raise OptionError(f"The file must end with {SUFFIXES[to]} for {to}, got {path.name}.")
    source = weights if isinstance(weights, Weights) else open_weights(weights)
    model = source.network()
    network = optimize_for_inference(source.build(), torch.device("cpu"))
    dtype = DTYPES.get(precision) if to in ("pt2", "aoti") else None  # the others have graphs that can be changed
    layout = torch.contiguous_format if to == "executorch" else torch.channels_last  # whose kernels add no two layouts
    program = Program(
        network, model, preprocessing=preprocessing, masks=masks, dtype=dtype, memory_format=layout
    ).eval()
    shapes = shapes_of(model, size, buckets=buckets)
    pictures, cards = list(calibration), []
    written: dict[tuple[int, int], Path] = {}
    for shape in shapes:
        file = path if len(shapes) == 1 else path.with_stem(f"{path.stem}-{shape[0]}x{shape[1]}")
        with plain_tensors():
            cards.append(_write(program, source, settings, shape, file, pictures))
        written[shape] = file
    weights_of = [file.with_suffix(".bin") for file in written.values() if to == "openvino"]
    card = json.loads(json.dumps(cards[-1]))
    card["files"] = [[*shape, file.name] for shape, file in written.items()]
    card["sha256"] = {file.name: sha256(file) for file in (*written.values(), *weights_of)}
    card_path(path).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    example_path(path).write_text(example(card, card_path(path).name), encoding="utf-8")
    if ascend:
        commands = [atc_command(file, int(batch), shape) for shape, file in written.items()]
        path.with_suffix(".atc.sh").write_text("\n".join(commands), encoding="utf-8")
    beside = [path.with_suffix(".atc.sh")] if ascend else []
    return [*written.values(), *weights_of, *beside, example_path(path), card_path(path)]


def _write(
    program: Program,
    source: Weights,
    settings: Settings,
    shape: tuple[int, int],
    file: Path,
    pictures: Sequence[Any],
) -> dict[str, Any]:
    """Write one file, and return its card."""
    model = replace(source.network(), buckets=(shape,))
    exported = exported_program(program, shape, settings.batch)
    found = _outputs(exported, settings)
    card = card_of(
        model,
        source.categories,
        settings,
        shape,
        outputs=found,
        described=described(source, model),
        source=source.path.name,
    )
    if settings.to == "pt2":
        write_pt2(exported, file, metadata=card)
    elif settings.to == "aoti":
        write_aoti(exported, file, metadata=card)
    elif settings.to == "executorch":
        write_executorch(exported, file, metadata=card)
    else:
        with tempfile.TemporaryDirectory() as folder:
            feeds = [_feed(program, model, settings, picture) for picture in pictures]
            graph = _graph(exported, card, Path(folder), feeds, _changes(settings))
            if settings.to == "openvino":
                write_openvino(graph, file, metadata=card)
            else:
                shutil.copyfile(graph, file)
    return card


def _graph(
    exported: Any,
    card: dict[str, Any],
    folder: Path,
    feeds: Sequence[Any],
    changes: Sequence[Callable[[Any], None]],
) -> Path:
    """The program as a graph of ONNX in a folder."""
    graph = folder / "float.onnx"
    names = {"inputs": list(card["inputs"]), "outputs": list(card["outputs"])}
    with quiet():
        write_onnx(exported, graph, **names, metadata=card, changes=changes)
    if card["precision"] != "int8":
        return graph
    quantize(graph, folder / "int8.onnx", feeds)
    return folder / "int8.onnx"


def _changes(settings: Settings) -> list[Callable[[Any], None]]:
    """What is done to the graph."""
    wanted = ((halve, settings.precision == "fp16"), (prepare, settings.ascend))
    return [change for change, needed in wanted if needed]


def _feed(program: Program, model: ModelConfig, settings: Settings, picture: Any) -> dict[str, Any]:
    """A picture as the file takes it."""
    resize = FittingResize.of(model.resize, model.buckets)
    ((_, batch),) = batches_of([picture], resize, BatchShape(buckets=model.buckets, masks="none"), 1)
    images = batch["images"]
    if settings.preprocessing == "out":
        images = program.network.normalize(batch)
    count = 1 if settings.batch == "dynamic" else settings.batch
    feed = {"images": images, "image_sizes": batch["image_sizes"]}
    return {name: value.repeat(count, *[1] * (value.ndim - 1)).contiguous().numpy() for name, value in feed.items()}


def _outputs(exported: Any, settings: Settings) -> dict[str, tuple[str, list[Any]]]:
    """Type and shape of each output, by name."""
    specification = exported.graph_signature.output_specs
    nodes = {node.name: node.meta["val"] for node in exported.graph.nodes if "val" in node.meta}
    names = exported.call_spec.out_spec.context
    count: Any = "B" if settings.batch == "dynamic" else settings.batch
    return {
        name: (
            str(nodes[spec.arg.name].dtype).removeprefix("torch."),
            [count, *map(int, nodes[spec.arg.name].shape[1:])],
        )
        for name, spec in zip(names, specification, strict=True)
    }
