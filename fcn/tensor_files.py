"""The two kinds of file that a checkpoint is written as, as blocks of bytes. No framework here.

MindSpore's own writers copy all that they write, and hold Python's lock for it: the steps meanwhile are slow.
"""

from __future__ import annotations

import json
from typing import Iterator, Mapping, Union

import numpy as np

Arrays = Mapping[str, np.ndarray]
Blocks = Iterator[Union[bytes, memoryview]]

# NumPy's names of types, and theirs
_CKPT_TYPES = {"float32": "Float32", "float16": "Float16", "int32": "Int32", "int64": "Int64"}
_SAFETENSORS_TYPES = {"float32": "F32", "float16": "F16", "int32": "I32", "int64": "I64"}


def ckpt(arrays: Arrays, texts: Mapping[str, str]) -> Blocks:
    """The bytes of `mindspore.save_checkpoint(arrays, append_dict=texts)`.

    Source: mindspore/ccsrc/utils/checkpoint.proto: message Checkpoint { repeated Value value = 1; }, Value {
    string tag = 1; TensorProto tensor = 2; }, TensorProto { repeated int64 dims = 1; string tensor_type = 2;
    bytes tensor_content = 3; }.
    """
    for name, array in arrays.items():
        data = _bytes_of(array)
        yield _value_head(name, array.shape, _CKPT_TYPES[array.dtype.name], len(data))
        yield data
    for name, text in texts.items():
        characters = text.encode("utf-32-le")  # as in a NumPy string
        yield _value_head(name, (0,), "str", len(characters))
        yield characters


def _value_head(tag: str, dims: tuple, kind: str, content_size: int) -> bytes:
    """A Value up to its content."""
    tensor = b"".join(b"\x08" + _varint(dim) for dim in dims)
    tensor += _field(2, kind.encode()) + b"\x1a" + _varint(content_size)
    value = _field(1, tag.encode()) + b"\x12" + _varint(len(tensor) + content_size) + tensor
    return b"\x0a" + _varint(len(value) + content_size) + value


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def safetensors(arrays: Arrays) -> Blocks:
    """A safetensors file: size of the header, header as JSON, values.

    Source: "Format" in the README of huggingface/safetensors.
    """
    header, end = {}, 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        kind = _SAFETENSORS_TYPES[array.dtype.name]
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for array in arrays.values():
        yield _bytes_of(array)


def _bytes_of(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
