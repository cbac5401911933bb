"""Checkpoint files: written whole or not at all, checked when read, loaded without running code.

A file is what `torch.save` writes followed by a seal (`archive`), so that `torch.load(path, weights_only=True)` reads
it too. Its content is a dict of tensors and plain values (`content`).
"""

import contextlib
import os
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import nn

from det_engine import content
from det_engine.__about__ import __version__
from det_engine.archive import SealingWriter, is_sealed, is_whole
from det_engine.errors import EngineError
from det_engine.model import plain_name, plain_state, unwrapped

FORMAT = "det-engine checkpoint"


def save(path: Path, state: Mapping[str, Any], *, keep: Path | None = None) -> None:
    """Write a checkpoint so that at every moment `path` is either the old file or the complete new one.

    The new file is written beside `path`, forced to disk, and put in its place by one rename.

    Args:
        path: the file.
        state: tensors (of any device), plain values, and dicts, lists and tuples of them.
        keep: where the file that `path` held until now is kept, if it is whole.

    Raises:
        EngineError: the disk is full or the folder cannot be written; the old files are intact.
        OSError: another error while writing; the old files are intact.
        RuntimeError: torch cannot write; the old files are intact.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.writing")
    whole = {"format": FORMAT, "version": content.VERSION, "written_by": f"det-engine {__version__}", **state}
    writer = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # of an earlier process, or a link to who knows where
        with temporary.open("xb") as file:
            writer = SealingWriter(file)
            torch.save(_on_cpu(whole), cast("BinaryIO", writer))
            writer.seal()
            file.flush()
            os.fsync(file.fileno())
            if not (temporary.exists() and os.path.samestat(os.fstat(file.fileno()), temporary.stat())):
                raise EngineError(f"Checkpoint {path} is being written by another process too. Name another file.")
        # A file that was damaged since it was written must not replace the one before, which may be the last good one.
        if keep is not None and path.exists() and is_whole(path):
            link(path, keep)
        temporary.replace(path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        # torch wraps an error of the disk in a RuntimeError of its own while it closes the archive.
        cause = writer.error if writer is not None and writer.error is not None else error
        if not isinstance(cause, OSError):
            raise
        old = "the checkpoint written before is intact" if path.exists() else "no checkpoint was written"
        raise EngineError(
            f"Cannot write the checkpoint {path}: {cause.strerror or cause}; {old}. Free space or make the folder "
            f"writable, then resume."
        ) from error


def snapshot(value: Any) -> Any:
    """A copy of `value` with its tensors on the CPU, which stays as it is while a training goes on."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        return value.clone() if value.device.type == "cpu" else value.cpu()
    return _mapped(value, snapshot)


def _on_cpu(value: Any) -> Any:
    """`value` with its tensors on the CPU, so that a file does not depend on the device that it was written on."""
    return value.detach().cpu() if isinstance(value, torch.Tensor) else _mapped(value, _on_cpu)


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: function(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(function(item) for item in value)
    return value


class Writer:
    """Writes checkpoints beside the training, one after the other; a context manager that waits for the last one."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True)

    def save(
        self, path: Path, state: Mapping[str, Any], *, keep: Path | None = None, names: Sequence[Path] = ()
    ) -> None:
        """Take a snapshot of `state` and return; write it as the function `save` does.

        Args:
            path: the file.
            state: content.
            keep: where the file that `path` held until now is kept.
            names: further ones that the file gets as well.

        Raises:
            EngineError: an earlier checkpoint could not be written.
        """
        self.wait()
        self._pending = self._thread.submit(_write, path, snapshot(state), keep, names)

    def check(self) -> None:
        """Raise the error of a checkpoint that could not be written, if it is known by now."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until everything is written, or raise why it cannot be."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def _write(path: Path, state: Mapping[str, Any], keep: Path | None, names: Sequence[Path]) -> None:
    save(path, state, keep=keep)
    for name in names:
        try:
            link(path, name)
        except OSError as error:
            raise EngineError(f"Cannot write the checkpoint {name}: {error.strerror or error}.") from error


def link(source: Path, target: Path) -> None:
    """Give `source` the second name `target` (a copy where the file system has no links), replacing it atomically."""
    temporary = target.with_name(f"{target.name}.linking")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)
    temporary.unlink(missing_ok=True)  # POSIX: of two names of one file, renaming one to the other does nothing


def _sync_folder(folder: Path) -> None:
    # Makes the rename itself survive a power cut; not possible on Windows.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without running any code that it might hold.

    Raises:
        EngineError: the file is missing, cannot be read, is damaged, is no checkpoint of this engine, is of a later
            version of the format, or an entry is something else than it should be.
    """
    path = Path(path)
    if not path.is_file():
        raise EngineError(f"Checkpoint {path} is not there{' (it is a folder)' if path.is_dir() else ''}.")
    try:
        whole = is_whole(path)
    except OSError as error:
        raise EngineError(f"Checkpoint {path} cannot be read: {error.strerror or error}.") from error
    if not whole:
        raise EngineError(
            f"File {path} is truncated, damaged or no checkpoint at all: its content does not match its checksum. Use "
            f"another one."
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    # torch parses whatever it finds in a foreign file, and fails accordingly.
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        raise EngineError(f"File {path} is no checkpoint of det-engine ({reason}).") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        held = f"keys {', '.join(map(str, list(state)[:4]))}" if isinstance(state, dict) else type(state).__name__
        raise EngineError(f"File {path} is no checkpoint of det-engine: it holds {held}.")
    content.check_version(state, path)
    content.check_size(state, path)
    content.check_entries(state, content.TRAINING, path)
    return state


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is a checkpoint of this engine, by its content; `load` says whether it is intact."""
    path = Path(path)
    try:
        if is_sealed(path):
            return True
        # One that someone loaded and saved again has no seal.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, LookupError, ValueError, AttributeError, OSError):
        return False
    return isinstance(state, dict) and state.get("format") == FORMAT


def load_first(paths: list[Path]) -> tuple[dict[str, Any], Path, list[str]]:
    """The first of several checkpoints that can be read, its path, and the messages of those that could not.

    Raises:
        EngineError: none can be read.
    """
    failures: list[str] = []
    for path in paths:
        try:
            return load(path), path, failures
        except EngineError as error:
            failures.append(str(error))
    raise EngineError(" ".join(failures))


def weights(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint to use for inference: averaged ones where the training averaged, else the last."""
    return {**state["model"], **(state.get("average") or {})}


def load_model(model: nn.Module, tensors: Mapping[str, torch.Tensor], source: Path | str) -> None:
    """Give `model` the parameters and buffers of a checkpoint, all of them and nothing else.

    Args:
        model: the module that takes them; names are those without what wraps it (`torch.compile`, FSDP).
        tensors: a state dict.
        source: where it came from, for the message.

    Raises:
        EngineError: names or shapes differ, so the checkpoint is of another architecture; names the first of each.
    """
    own = plain_state(model)
    # Frozen layers count no batches; what else is frozen, the optimizer's state says.
    own = {name: tensor for name, tensor in own.items() if name in tensors or not _is_counter(name)}
    tensors = {name: tensor for name, tensor in tensors.items() if name in own or not _is_counter(name)}
    differences = [f"{name} is not in the file" for name in own if name not in tensors][:3]
    differences += [f"{name} is not in the model" for name in tensors if name not in own][:3]
    differences += [
        f"{name} is {tuple(tensors[name].shape)} in the file and {tuple(own[name].shape)} in the model"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ][:3]
    differences += [
        f"{name} is {_kind(tensors[name])} in the file and {_kind(own[name])} in the model"
        for name in own
        if name in tensors and _number(tensors[name]) != _number(own[name])
    ][:3]
    if differences:
        raise EngineError(f"Checkpoint {source} is of another architecture: {'; '.join(differences)}.")
    actual = {plain_name(name): name for name in unwrapped(model).state_dict()}
    named = {actual[name]: tensor for name, tensor in tensors.items()}
    unwrapped(model).load_state_dict(named, strict=False)


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _kind(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _number(tensor: torch.Tensor) -> tuple[bool, bool]:
    """Real or complex, floating or not: what copying a tensor may not change."""
    return tensor.is_floating_point(), tensor.is_complex()
