"""Reads the arrays of a weights file without running what is in it.

Which format it is follows from the content, which is verified first (:mod:`det_backbones.integrity`). Pickles run code
when loaded, so those of Caffe2 and detectron2 go through an unpickler that knows numpy arrays and containers only, and
those of PyTorch through `torch.load(weights_only=True)`. Both know by name the numbers of numpy and the metadata which
the files of training frameworks carry, and restore none of it.
safetensors has no code in it, and is what is written.
"""

import io
import json
import os
import pickle
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from det_backbones import unpickling
from det_backbones.errors import WeightsError
from det_backbones.integrity import CHECKSUM, check_pickle, check_size, checksum, is_whole
from det_backbones.wrapping import unwrap

# A legacy (not zip) torch.save starts with a pickled magic number.
_TORCH_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_ZIP = b"PK\x03\x04"
_LONGEST_HEADER = 100_000_000  # as safetensors itself reads them


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsFile:
    """What a weights file holds.

    Attributes:
        arrays: On the CPU, under the file's own names, without what wraps them (:mod:`det_backbones.wrapping`).
        metadata: What lies beside the dictionary of the arrays (mmdetection's "meta", an optimiser's state): plain
            values; objects are empty stand-ins. Of safetensors, its texts by name, those in JSON as what they say.
        unwrapped: What was stripped from around the arrays, such as "module." before their names; one phrase each.
    """

    arrays: dict[str, Tensor]
    metadata: dict[str, Any]
    unwrapped: tuple[str, ...] = ()


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The arrays of :func:`read_weights`, which says what is read and raised."""
    return read_weights(path).arrays


def read_weights(path: str | os.PathLike[str]) -> WeightsFile:
    """The named arrays of a weights file and what it says beside them.

    Reads Caffe2's pickles (flat, or in "blobs"), detectron2's (in "model"), safetensors and what `torch.save` wrote (a
    state dict, also in one of :data:`det_backbones.wrapping.CONTAINERS`), runs of det-engine among them. Checksums are
    verified where there are any. Entries that are not arrays are left out, and so are Caffe2's momenta. What parallel,
    compiled and averaged models, FSDP and Lightning put before names is stripped; a moving average is taken before the
    model beside it. The file is opened once.

    Args:
        path: The file.

    Raises:
        WeightsError: The file does not exist, is damaged, is not of these formats, names objects that are neither
            arrays nor known metadata, or has no array.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = _content(file, path)
            check_size(content, file)
    except OSError as error:
        raise WeightsError(f"The weights file {path} cannot be read ({error.strerror or error}).") from error
    except WeightsError:
        raise
    except ValueError as error:  # from `check_size`
        raise WeightsError(_damaged(path, error)) from error
    named, metadata, unwrapped = unwrap(content)
    arrays = {}
    for name, value in named.items():
        if isinstance(value, np.ndarray) and not name.endswith("_momentum"):
            # Native byte order and own memory: what torch can hold.
            arrays[name] = torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
        elif isinstance(value, Tensor) and not value.is_sparse and not value.is_quantized:
            arrays[name] = value.detach()
    if not arrays:
        raise WeightsError(f"{path} holds no weights: no arrays by name were found in it.")
    return WeightsFile(arrays=arrays, metadata=metadata, unwrapped=tuple(unwrapped))


def write_weights(
    path: str | os.PathLike[str], arrays: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays as a safetensors file, which is complete before it has its name.

    Args:
        path: The file; one of that name is replaced.
        arrays: Tensors on any device, of any strides; ones that share memory are written once each.
        metadata: Text by name.

    Raises:
        WeightsError: The file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    # The format knows no strides and no memory that tensors share.
    plain = {name: torch.empty(value.shape, dtype=value.dtype).copy_(value.detach()) for name, value in arrays.items()}
    try:
        texts = dict(metadata or {})
        texts[CHECKSUM] = checksum(safetensors.torch.save(plain, texts))
        safetensors.torch.save_file(plain, partial, texts)
        partial.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"The weights file {path} cannot be written ({_first_sentence(str(error))}).") from error
    finally:
        partial.unlink(missing_ok=True)


def _content(file: BinaryIO, path: Path) -> Any:
    """What lies in an open file, of whichever format."""
    head = file.read(64)
    if not head:
        raise WeightsError(f"{path} is empty.")
    if not is_whole(file):
        raise WeightsError(f"{path} is damaged: its content does not match its checksum. Use another file.")
    file.seek(0)
    if head.startswith((_ZIP, _TORCH_LEGACY)):
        return _read_torch(file, path)
    # It begins with the length of its header, whose first byte may be that of a pickle.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER:
        return _read_safetensors(file, path)
    if head[0] == 0x80 or head[:1] in b"(}]c":
        return _read_pickle(file, path)
    hint = " It is a pointer of Git LFS; fetch the file it stands for." if b"git-lfs" in head else ""
    raise WeightsError(f"{path} is not a weights file: it starts with {head[:16]!r}.{hint}")


def _read_safetensors(file: BinaryIO, path: Path) -> Any:
    content = file.read()
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        texts = header.get("__metadata__", {})
        if CHECKSUM in texts and texts.pop(CHECKSUM) != checksum(content):
            raise ValueError("its content does not match its checksum")
        metadata = {name: _plain(text) for name, text in texts.items()}
        return metadata | {"state_dict": safetensors.torch.load(content)}
    except Exception as error:
        raise WeightsError(_damaged(path, error)) from error


def _plain(text: str) -> Any:
    """What a text of safetensors' metadata says, where that is more than a text."""
    if text[:1] not in ("{", "[", '"'):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read_pickle(file: BinaryIO, path: Path) -> Any:
    try:
        check_pickle(file)
        file.seek(0)
        return unpickling.load(file)
    except unpickling.UnsafeError as error:
        raise WeightsError(_unsafe(path, str(error))) from error
    except Exception as error:
        # Broken opcodes meet arbitrary operands, which raise anything.
        raise WeightsError(_damaged(path, error)) from error


def _read_torch(file: BinaryIO, path: Path) -> Any:
    try:
        _check_pickles(file)
        known: list[Any] = [(stand_in, name) for name, stand_in in unpickling.STAND_INS.items()]
        with torch.serialization.safe_globals(known):
            return unpickling.unwrap(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and "nsupported" in str(error):
            named = re.search(r"GLOBAL ([\w.]+)", str(error))
            raise WeightsError(_unsafe(path, named[1] if named else "other objects than tensors")) from error
        raise WeightsError(_damaged(path, error)) from error


def _check_pickles(file: BinaryIO) -> None:
    """Look over the pickle in an archive, or over those that a legacy file begins with; go back to its beginning."""
    file.seek(0)
    if file.read(len(_ZIP)) == _ZIP:
        file.seek(0)
        check_pickle(io.BytesIO(torch._C.PyTorchFileReader(file).get_record("data.pkl")))
    else:
        file.seek(0)
        for _ in range(4):  # a magic number, a version, facts about the machine, and the content
            check_pickle(file)
    file.seek(0)


def _unsafe(path: Path, what: str) -> str:
    return (
        f"{path} is not only weights: loading it would run {what}. It was not loaded; "
        f"save its tensors alone, for instance torch.save(model.state_dict(), file), where you trust its origin."
    )


def _damaged(path: Path, error: BaseException) -> str:
    return f"{path} is truncated or damaged ({_first_sentence(str(error)) or type(error).__name__}); get it again."


def _first_sentence(text: str) -> str:
    return text.strip().partition("\n")[0].partition(". ")[0][:160]
