# SPDX-License-Identifier: MIT
"""Contexts and the call: arrays to heed_forward() and back."""

import ctypes
import os
import threading
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple, Union

from . import _arrays as A
from . import _library as L

Window = Union[None, int, Tuple[Optional[int], Optional[int]]]


@dataclass(frozen=True)
class Device:
    """One device of a context; `index` 0 is the CPU. `reason`: why it is unusable, or which kernels its driver was refused."""
    index: int
    name: str
    backend: str
    platform: str
    driver: str
    family: str
    compute_units: int
    memory_bytes: int
    usable: bool
    reason: str


@dataclass(frozen=True)
class Report:
    """What check() found: elements compared, how many lay beyond their bound, and the largest error / bound."""
    ok: bool
    elements: int
    outside: int
    worst_ratio: float
    max_abs_error: float
    kernel: str
    message: str


# ---- arrays to tensors ------------------------------------------------------------------------------------


def _view(array, axes, name):
    """Tensor of an array whose axes are named, e.g. "bhld": b, h and l may lack, the last one lies contiguous."""
    if axes and axes[-1] in "dk" and array.ndim and array.shape[-1] > 1 and array.strides[-1] != 1:
        raise ValueError(f"{name}: its last axis has stride {array.strides[-1]}, rows must lie contiguous")
    low = sum(min(0, (n - 1) * s) for n, s in zip(array.shape, array.strides) if n)
    high = sum(max(0, (n - 1) * s) for n, s in zip(array.shape, array.strides) if n)
    size = A.SIZES[array.kind]
    count = 0 if 0 in array.shape else high - low + 1
    tensor = L.Tensor(data=(array.address + low * size) or None, bytes=count * size, offset=-low)
    for axis, stride, n in zip(axes, array.strides, array.shape):
        if axis in "bhl":
            setattr(tensor, {"b": "batch_stride", "h": "head_stride", "l": "token_stride"}[axis], stride if n > 1 else 0)
    return tensor


def _axes(layout, ndim, name):
    """The axes of an array of `ndim` dimensions in a layout: without b, then without h."""
    if sorted(layout) != sorted("bhld") or layout[-1] != "d":
        raise ValueError(f'layout {layout!r}: the letters b, h, l, d in the order of the axes, d last ("bhld" as in torch, "blhd")')
    for lacks in ("", "b", "bh"):
        axes = "".join(a for a in layout if a not in lacks)
        if len(axes) == ndim:
            return axes
    raise ValueError(f"{name} has {ndim} axes: 2, 3 or 4 are wanted ({layout}, without b, without b and h)")


def _sizes(axes, shape):
    sizes = dict(zip(axes, shape))
    return [sizes.get(a, 1) for a in "bhld"]


def _spread(array, name, full):
    """Tensor of an array that broadcasts to full = (batch, heads, queries, keys), as in numpy: missing and single axes repeat."""
    shape, strides = (1,) * (4 - array.ndim) + array.shape, (0,) * (4 - array.ndim) + array.strides
    for n, want in zip(shape, full):
        if n not in (1, want):
            raise ValueError(f"{name} of shape {array.shape} does not broadcast to {tuple(full)} = (batch, heads, queries, keys)")
    if array.ndim > 4 or (full[3] > 1 and shape[3] != full[3]):
        raise ValueError(f"{name} of shape {array.shape}: its last axis must have all {full[3]} keys")
    spread = A.Array(array.address, array.kind, shape, [s if n > 1 else 0 for n, s in zip(shape, strides)], array.writable, array)
    return _view(spread, "bhlk", name)


def _floats(name, value, count):
    """f32 [heads] from a list or an array."""
    if isinstance(value, (list, tuple)):
        numbers = (ctypes.c_float * len(value))(*value)
        value = A.Array(ctypes.addressof(numbers), L.F32, (len(value),), (1,), False, numbers)
    found = A.array(name, value)
    if found.kind != L.F32 or found.shape != (count,) or (count > 1 and found.strides[0] != 1):
        raise ValueError(f"{name}: {A.NAMES[found.kind]} {list(found.shape)}, wanted are float32 [{count}] one after another")
    return found


class _Problem:
    """desc, lengths and tensors of one call, and all that must live as long."""

    def __init__(self, q, k, v, layout, scale, softcap, causal, window, mask, bias, alibi, sinks, kv_lens, q_position, k_scale, v_scale,
                 lse, weights, out, weight_heads=None, weight_rows=None, key_sums=False):
        self.holds = holds = []
        aq, ak, av = A.array("q", q), A.array("k", k), A.array("v", v)
        holds += [aq, ak, av]
        if not aq.ndim == ak.ndim == av.ndim:
            raise ValueError(f"q, k and v have {aq.ndim}, {ak.ndim} and {av.ndim} axes")
        axes = _axes(layout, aq.ndim, "q")
        b, hq, lq, d = _sizes(axes, aq.shape)
        kb, hk, lk, kd = _sizes(axes, ak.shape)
        vb, hv, lv, dv = _sizes(axes, av.shape)
        for what, wrong in ((f"batch {b}, {kb}, {vb}", not b == kb == vb), (f"key and value heads {hk}, {hv}", hk != hv),
                            (f"keys and values {lk}, {lv}", lk != lv), (f"head_dim of q and k {d}, {kd}", d != kd)):
            if wrong:
                raise ValueError(f"q, k and v do not fit: {what}")
        for name, a in (("q", aq), ("k", ak), ("v", av)):
            if a.kind in (A.BOOL, A.I32):
                raise TypeError(f"{name}: an array of {A.NAMES[a.kind]}: wanted float32, float16, bfloat16; for k and v also int8, float8")
        if scale is not None and not scale:
            raise ValueError("scale is 0: None stands for 1 / sqrt(head_dim)")
        left, right = (window, window) if isinstance(window, int) else window if window else (None, None)

        shape = [dict(b=b, h=hq, l=lq, d=dv)[a] for a in axes]
        self.o = A.empty(q, shape, aq.kind) if out is None else out
        ao = A.array("out", self.o)
        holds.append(ao)
        if list(ao.shape) != shape or not ao.writable:
            raise ValueError(f"out: {list(ao.shape)}{'' if ao.writable else ', read-only'}, wanted is {shape} to write to")

        self.desc = L.new(L.Desc, q_type=aq.kind, k_type=ak.kind, v_type=av.kind, o_type=ao.kind, q_heads=hq, kv_heads=hk, head_dim=d,
                          v_head_dim=dv, scale=scale or 0.0, softcap=softcap or 0.0)
        self.lengths = L.new(L.Lengths, batch=b, q_len=lq, kv_len=lk)
        self.tensors = t = L.new(L.Tensors, q=_view(aq, axes, "q"), k=_view(ak, axes, "k"), v=_view(av, axes, "v"), o=_view(ao, axes, "out"))
        flags = 0
        if causal not in (True, False, "top-left"):
            raise ValueError(f'causal is {causal!r}: False, True (the last query sees all keys) or "top-left" (query 0 sees key 0 alone)')
        flags |= (L.CAUSAL if causal else 0) | (L.TOP_LEFT if causal == "top-left" else 0)
        if window is not None:
            flags |= L.WINDOW
            self.desc.window_left, self.desc.window_right = (-1 if x is None else x for x in (left, right))
        full = (b, hq, lq, lk)
        if mask is not None:
            am = A.array("mask", mask)
            holds.append(am)
            if am.kind == A.BOOL:
                flags |= L.MASK_BOOL
                t.mask = _spread(am, "mask", full)
            elif bias is None:
                mask, bias = None, am
            else:
                raise ValueError("mask is not bool and there is a bias: what is added is one array")
        if bias is not None:
            ab = A.array("bias", bias)
            holds.append(ab)
            if ab.kind not in (L.F32, L.F16, L.BF16):
                raise TypeError(f"bias: an array of {A.NAMES[ab.kind]}: wanted float32, float16, bfloat16")
            flags |= L.BIAS
            self.desc.bias_type = ab.kind
            t.bias = _spread(ab, "bias", full)
        for name, value, flag in (("alibi", alibi, L.ALIBI), ("sinks", sinks, L.SINKS)):
            if value is not None:
                found = _floats(name, value, hq)
                holds.append(found)
                flags |= flag
                setattr(t, {"alibi": "alibi_slopes"}.get(name, name), _view(found, "d", name))
        for name, value in (("k_scale", k_scale), ("v_scale", v_scale)):
            if value is not None:
                found = A.array(name, value)
                holds.append(found)
                wanted = [dict(b=b, h=hk, l=lk)[a] for a in axes[:-1]]
                if found.kind != L.F32 or list(found.shape) != wanted:
                    raise ValueError(f"{name}: {A.NAMES[found.kind]} {list(found.shape)}, wanted is float32 {wanted}")
                setattr(t, name, _view(found, axes[:-1], name))
        if kv_lens is not None:
            self.lengths.kv_lens = self._ints("kv_lens", kv_lens, b)
        if q_position is not None:
            self.lengths.q_position = self._ints("q_position", [q_position] * b if isinstance(q_position, int) else q_position, b)
        self.lse = self.weights = None
        if lse:
            flags |= L.WRITE_LSE
            self.lse, t.lse = self._result(q, [dict(b=b, h=hq, l=lq)[a] for a in axes if a != "d"], axes[:-1])
        self.key_sums = None
        if weight_rows is not None:
            if not isinstance(weight_rows, int) or weight_rows < 1:
                raise ValueError(f"weight_rows is {weight_rows!r}: how many queries, the last ones")
            self.lengths.score_rows = weight_rows
        rows, heads = min(weight_rows or lq, lq), hq
        if weight_heads is not None:
            heads = len(weight_heads)
            if not heads or len(axes) < 3:
                raise ValueError(f"weight_heads: {list(weight_heads)} of {'arrays without heads' if heads else 'no head at all'}")
            self.lengths.score_head_count, self.lengths.score_heads = heads, self._ints("weight_heads", weight_heads, heads)
        if weights:
            flags |= L.WRITE_SCORES
            self.desc.scores_stage = 3
            self.weights, t.scores = self._result(q, [b, heads, rows, lk][4 - len(axes):], "bhlk"[4 - len(axes):])
        if key_sums not in (True, False, "all"):
            raise ValueError(f'key_sums is {key_sums!r}: False, True (a row per head) or "all" (one row for all heads)')
        if key_sums:
            flags |= L.WRITE_KEY_SUMS | (L.KEY_SUMS_ALL_HEADS if key_sums == "all" else 0)
            part = "bk" if key_sums == "all" else "bhk"
            part = "".join(a for a in part if a == "k" or a in axes)
            self.key_sums, t.key_sums = self._result(q, [dict(b=b, h=hq, k=lk)[a] for a in part], part)
        self.desc.flags = flags

    def _ints(self, name, values, count):
        numbers = A.ints(name, values)
        if len(numbers) != count:
            raise ValueError(f"{name} has {len(numbers)} numbers for a batch of {count}")
        self.holds.append(numbers)
        return ctypes.addressof(numbers)

    def _result(self, like, shape, axes):
        made = A.empty(like, shape, L.F32)
        found = A.array("result", made)
        self.holds.append(found)
        return made, _view(found, axes, "result")

    def results(self):
        given = [x for x in (self.lse, self.weights, self.key_sums) if x is not None]
        return (self.o, *given) if given else self.o


# ---- contexts ---------------------------------------------------------------------------------------------


class Context:
    """Devices and threads. Most programs use the functions of the module, which have one of their own.

    threads          of the built-in pool; 0 = one per physical core
    cpu              the highest instruction set to use, e.g. "avx2"; None = the best present
    opencl           False: the CPU alone
    fallback         False: a failing OpenCL device raises; True: the CPU answers
    validate_every   n > 0: every n-th run is computed again by the other wing and compared; a difference raises Mismatch
    """

    def __init__(self, *, threads: int = 0, cpu: Optional[str] = None, opencl: bool = True, fallback: bool = True, validate_every: int = 0,
                 report_dir: Optional[str] = None) -> None:
        self._handle = ctypes.c_void_p()
        options = L.new(L.Options, num_threads=threads, flags=(0 if opencl else 1) | (0 if fallback else 2),
                        cpu_features=cpu.encode() if cpu else None, validate_every=validate_every,
                        report_dir=os.fsencode(report_dir) if report_dir else None)
        L.good(L.lib.heed_context_create(ctypes.byref(options), ctypes.byref(self._handle)))

    def close(self) -> None:
        if self._handle:
            L.lib.heed_context_destroy(self._handle)
            self._handle = ctypes.c_void_p()

    def __enter__(self) -> "Context":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.close()

    def devices(self) -> List[Device]:
        """All devices, the CPU first."""
        found = []
        for n in range(L.lib.heed_device_count(self._handle)):
            i = L.new(L.DeviceInfo)
            L.good(L.lib.heed_device_get_info(self._handle, n, ctypes.byref(i)))
            found.append(Device(n, i.name.decode(), "cpu" if i.backend == 1 else "opencl", i.platform.decode(), i.driver.decode(),
                                i.family.decode(), i.compute_units, i.memory_bytes, bool(i.usable), i.reason.decode()))
        return found

    def _device(self, device):
        if isinstance(device, Device):
            return device.index
        if isinstance(device, int):
            return device
        if device == "auto":
            return -1
        index = ctypes.c_int32()
        L.good(L.lib.heed_device_find(self._handle, str(device).encode(), ctypes.byref(index)))
        return index.value

    def attention(self, q: Any, k: Any, v: Any, *, mask: Any = None, causal: Union[bool, str] = False, scale: Optional[float] = None,
                  bias: Any = None, window: Window = None, softcap: float = 0.0, alibi: Any = None, sinks: Any = None,
                  kv_lens: Optional[Sequence[int]] = None, q_position: Union[None, int, Sequence[int]] = None, k_scale: Any = None,
                  v_scale: Any = None, lse: bool = False, weights: bool = False, weight_heads: Optional[Sequence[int]] = None,
                  weight_rows: Optional[int] = None, key_sums: Union[bool, str] = False, out: Any = None, layout: str = "bhld",
                  device: Union[str, int, Device] = "cpu") -> Any:
        """o = softmax(q k^T scale + ...) v; see heed.attention."""
        p = _Problem(q, k, v, layout, scale, softcap, causal, window, mask, bias, alibi, sinks, kv_lens, q_position, k_scale, v_scale, lse,
                     weights, out, weight_heads, weight_rows, key_sums)
        L.good(L.lib.heed_forward(self._handle, self._device(device), ctypes.byref(p.desc), ctypes.byref(p.lengths), ctypes.byref(p.tensors)))
        return p.results()

    def check(self, q: Any, k: Any, v: Any, *, mask: Any = None, causal: Union[bool, str] = False, scale: Optional[float] = None,
              bias: Any = None, window: Window = None, softcap: float = 0.0, alibi: Any = None, sinks: Any = None,
              kv_lens: Optional[Sequence[int]] = None, q_position: Union[None, int, Sequence[int]] = None, k_scale: Any = None,
              v_scale: Any = None, layout: str = "bhld", device: Union[str, int, Device] = "cpu", kernel: Optional[str] = None) -> Report:
        """Computes attention on a device and holds every element against its own error bound; see heed.check."""
        p = _Problem(q, k, v, layout, scale, softcap, causal, window, mask, bias, alibi, sinks, kv_lens, q_position, k_scale, v_scale, True,
                     False, None)
        plan, report = ctypes.c_void_p(), L.new(L.Report)
        L.good(L.lib.heed_plan_create(self._handle, self._device(device), ctypes.byref(p.desc), kernel.encode() if kernel else None,
                                      ctypes.byref(plan)))
        try:
            status = L.lib.heed_check(plan, None, ctypes.byref(p.lengths), ctypes.byref(p.tensors), ctypes.byref(report))
            message = L.lib.heed_error_message().decode() if status == L.Mismatch.status else ""
            if status != L.Mismatch.status:
                L.good(status)
        finally:
            L.lib.heed_plan_destroy(plan)
        return Report(not message, report.elements, report.outside, report.worst_ratio, report.max_abs_error, report.kernel.decode(), message)


_own = {}  # by process: an OpenCL device is of no use in a forked child
_lock = threading.Lock()


def default_context() -> Context:
    """The context of the module's functions, made at their first use in each process."""
    with _lock:
        pid = os.getpid()
        if pid not in _own:
            _own[pid] = Context()
        return _own[pid]
