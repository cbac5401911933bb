"""Finds a weights file on this machine, or downloads it.

A file is complete before it gets its name: it is written beside its place, its length is compared with what the server
announced and its SHA-256 sum with the published one, and then it is renamed. Where no sum is published the file must
read as weights, and its own sum is kept in `<file>.sha256`, which later uses are checked against. Where the addresses
of the authors cannot be reached, `$DET_WEIGHTS_MIRROR` names a folder on a server with the same files.
"""

import contextlib
import difflib
import glob
import hashlib
import http.client
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

import platformdirs
import torch.hub

from det_backbones.catalogue import WEIGHTS, PretrainedWeights
from det_backbones.errors import WeightsError
from det_backbones.reading import read_arrays

_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte

Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes received and the bytes expected (None where the server does not say)."""


def cache_directory() -> Path:
    """The folder of the weights: `$DET_CACHE/weights`, else `weights` in the user's cache folder for `det`."""
    root = os.environ.get("DET_CACHE") or platformdirs.user_cache_dir("det", appauthor=False)
    return Path(root).expanduser() / "weights"


def find_weights(
    weights: str | os.PathLike[str] | PretrainedWeights, *, download: bool = True, progress: Progress | None = None
) -> Path:
    """The path of a weights file, downloaded if need be.

    Args:
        weights: The path of a file; or a file name of :data:`WEIGHTS`, or such an entry, which is looked up in
            :func:`cache_directory`, then where torch.hub and detectron2 keep their downloads, then at its URL.
        download: Whether the network may be used.
        progress: Told how the download goes; by default a line on stderr where that is a terminal.

    Returns:
        The path of the file; of catalogued ones, with the right SHA-256 sum.

    Raises:
        WeightsError: The name is neither a file nor in the catalogue, the file in the cache is damaged, or it cannot be
            downloaded; the message names the file, its URL and where to put it.
    """
    if not isinstance(weights, PretrainedWeights):
        path = Path(weights).expanduser()
        if path.is_file():
            return path
        if str(weights) not in WEIGHTS:
            raise WeightsError(_unknown(str(weights), path))
        weights = WEIGHTS[str(weights)]

    place = cache_directory() / weights.file
    if place.is_file():
        expected = weights.sha256 or _kept_sum(place)
        if expected is not None and not (actual := _sha256(place)).startswith(expected):
            raise WeightsError(
                f"{place} is damaged: its SHA-256 sum is {actual}, expected {expected}. "
                f"Delete it, and get it again from {weights.url}."
            )
        return place
    for folder in _other_caches(weights):
        path = folder / weights.file
        if path.is_file() and (weights.sha256 is None or _sha256(path).startswith(weights.sha256)):
            return path
    if not download:
        raise WeightsError(f"{weights.file} is not on this machine. {_advice(weights, place)}")
    _download(weights, place, progress or _show)
    return place


def _unknown(name: str, path: Path) -> str:
    if path.name != name or path.suffix not in (".pkl", ".pth", ".pt", ""):
        return f"The weights file {path} does not exist."
    close = difflib.get_close_matches(name, WEIGHTS, n=len(WEIGHTS), cutoff=0.4)
    # Checksums in names resemble anything; how a name begins tells more.
    close.sort(key=lambda known: not known.startswith(Path(name).stem))
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"{name} is neither a file nor a published weights file.{hint} Published are: {', '.join(WEIGHTS)}."


def _advice(weights: PretrainedWeights, place: Path) -> str:
    return f"Download {weights.url} and put the file at {place}, or give the path of your copy."


def _other_caches(weights: PretrainedWeights) -> list[Path]:
    folders = [Path(torch.hub.get_dir()) / "checkpoints"]
    _, found, inside = weights.url.partition("dl.fbaipublicfiles.com/")
    if found:
        root = os.environ.get("FVCORE_CACHE", "~/.torch/iopath_cache")
        folders.append(Path(root).expanduser() / Path(inside).parent)
    return folders


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _kept_sum(place: Path) -> str | None:
    beside = place.with_name(place.name + ".sha256")
    if not beside.is_file():
        return None
    return beside.read_text(encoding="utf-8", errors="replace").partition(" ")[0].strip() or None


def _download(weights: PretrainedWeights, place: Path, progress: Progress) -> None:
    partial = place.with_name(f"{place.name}.{uuid.uuid4().hex}.partial")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _clear(place)
        try:
            digest = _receive(weights, partial, progress)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            raise WeightsError(
                f"{weights.file} could not be downloaded ({reason}). {_advice(weights, place)}"
            ) from error
        if weights.sha256 is not None and not digest.startswith(weights.sha256):
            raise WeightsError(
                f"{weights.file} came from {_source(weights)} with the SHA-256 sum {digest}, expected "
                f"{weights.sha256}; it was not kept. Try again, or put a good copy at {place}."
            )
        if weights.sha256 is None:
            try:
                read_arrays(partial)
            except WeightsError as error:
                raise WeightsError(
                    f"What came from {_source(weights)} is not a weights file, and was not kept: {error} "
                    f"Try again, or put a good copy at {place}."
                ) from error
            place.with_name(place.name + ".sha256").write_text(f"{digest}  {place.name}\n", encoding="utf-8")
        partial.replace(place)
    except OSError as error:
        raise WeightsError(
            f"{weights.file} could not be written to {place.parent} ({error.strerror or error}). "
            f"Set DET_CACHE to a folder that can be written, or give the path of your copy."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _clear(place: Path) -> None:
    """Delete what downloads of this file left that were killed; one that goes on has written lately."""
    for leftover in place.parent.glob(f"{glob.escape(place.name)}.*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > 2 * _TIMEOUT:
                leftover.unlink()


def _receive(weights: PretrainedWeights, partial: Path, progress: Progress) -> str:
    """Writes the file and returns its SHA-256 sum."""
    digest = hashlib.sha256()
    received = 0
    request = urllib.request.Request(_source(weights), headers={"User-Agent": "det-backbones"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response, partial.open("wb") as file:
        length = response.headers.get("Content-Length")
        expected = int(length) if length is not None and length.isdecimal() else None
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            progress(weights.file, received, expected)
    # A connection that closes early ends the stream without an error.
    if expected is not None and received != expected:
        raise ConnectionError(f"the connection ended after {received} of {expected} bytes")
    return digest.hexdigest()


def _source(weights: PretrainedWeights) -> str:
    """Where a file is downloaded from: its own address, or the same file name under `$DET_WEIGHTS_MIRROR`."""
    mirror = os.environ.get("DET_WEIGHTS_MIRROR")
    return f"{mirror.rstrip('/')}/{weights.file}" if mirror else weights.url


def _show(file: str, received: int, expected: int | None) -> None:
    if not sys.stderr.isatty():
        return
    of = f" of {expected / 1e6:.1f}" if expected is not None else ""
    end = "\n" if received == expected else ""
    print(f"\r{file}: {received / 1e6:.1f}{of} MB", end=end, file=sys.stderr, flush=True)
