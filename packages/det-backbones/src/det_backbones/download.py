"""Finds a weights file on this machine, or downloads it.

A file is complete before it gets its name: it is written beside its place, its length is compared with what the server
announced and its sum with the published one, and then it is renamed. Where no sum is published the file must read as
weights, and its own sum is kept in `<file>.sha256`, which later uses are checked against. A connection that is cut is
taken up again where it ended, at once and by the next call. Where the addresses of the authors cannot be reached,
`$DET_WEIGHTS_MIRROR` names a folder on a server with the same files.
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

from det_backbones.catalogue import WEIGHTS, PublishedFile
from det_backbones.errors import WeightsError

_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte
_SUMS = {"sha256": "SHA-256", "md5": "MD5"}
_CUT = (http.client.HTTPException, TimeoutError, ConnectionError)

Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes received and the bytes expected (None where the server does not say)."""


def cache_directory() -> Path:
    """The folder of the weights: `$DET_CACHE/weights`, else `weights` in the user's cache folder for `det`."""
    root = os.environ.get("DET_CACHE") or platformdirs.user_cache_dir("det", appauthor=False)
    return Path(root).expanduser() / "weights"


def find_weights(
    weights: str | os.PathLike[str] | PublishedFile, *, download: bool = True, progress: Progress | None = None
) -> Path:
    """The path of a weights file, downloaded if need be.

    Args:
        weights: The path of a file; or a file name of :data:`WEIGHTS`, or any published file, which is looked up in
            :func:`cache_directory`, then where torch.hub and detectron2 keep their downloads, then at its URL.
        download: Whether the network may be used.
        progress: Told how the download goes; by default a line on stderr where that is a terminal.

    Returns:
        The path of the file; of published ones, with the right sum.

    Raises:
        WeightsError: The name is neither a file nor in the catalogue, the file in the cache is damaged, or it cannot be
            downloaded; the message names the file, its URL and where to put it.
    """
    if not isinstance(weights, PublishedFile):
        path = Path(weights).expanduser()
        if path.is_file():
            return path
        if str(weights) not in WEIGHTS:
            raise WeightsError(_unknown(str(weights), path))
        weights = WEIGHTS[str(weights)]

    place = cache_directory() / weights.file
    if place.is_file():
        if wrong := _wrong_sum(weights, place):
            raise WeightsError(
                f"{place} is damaged: it has the {wrong}. Delete it, and get it again from {weights.url}."
            )
        return place
    for folder in _other_caches(weights):
        path = folder / weights.file
        if path.is_file() and not _wrong_sum(weights, path):
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


def _advice(weights: PublishedFile, place: Path) -> str:
    return f"Download {weights.url} and put the file at {place}, or give the path of your copy."


def _other_caches(weights: PublishedFile) -> list[Path]:
    folders = [_hub() / "checkpoints"]
    _, found, inside = weights.url.partition("dl.fbaipublicfiles.com/")
    if found:
        root = os.environ.get("FVCORE_CACHE", "~/.torch/iopath_cache")
        folders.append(Path(root).expanduser() / Path(inside).parent)
    return folders


def _hub() -> Path:
    """The folder of torch.hub, which is asked only where torch, which takes seconds to load, is there already."""
    hub = sys.modules.get("torch.hub")
    if hub is not None:
        return Path(hub.get_dir())
    home = os.environ.get("TORCH_HOME", f"{os.environ.get('XDG_CACHE_HOME', '~/.cache')}/torch")
    return Path(home).expanduser() / "hub"


def _sum(path: Path, kind: str = "sha256") -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _wrong_sum(weights: PublishedFile, path: Path) -> str | None:
    """What is wrong with the sum of a file; None where it is as published, or as it was when it came."""
    for kind, expected in (("sha256", weights.sha256 or _kept_sum(path)), ("md5", weights.md5)):
        if expected is not None and not (actual := _sum(path, kind)).startswith(expected):
            return f"{_SUMS[kind]} sum {actual}, expected {expected}"
    return None


def _kept_sum(place: Path) -> str | None:
    beside = place.with_name(place.name + ".sha256")
    if not beside.is_file():
        return None
    return beside.read_text(encoding="utf-8", errors="replace").partition(" ")[0].strip() or None


def _download(weights: PublishedFile, place: Path, progress: Progress) -> None:
    partial = place.with_name(f"{place.name}.{uuid.uuid4().hex}.partial")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _take_over(place, partial)
        resumed = partial.is_file()
        try:
            _receive(weights, partial, progress)
            if resumed and _fault(weights, partial):  # its beginning may be that of an older file
                partial.unlink()
                _receive(weights, partial, progress)
        except (urllib.error.URLError, *_CUT) as error:
            reason = getattr(error, "reason", None) or error
            kept = " What came is kept, and the next try goes on from there." if partial.is_file() else ""
            raise WeightsError(
                f"{weights.file} could not be downloaded ({reason}).{kept} {_advice(weights, place)}"
            ) from error
        if fault := _fault(weights, partial):
            partial.unlink()
            raise WeightsError(f"{fault} Try again, or put a good copy at {place}.")
        if weights.sha256 is None and weights.md5 is None:
            line = f"{_sum(partial)}  {place.name}\n"
            place.with_name(place.name + ".sha256").write_text(line, encoding="utf-8")
        partial.replace(place)
    except OSError as error:
        raise WeightsError(
            f"{weights.file} could not be written to {place.parent} ({error.strerror or error}). "
            f"Set DET_CACHE to a folder that can be written, or give the path of your copy."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.rename(_left(place))


def _fault(weights: PublishedFile, partial: Path) -> str | None:
    """Why a file that came whole cannot be kept."""
    if wrong := _wrong_sum(weights, partial):
        return f"{weights.file} came from {_source(weights)} with the {wrong}; it was not kept."
    if weights.sha256 is None and weights.md5 is None:
        from det_backbones.reading import read_arrays

        try:
            read_arrays(partial)
        except WeightsError as error:
            return f"What came from {_source(weights)} is not a weights file, and was not kept: {error}"
    return None


def _left(place: Path) -> Path:
    """Where a download that ended early leaves what it has."""
    return place.with_name(f"{place.name}.partial")


def _take_over(place: Path, partial: Path) -> None:
    """Go on with what an earlier download left: one that ended, or one that was killed and has not written lately."""
    killed = [
        path
        for path in place.parent.glob(f"{glob.escape(place.name)}.*.partial")
        if time.time() - path.stat().st_mtime > 2 * _TIMEOUT
    ]
    for path in (_left(place), *killed):
        with contextlib.suppress(OSError):
            if partial.exists():
                path.unlink()
            else:
                path.rename(partial)  # of two processes that see it, one has it


def _receive(weights: PublishedFile, partial: Path, progress: Progress) -> None:
    """Download what the partial file lacks; after a cut once more, and again and again as long as it grows."""
    reached = -1
    while True:
        try:
            return _append(weights, partial, progress)
        except _CUT:
            if _size(partial) <= reached:
                raise
            reached = _size(partial)


def _append(weights: PublishedFile, partial: Path, progress: Progress) -> None:
    received = _size(partial)
    headers = {"User-Agent": "det-backbones"} | ({"Range": f"bytes={received}-"} if received else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(_source(weights), headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not received:
            raise
        partial.unlink()  # longer than the file
        return _append(weights, partial, progress)
    with response:
        length = response.headers.get("Content-Length")
        expected = int(length) if length is not None and length.isdecimal() else None
        if (response.headers.get("Content-Range") or "").startswith(f"bytes {received}-"):
            expected = None if expected is None else received + expected
        else:
            received = 0
        with partial.open("ab" if received else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                received += len(chunk)
                progress(weights.file, received, expected)
    # A connection that closes early ends the stream without an error.
    if expected is not None and received != expected:
        raise ConnectionError(f"the connection ended after {received} of {expected} bytes")
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _source(weights: PublishedFile) -> str:
    """Where a file is downloaded from: its own address, or the same file name under `$DET_WEIGHTS_MIRROR`."""
    mirror = os.environ.get("DET_WEIGHTS_MIRROR")
    return f"{mirror.rstrip('/')}/{weights.file}" if mirror else weights.url


def _show(file: str, received: int, expected: int | None) -> None:
    if not sys.stderr.isatty():
        return
    of = f" of {expected / 1e6:.1f}" if expected is not None else ""
    end = "\n" if received == expected else ""
    print(f"\r{file}: {received / 1e6:.1f}{of} MB", end=end, file=sys.stderr, flush=True)
