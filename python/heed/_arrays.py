# SPDX-License-Identifier: MIT
"""Arrays of others as addresses: the buffer protocol (numpy, array.array, memoryview) or DLPack (torch and most others). Never a copy."""

import ctypes
import sys
from ctypes import c_char_p, c_int32, c_int64, c_size_t, c_ssize_t, c_uint8, c_uint16, c_uint64, c_void_p, py_object

from . import _library as L

BOOL, I32 = 100, 101  # beside the types of heed.h
SIZES = {L.F32: 4, L.F16: 2, L.BF16: 2, L.I8: 1, L.F8_E4M3: 1, L.F8_E5M2: 1, BOOL: 1, I32: 4}
NAMES = {L.F32: "float32", L.F16: "float16", L.BF16: "bfloat16", L.I8: "int8", L.F8_E4M3: "float8_e4m3fn", L.F8_E5M2: "float8_e5m2", BOOL: "bool",
         I32: "int32"}


class Array:
    """Address, type, shape and strides (in elements) of somebody's array, kept alive by `holds`."""

    def __init__(self, address, kind, shape, strides, writable, holds, release=None):
        self.address, self.kind, self.shape, self.strides, self.writable = address, kind, tuple(shape), tuple(strides), writable
        self._holds, self._release = holds, release

    def __del__(self):
        if self._release:
            self._release()

    @property
    def ndim(self):
        return len(self.shape)


# ---- the buffer protocol ----------------------------------------------------------------------------------


class _Buffer(ctypes.Structure):
    _fields_ = [("buf", c_void_p), ("obj", py_object), ("len", c_ssize_t), ("itemsize", c_ssize_t), ("readonly", ctypes.c_int),
                ("ndim", ctypes.c_int), ("format", c_char_p), ("shape", ctypes.POINTER(c_ssize_t)), ("strides", ctypes.POINTER(c_ssize_t)),
                ("suboffsets", ctypes.POINTER(c_ssize_t)), ("internal", c_void_p)]


_FORMATS = {"f": L.F32, "e": L.F16, "b": L.I8, "?": BOOL, "i": I32, "l": I32}
_RECORDS_RO = 0x0004 | 0x0018 | 0x0100  # format, strides, indirect: PyBUF_FULL_RO


def _from_buffer(value):
    view = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(py_object(value), ctypes.byref(view), _RECORDS_RO)

    def release():
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))

    form = (view.format or b"B").decode().lstrip("@=<")
    kind = _FORMATS.get(form)
    if kind is None or view.itemsize != SIZES[kind]:
        release()
        raise TypeError(f"an array of format {form!r} and {view.itemsize} bytes an element: heed takes float32, float16, int8, bool and int32 "
                        "from buffers, bfloat16 and float8 by DLPack")
    shape, strides = list(view.shape[:view.ndim]), list(view.strides[:view.ndim])
    if any(s % view.itemsize for s, n in zip(strides, shape) if n > 1):
        release()
        raise ValueError("an array whose strides are no whole elements")
    return Array(view.buf or 0, kind, shape, [s // view.itemsize for s in strides], not view.readonly, value, release)


# ---- DLPack -----------------------------------------------------------------------------------------------


class _DLTensor(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("device_type", c_int32), ("device_id", c_int32), ("ndim", c_int32), ("code", c_uint8), ("bits", c_uint8),
                ("lanes", c_uint16), ("shape", ctypes.POINTER(c_int64)), ("strides", ctypes.POINTER(c_int64)), ("byte_offset", c_uint64)]


_CODES = {(2, 32): L.F32, (2, 16): L.F16, (4, 16): L.BF16, (0, 8): L.I8, (0, 32): I32, (6, 8): BOOL, (10, 8): L.F8_E4M3, (12, 8): L.F8_E5M2}
_CPU = 1
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = c_void_p, [py_object, c_char_p]


def _from_dlpack(value):
    device = value.__dlpack_device__()[0]
    if int(device) != _CPU:
        raise TypeError(f"an array on DLPack device {int(device)}: heed takes arrays in host memory (.cpu())")
    capsule = value.__dlpack__()
    t = ctypes.cast(_capsule_pointer(capsule, b"dltensor"), ctypes.POINTER(_DLTensor)).contents
    kind = _CODES.get((t.code, t.bits)) if t.lanes == 1 else None
    if kind is None:
        raise TypeError(f"a DLPack array of type code {t.code} with {t.bits} bits: heed takes float32, float16, bfloat16, int8, float8, bool, int32")
    shape = t.shape[:t.ndim]
    strides = t.strides[:t.ndim] if t.strides else [1] * t.ndim
    if not t.strides:
        for n in range(t.ndim - 2, -1, -1):
            strides[n] = strides[n + 1] * shape[n + 1]
    return Array((t.data or 0) + t.byte_offset, kind, shape, strides, True, (value, capsule))


def array(name, value):
    """Any array as an Array; TypeError names what it was."""
    if isinstance(value, Array):
        return value
    try:
        # torch tensors have no buffer; numpy's read-only arrays have no DLPack
        try:
            memoryview(value).release()
        except (TypeError, BufferError, ValueError):
            if not hasattr(value, "__dlpack__"):
                raise TypeError(f"{type(value).__name__} has neither a buffer nor __dlpack__") from None
            return _from_dlpack(value)
        return _from_buffer(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def ints(name, values):
    """A list of whole numbers, or an int32 array, as a ctypes array."""
    try:
        numbers = [int(x) for x in values]
    except TypeError:
        raise TypeError(f"{name}: a list of whole numbers is wanted, not {type(values).__name__}") from None
    for x in numbers:
        if not -(1 << 31) <= x < 1 << 31:
            raise ValueError(f"{name}: {x} does not fit into 32 bits")
    return (c_int32 * len(numbers))(*numbers)


# ---- new arrays -------------------------------------------------------------------------------------------


def empty(like, shape, kind):
    """An array for results, of the library that `like` came from; numpy's, or a memoryview, where that is none of ours."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(like, torch.Tensor):
        return torch.empty(tuple(shape), dtype=getattr(torch, NAMES[kind]))
    try:
        import numpy
    except ImportError:
        numpy = None
    if numpy is not None and kind in (L.F32, L.F16):
        return numpy.empty(tuple(shape), dtype=NAMES[kind])
    if kind == L.F32 and 0 not in shape:
        size = 4
        for n in shape:
            size *= n
        return memoryview(bytearray(size)).cast("f", shape=list(shape))
    raise TypeError(f"no library at hand makes arrays of {NAMES[kind]}: give out=")
