"""Exported files in the runtimes that they are for: arrays in, arrays out."""

import hashlib
import json
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from det_models.checkpoints import CheckpointError
from det_models.errors import missing_extra

__all__ = ["Run", "onnx_session", "open_runtime", "read_card"]

Run = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
"""Outputs by name, of `images` [B, 3, H, W] and `image_sizes` [B, 2]."""

MEMBER = "/det.json"


def read_card(path: Path) -> dict[str, Any] | None:
    """What an exported file says of itself, or None where it is none of ours.

    Raises:
        CheckpointError: It is damaged.
        OptionError: Its runtime is not installed.
    """
    readers = {".onnx": _of_onnx, ".xml": _of_openvino, ".pt2": _of_archive, ".pte": _of_executorch}
    reader = readers.get(path.suffix)
    if reader is None or not path.is_file():
        return None
    try:
        text = reader(path)
        return None if text is None else json.loads(text)
    except CheckpointError:
        raise
    except (OSError, ValueError, RuntimeError, RecursionError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise CheckpointError(f"{path} cannot be read: {reason}.") from error


def sha256(path: Path) -> str:
    """Checksum of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_runtime(path: Path, card: Mapping[str, Any], device: torch.device) -> Run:
    """The network in a file, loaded.

    Args:
        path: The file.
        card: What it says of itself.
        device: Where it is to run: `cpu`, or for ONNX and torch.export's archives another.

    Raises:
        CheckpointError: The runtime cannot load it, or not on this device.
        OptionError: The runtime is not installed.
    """
    try:
        return OPENERS[card["to"]](path, card, device)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise CheckpointError(f"{path} cannot be loaded by its runtime: {reason}.") from error


def _of_onnx(path: Path) -> str | None:
    return onnx_session(path, torch.device("cpu"), read_only=True).get_modelmeta().custom_metadata_map.get("det")


def onnx_session(path: Path, device: torch.device, *, read_only: bool = False) -> Any:
    """A graph in ONNX Runtime, with as many threads as PyTorch has.

    Args:
        path: The file.
        device: Where it runs.
        read_only: Whether only its metadata are wanted.

    Raises:
        CheckpointError: This ONNX Runtime has nothing for the device, or cannot read the file.
        OptionError: There is no ONNX Runtime.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_extra("onnx", "runs ONNX") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    if read_only:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    names = {"cuda": "CUDAExecutionProvider", "npu": "CANNExecutionProvider"}
    wanted = names.get(device.type, "CPUExecutionProvider")
    if wanted not in onnxruntime.get_available_providers():
        raise CheckpointError(f"{path} cannot run on {device}: this ONNX Runtime has no {wanted}.")
    try:
        return onnxruntime.InferenceSession(path, options, providers=[wanted])
    except Exception as error:  # its errors have no class in common
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise CheckpointError(f"{path} cannot be read by ONNX Runtime: {reason}.") from error


def _onnx(path: Path, card: Mapping[str, Any], device: torch.device) -> Run:
    session = onnx_session(path, device)
    names = list(card["outputs"])

    def run(images: np.ndarray, image_sizes: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {"images": images, "image_sizes": image_sizes}), strict=True))

    return run


def _of_openvino(path: Path) -> str | None:
    model = _core().read_model(path)
    return model.get_rt_info("det").astype(str) if model.has_rt_info("det") else None


def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise missing_extra("openvino", "runs OpenVINO's models") from error
    return openvino.Core()


def _openvino(path: Path, card: Mapping[str, Any], device: torch.device) -> Run:
    _refuse_other_than_cpu(path, device)
    # By default it computes in bfloat16 where the processor can, which changes the order of detections.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    model = _core().compile_model(path, "CPU", settings)
    names = list(card["outputs"])

    def run(images: np.ndarray, image_sizes: np.ndarray) -> dict[str, np.ndarray]:
        request = model.create_infer_request()  # of its own, so that threads do not share one
        request.infer({"images": images, "image_sizes": image_sizes})
        return {name: request.get_tensor(name).data.copy() for name in names}

    return run


def _of_archive(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} in it does not match its checksum")
        own = [name for name in archive.namelist() if name.endswith(MEMBER)]
        return archive.read(own[0]).decode() if own else None


def _pt2(path: Path, card: Mapping[str, Any], device: torch.device) -> Run:
    _refuse_other_than_cpu(path, device)
    return _of_tensors(torch.export.load(path).module(), card)


def _aoti(path: Path, card: Mapping[str, Any], device: torch.device) -> Run:
    _refuse_other_than_cpu(path, device)
    return _of_tensors(torch._inductor.aoti_load_package(str(path)), card)


def _of_tensors(program: Callable[..., Any], card: Mapping[str, Any]) -> Run:
    def run(images: np.ndarray, image_sizes: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            found = program(torch.from_numpy(images), torch.from_numpy(image_sizes))
        return {name: found[name].numpy() for name in card["outputs"]}

    return run


def _of_executorch(path: Path) -> str | None:
    program = _executorch_program(path)
    return program.load_method("det").execute([])[0] if "det" in program.method_names else None


def _executorch_program(path: Path) -> Any:
    try:
        from executorch.runtime import Runtime
    except ImportError as error:
        raise missing_extra("executorch", "writes and runs ExecuTorch's programs") from error
    return Runtime.get().load_program(path.read_bytes())  # of its own, so that a file can be replaced meanwhile


def _executorch(path: Path, card: Mapping[str, Any], device: torch.device) -> Run:
    _refuse_other_than_cpu(path, device)
    # A method reads the bytes that its program holds, and does not keep the program alive.
    program, names, lock = _executorch_program(path), list(card["outputs"]), threading.Lock()

    def run(images: np.ndarray, image_sizes: np.ndarray) -> dict[str, np.ndarray]:
        with lock:  # a method has one memory
            found = program.load_method("forward").execute([torch.from_numpy(images), torch.from_numpy(image_sizes)])
        return {name: value.numpy() for name, value in zip(names, found, strict=True)}

    return run


def _refuse_other_than_cpu(path: Path, device: torch.device) -> None:
    if device.type != "cpu":
        raise CheckpointError(f"{path} runs on the CPU alone, got {device}. Give --device cpu, or load the checkpoint.")


OPENERS = {"onnx": _onnx, "openvino": _openvino, "pt2": _pt2, "aoti": _aoti, "executorch": _executorch}
"""What loads a file, by the runtime that it is for."""
