# SPDX-License-Identifier: MIT
"""libheed.so by ctypes: where it lies, its structs as in heed.h, and its statuses as exceptions."""

import ctypes
import ctypes.util
import os
from ctypes import c_char, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p

F32, F16, BF16, I8, Q8_0, Q4_0, F8_E4M3, F8_E5M2 = range(1, 9)

CAUSAL, TOP_LEFT, ALIBI, SINKS, MASK_BOOL, MASK_BITS, BIAS, WRITE_LSE = (1 << n for n in range(8))
WRITE_SCORES, KEY_RANGE, WINDOW, WRITE_KEY_SUMS, KEY_SUMS_ALL_HEADS = 1 << 10, 1 << 11, 1 << 15, 1 << 16, 1 << 17


class Options(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("num_threads", c_int32), ("flags", c_uint32), ("threads", c_void_p), ("allocator", c_void_p),
                ("log", c_void_p), ("log_user", c_void_p), ("cpu_features", c_char_p), ("cache_dir", c_char_p), ("validate_every", c_uint32),
                ("reserved", c_uint32), ("report_dir", c_char_p)]


class DeviceInfo(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("backend", c_int32), ("compute_units", c_int32), ("memory_bytes", c_uint64), ("types", c_uint64),
                ("name", c_char * 128), ("vendor", c_char * 64), ("driver", c_char * 64), ("family", c_char * 32), ("matrix_unit", c_char * 32),
                ("platform", c_char * 64), ("reason", c_char * 256), ("usable", c_uint32), ("reserved", c_uint32)]


class Tensor(ctypes.Structure):
    _fields_ = [("data", c_void_p), ("bytes", c_uint64), ("offset", c_int64), ("batch_stride", c_int64), ("head_stride", c_int64),
                ("token_stride", c_int64), ("memory", c_int32), ("reserved", c_uint32), ("reserved2", c_uint64 * 2)]


class Desc(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("q_type", c_int32), ("k_type", c_int32), ("v_type", c_int32), ("o_type", c_int32),
                ("bias_type", c_int32), ("q_heads", c_int32), ("kv_heads", c_int32), ("head_dim", c_int32), ("v_head_dim", c_int32),
                ("max_batch", c_int32), ("max_q_len", c_int32), ("max_kv_len", c_int32), ("scale", c_float), ("softcap", c_float),
                ("window_left", c_int32), ("window_right", c_int32), ("page_size", c_int32), ("rope_dim", c_int32), ("rope_offset", c_int32),
                ("scores_stage", c_int32), ("flags", c_uint64)]


class Lengths(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("batch", c_int32), ("q_len", c_int32), ("kv_len", c_int32), ("page_table_stride", c_int32),
                ("q_start", c_void_p), ("kv_start", c_void_p), ("kv_lens", c_void_p), ("q_position", c_void_p), ("q_positions", c_void_p),
                ("kv_first", c_void_p), ("page_table", c_void_p), ("score_rows", c_int32), ("score_head_count", c_int32), ("score_heads", c_void_p)]


class Tensors(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t)] + [(name, Tensor) for name in (
        "q", "k", "v", "o", "lse", "mask", "bias", "alibi_slopes", "sinks", "k_scale", "v_scale", "rope_cos", "rope_sin", "scores", "key_range", "key_sums")]


class Report(ctypes.Structure):
    _fields_ = [("struct_size", c_size_t), ("elements", c_uint64), ("outside", c_uint64), ("worst_ratio", c_double), ("max_abs_error", c_double),
                ("mean_signed_error", c_double), ("worst_output", c_int32), ("reserved", c_uint32), ("worst_batch", c_int64),
                ("worst_head", c_int64), ("worst_token", c_int64), ("worst_dim", c_int64), ("got", c_double), ("expected", c_double),
                ("bound", c_double), ("kernel", c_char * 64)]


def new(struct, **fields):
    """A struct whose struct_size is set."""
    return struct(struct_size=ctypes.sizeof(struct), **fields)


# ---- the library ------------------------------------------------------------------------------------------


def _find():
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "libheed.so")
    path = os.environ.get("HEED_LIBRARY") or (beside if os.path.exists(beside) else ctypes.util.find_library("heed"))
    if not path:
        raise ImportError("libheed.so is not beside the package, not in HEED_LIBRARY and not installed: pip install ./python builds it")
    return ctypes.CDLL(path)


lib = _find()
_pointer = ctypes.POINTER
for _name, _result, _arguments in (
        ("heed_version", c_uint32, []),
        ("heed_error_message", c_char_p, []),
        ("heed_status_string", c_char_p, [c_int32]),
        ("heed_context_create", c_int32, [_pointer(Options), _pointer(c_void_p)]),
        ("heed_context_destroy", None, [c_void_p]),
        ("heed_device_count", c_int32, [c_void_p]),
        ("heed_device_get_info", c_int32, [c_void_p, c_int32, _pointer(DeviceInfo)]),
        ("heed_device_find", c_int32, [c_void_p, c_char_p, _pointer(c_int32)]),
        ("heed_forward", c_int32, [c_void_p, c_int32, _pointer(Desc), _pointer(Lengths), _pointer(Tensors)]),
        ("heed_plan_create", c_int32, [c_void_p, c_int32, _pointer(Desc), c_char_p, _pointer(c_void_p)]),
        ("heed_plan_destroy", None, [c_void_p]),
        ("heed_check", c_int32, [c_void_p, c_void_p, _pointer(Lengths), _pointer(Tensors), _pointer(Report)])):
    getattr(lib, _name).restype = _result
    getattr(lib, _name).argtypes = _arguments


# ---- statuses ---------------------------------------------------------------------------------------------


class HeedError(Exception):
    """A call that failed: `status` is its number in heed.h, the text names field, value and rule."""
    status = 0


class InvalidArgument(HeedError, ValueError):
    status = 1


class OutOfBounds(HeedError, IndexError):
    status = 2


class Unsupported(HeedError, NotImplementedError):
    status = 3


class OutOfMemory(HeedError, MemoryError):
    status = 4


class DeviceNotFound(HeedError, LookupError):
    status = 6


class BuildFailed(HeedError, RuntimeError):
    status = 7


class DeviceFailed(HeedError, RuntimeError):
    status = 8


class Mismatch(HeedError, ArithmeticError):
    """Two computations differ by more than their error bounds (validate_every)."""
    status = 9


class Forked(HeedError, RuntimeError):
    status = 10


_errors = {e.status: e for e in (InvalidArgument, OutOfBounds, Unsupported, OutOfMemory, DeviceNotFound, BuildFailed, DeviceFailed, Mismatch, Forked)}


def good(status):
    """Raises what a status other than OK means, with the library's own message."""
    if status == 0:
        return
    message = lib.heed_error_message().decode() or lib.heed_status_string(status).decode()
    error = _errors.get(status, HeedError)(message)
    error.status = status
    raise error
