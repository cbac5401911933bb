"""From a checkpoint to a file that another runtime runs: ONNX, OpenVINO, torch.export, AOTInductor, ExecuTorch."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
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
from det_models.exporting.int8 import Feed, quantize
from det_models.exporting.onnx import quiet, write_onnx
from det_models.exporting.openvino import write_openvino
from det_models.exporting.program import Program, exported_program
from det_models.exporting.settings import SUFFIXES, Precision, Settings, Target, sees_padding, shapes_of
from det_models.exporting.torch_archives import write_aoti, write_pt2
from det_models.images import batches_of
from det_models.inference import optimize_for_inference, plain_tensors
from det_models.weights import Weights, open_weights

__all__ = ["Settings", "export"]

Shape = tuple[int, int]
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def export(
    weights: str | os.PathLike[str] | Weights,
    path: str | os.PathLike[str],
    to: Target = "onnx",
    *,
    batch: int | Literal["dynamic"] | None = None,
    size: tuple[int, int] | None = None,
    buckets: bool | None = None,
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
            its usual resize is made smaller.
        buckets: Without a size, a file for each of the configuration's shapes, landscape and portrait, whose names end
            so; False: one file, of a shape that holds all pictures. By default a file for each where the network sees
            the padding (:func:`~det_models.exporting.settings.sees_padding`), and one where it does not.
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
    built = source.build()
    buckets = size is None and sees_padding(built) if buckets is None else buckets
    network = optimize_for_inference(built, torch.device("cpu"))
    dtype = DTYPES.get(precision) if to in ("pt2", "aoti") else None  # the others have graphs that can be changed
    layout = torch.contiguous_format if to == "executorch" else torch.channels_last  # whose kernels add no two layouts
    program = Program(
        network, model, preprocessing=preprocessing, masks=masks, dtype=dtype, memory_format=layout
    ).eval()
    shapes = shapes_of(model, size, buckets=buckets)
    with plain_tensors():
        fed = _fed(program, model, settings, shapes, calibration if precision == "int8" else ())
    card: dict[str, Any] = {}
    left: tuple[str, ...] | None = None
    written: dict[Shape, Path] = {}
    for shape in shapes:
        file = path if len(shapes) == 1 else path.with_stem(f"{path.stem}-{shape[0]}x{shape[1]}")
        with plain_tensors():
            card, left = _write(program, source, settings, shape, file, fed[shape], left)
        written[shape] = file
    weights_of = [file.with_suffix(".bin") for file in written.values() if to == "openvino"]
    card = json.loads(json.dumps(card))
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
    feeds: Sequence[Feed],
    left: tuple[str, ...] | None,
) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """Write one file, and return its card, and which parts are left in float, where it is in 8 bits."""
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
            graph = Path(folder) / "float.onnx"
            _write_graph(exported, graph, card, settings)
            if settings.precision == "int8":
                small = graph.with_name("int8.onnx")
                left = quantize(graph, small, feeds, left=left)[-1].left
                graph = small
            if settings.to == "openvino":
                write_openvino(graph, file, metadata=card)
            else:
                shutil.copyfile(graph, file)
    return card, left


def _write_graph(exported: Any, path: Path, card: dict[str, Any], settings: Settings) -> None:
    """Write the program as a graph of ONNX."""
    changes = ((halve, settings.precision == "fp16"), (prepare, settings.ascend))
    names = {"inputs": list(card["inputs"]), "outputs": list(card["outputs"])}
    wanted = [change for change, needed in changes if needed]
    with quiet():
        write_onnx(exported, path, **names, metadata=card, changes=wanted)


def _fed(
    program: Program, model: ModelConfig, settings: Settings, shapes: Sequence[Shape], pictures: Iterable[Any]
) -> dict[Shape, list[Feed]]:
    """Pictures as files take them, each for the file that it is for; all of them for one that none is for."""
    pictures = list(pictures)
    fed: dict[Shape, list[Feed]] = {shape: [] for shape in shapes}
    for picture in pictures:
        feed = _feed(program, model, settings, shapes, picture)
        fed[feed["images"].shape[2:]].append(feed)
    for shape in shapes:
        fed[shape] = fed[shape] or [_feed(program, model, settings, [shape], picture) for picture in pictures]
    return fed


def _feed(program: Program, model: ModelConfig, settings: Settings, shapes: Sequence[Shape], picture: Any) -> Feed:
    """A picture as the file takes it, of the shapes that fits it best."""
    resize = FittingResize.of(model.resize, tuple(shapes))
    ((_, batch),) = batches_of([picture], resize, BatchShape(buckets=tuple(shapes), masks="none"), 1)
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
