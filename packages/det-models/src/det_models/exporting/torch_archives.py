"""Programs as archives of PyTorch: `torch.export`'s, and compiled by AOTInductor."""

import io
import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from det_models.errors import OptionError

__all__ = ["MEMBER", "write_aoti", "write_pt2"]

MEMBER = "det.json"
"""The file in the archive that says what it is."""


def write_pt2(exported: Any, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """Write a program, with our operators in it: what `torch.export.load` reads where `det_ops` is imported."""
    archive = io.BytesIO()
    with warnings.catch_warnings():
        # Said of weights whose channels come last: they are saved whole, and read with their strides.
        warnings.filterwarnings("ignore", message="No complete tensor found in the group")
        torch.export.save(exported, archive)
    _write(archive, path, metadata)


def write_aoti(exported: Any, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """Compile a program for the processor of this machine: what `torch._inductor.aoti_load_package` reads.

    Raises:
        OptionError: It does not compile, as where there is no C++ compiler.
    """
    archive = io.BytesIO()
    try:
        torch._inductor.aoti_compile_and_package(exported, package_path=archive)
    except Exception as error:  # of any kind: it runs compilers
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise OptionError(f"AOTInductor did not compile the network ({reason}). It needs a C++ compiler.") from error
    _write(archive, path, metadata)


def _write(archive: io.BytesIO, path: Path, metadata: Mapping[str, Any]) -> None:
    """Add what the file says of itself, and write it: on a full disk, torch's own writer ends the whole process."""
    with zipfile.ZipFile(archive, "a") as file:
        root = file.namelist()[0].split("/")[0]
        file.writestr(f"{root}/{MEMBER}", json.dumps(metadata))
    path.write_bytes(archive.getbuffer())
