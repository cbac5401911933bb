"""Writes pickles as Python 2's cPickle did at protocol 2: byte strings for text and for numpy's buffers."""

import io
import pickle
import struct
from typing import Any


class _Python2Pickler(pickle._Pickler):
    dispatch = pickle._Pickler.dispatch.copy()

    def save_byte_string(self, value):
        data = value if isinstance(value, bytes) else value.encode("latin1")
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = save_byte_string
    dispatch[str] = save_byte_string


def dumps(value: Any) -> bytes:
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2, fix_imports=True).dump(value)
    return file.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")
