"""Whether a weights file holds what was written into it, and whether it can be read in reasonable time and memory."""

import hashlib
import json
import os
import pickletools
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

# What det-engine's checkpoints and our pickles end with, before the SHA-256 of everything that precedes it.
_SEAL = b"det-engine sha256:"
CHECKSUM = "det_backbones.sha256"
"""Name in the metadata of a safetensors file that :func:`checksum` is kept under."""
_ZIP = b"PK\x03\x04"
_MOST = 10_000_000
_DEEPEST = 1000
_CHANGING = ("APPEND", "SETITEM", "BUILD")
# Times the size of a file that its content may take: archives may be compressed, and tensors share their numbers.
_GROWTH = 16


def is_whole(file: BinaryIO) -> bool:
    """Whether a file is undamaged as far as it can tell, by det-engine's seal or the checksums of a zip archive.

    True for other files, for archives without checksums, and for those whose end is missing, which readers notice.

    Args:
        file: Open for reading; left anywhere.
    """
    end = max(0, file.seek(0, os.SEEK_END) - len(_SEAL) - hashlib.sha256().digest_size)
    file.seek(end)
    seal = file.read()
    sealed = seal.startswith(_SEAL)
    if sealed and seal[len(_SEAL) :] != _digest(file, end):
        return False
    file.seek(0)
    return file.read(len(_ZIP)) != _ZIP or not zipfile.is_zipfile(file) or _archive_holds(file, checked=sealed)


def seal(file: BinaryIO) -> None:
    """End a file with a checksum of all that is in it, which readers of pickles do not look at.

    Args:
        file: Open for reading and writing; left at its end.
    """
    digest = _digest(file, file.seek(0, os.SEEK_END))
    file.seek(0, os.SEEK_END)
    file.write(_SEAL + digest)


def checksum(content: bytes) -> str:
    """The SHA-256 of all that a safetensors file says, but for the checksum in its metadata.

    Args:
        content: The whole file.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["__metadata__"] = {name: text for name, text in header.get("__metadata__", {}).items() if name != CHECKSUM}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(memoryview(content)[start:])
    return digest.hexdigest()


def _digest(file: BinaryIO, remaining: int) -> bytes:
    digest = hashlib.sha256()
    file.seek(0)
    while remaining:
        block = file.read(min(1 << 22, remaining))
        digest.update(block)
        remaining -= len(block)
    return digest.digest()


def check_size(content: Any, file: BinaryIO) -> None:
    """Refuse content that would take much more memory than its file, once it is copied.

    One number can stand for all those of a tensor, and many tensors can share theirs.

    Args:
        content: Nested dictionaries, lists and tuples of arrays and tensors; nothing in them is read.
        file: What it was read from; left at its end.

    Raises:
        ValueError: It is refused.
    """
    declared, seen, waiting = 0, set(), [content]
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        if isinstance(value, Tensor):
            declared += value.numel() * value.element_size()
        elif isinstance(value, np.ndarray):
            declared += value.nbytes
        elif isinstance(value, Mapping | list | tuple):
            waiting += value.values() if isinstance(value, Mapping) else value
        else:
            continue
        seen.add(id(value))
    size = file.seek(0, os.SEEK_END)
    if declared > _GROWTH * size:
        raise ValueError(f"its {size} bytes declare tensors of {declared} bytes")


def _archive_holds(file: BinaryIO, *, checked: bool) -> bool:
    """Whether an archive's entries are not too large for it, and unless checked otherwise, have their checksums."""
    size = file.seek(0, os.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _GROWTH * size:
                return False
            # torch.serialization.set_crc32_options(False) leaves all of them 0.
            return checked or not any(entry.CRC for entry in archive.infolist()) or archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, EOFError, OverflowError):
        return False


def check_pickle(file: BinaryIO) -> None:
    """Read over a pickle, executing nothing, and refuse one whose objects contain each other too often or too deeply.

    A few hundred bytes can describe a tuple that holds one tuple twice, which holds another one twice, and so on. To
    hash or print it takes longer than anyone lives, and one that is deep enough ends the process.

    Args:
        file: At the beginning of a pickle; left behind its end.

    Raises:
        ValueError: It is refused.
        Exception: Of any kind, where the pickle is damaged.
    """
    parts = _parts(file)
    sizes, depths = [0] * len(parts), [0] * len(parts)
    for start in range(len(parts)):
        waiting = [start]
        while waiting:
            number = waiting[-1]
            if sizes[number] == 0:
                sizes[number] = -1  # being looked at: what contains itself counts once
                waiting += [part for part in parts[number] if sizes[part] == 0]
                continue
            waiting.pop()
            if sizes[number] == -1:
                sizes[number] = 1 + sum(max(0, sizes[part]) for part in parts[number])
                depths[number] = 1 + max((depths[part] for part in parts[number]), default=0)
            if sizes[number] > _MOST or depths[number] > _DEEPEST:
                raise ValueError("its objects contain each other too often to be read")


def _parts(file: BinaryIO) -> list[list[int]]:
    """For each object of a pickle the numbers of those that it contains; number 0 is all texts, numbers and such."""
    parts: list[list[int]] = [[]]
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    read: dict[str, Callable[[Any], object]] = {
        "MARK": lambda _: marks.append(len(stack)),
        "PUT": lambda key: memo.__setitem__(int(key), stack[-1]),
        "MEMOIZE": lambda _: memo.__setitem__(len(memo), stack[-1]),
        "GET": lambda key: stack.append(memo[int(key)]),
        "DUP": lambda _: stack.append(stack[-1]),
        "POP": lambda _: marks.pop() if marks and marks[-1] == len(stack) else stack.pop(),
        "POP_MARK": lambda _: stack.__delitem__(slice(marks.pop(), None)),
    }
    for opcode, argument, _ in pickletools.genops(file):
        name = next((kind for kind in ("PUT", "GET") if opcode.name.endswith(kind)), opcode.name)
        if name in read:
            read[name](argument)
            continue
        before = opcode.stack_before
        if pickletools.markobject in before:
            first = marks.pop()
            held = before.index(pickletools.markobject)
        else:
            first, held = len(stack) - len(before), int(opcode.name in _CHANGING)
            first += held
        if first - held < 0:
            raise ValueError("it takes more than there is")
        contained = stack[first:]
        del stack[first:]
        if held:
            parts[stack[-1]] += contained if stack[-1] else []
        elif opcode.stack_after:
            # One that is empty now may be filled later.
            is_container = bool(contained) or name.endswith(("LIST", "DICT", "SET"))
            stack.append(len(parts) if is_container else 0)
            if is_container:
                parts.append(contained)
    return parts
