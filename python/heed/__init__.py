# SPDX-License-Identifier: MIT
"""Attention for inference on CPUs and OpenCL devices.

    import heed
    o = heed.attention(q, k, v, causal=True)          # arrays [batch, heads, len, dim], as in torch

Arrays are anything in host memory with a buffer (numpy) or DLPack (torch, jax): nothing is copied. Every number has a derived error bound,
and heed.check() holds a device against it.
"""

from typing import Any, List

from ._attention import Context, Device, Report, default_context
from ._library import (BuildFailed, DeviceFailed, DeviceNotFound, Forked, HeedError, InvalidArgument, Mismatch, OutOfBounds, OutOfMemory,
                       Unsupported, lib as _lib)

__all__ = ["attention", "check", "devices", "Context", "Device", "Report", "HeedError", "InvalidArgument", "OutOfBounds", "Unsupported",
           "OutOfMemory", "DeviceNotFound", "BuildFailed", "DeviceFailed", "Mismatch", "Forked", "__version__"]

_number = _lib.heed_version()
__version__ = f"{_number // 10000}.{_number // 100 % 100}.{_number % 100}"


def attention(q: Any, k: Any, v: Any, **options: Any) -> Any:
    """o[b, h, i] = sum_j p[j] v[b, g, j],  p = softmax_j(softcap(scale q[b, h, i] . k[b, g, j]) + alibi + bias)  over the visible keys j.

    q [batch, heads, queries, head_dim], k [batch, kv_heads, keys, head_dim], v [batch, kv_heads, keys, v_head_dim]; heads is a multiple of
    kv_heads, g = h // (heads // kv_heads) (torch: enable_gqa, here without asking). 3-D arrays have no batch, 2-D arrays no heads either.
    float32, float16, bfloat16; k and v also int8 or float8 with scales. Rows (the last axis) lie contiguous, other strides are free.

    Beside torch.nn.functional.scaled_dot_product_attention (defaults are its defaults where it has them):
        mask        bool: True = visible; or floats, added (attn_mask). Broadcasts to [batch, heads, queries, keys]
        bias        floats, added, beside a bool mask
        causal      False, True, "top-left". True: the LAST query sees all keys, as decoding wants it; torch's is_causal is "top-left". The
                    same thing where there are as many queries as keys
        scale       None = 1 / sqrt(head_dim)
        window      keys beside the own position: (left, right), None = unbounded; a number = both sides
        softcap     c > 0: c tanh(s / c)
        alibi       [heads] slopes;  sinks  [heads] logits that weigh in the denominator alone
        kv_lens     [batch] keys of each sequence;  q_position  position of query 0 among the keys, one or [batch]
        k_scale     [batch, kv_heads, keys] of int8 or float8 k;  v_scale likewise
        lse         True: (o, log sum_j e^s_j);  weights  True: also p [batch, heads, queries, keys], from one more pass: attention stays fused
        weight_heads  heads whose weights are wanted, in this order;  weight_rows  n: of the last n queries only (then [batch, heads, n, keys])
        key_sums    True: also sum_i p[b, h, i, j] over the last weight_rows queries, [batch, heads, keys]: how much each key was attended to, what
                    eviction from a KV cache ranks by; "all": over all heads too, [batch, keys]. Results: o, then lse, weights, key_sums as asked for
        out         an array to write to; None = a new one of q's library and type
        layout      order of the axes: "bhld", "blhd", ...
        device      "cpu", "opencl:0", part of a name, "auto", a Device
    A query that sees nothing gets zeros (torch: NaN). There is no dropout. Errors are HeedError with the library's message.
    """
    return default_context().attention(q, k, v, **options)


def check(q: Any, k: Any, v: Any, **options: Any) -> Report:
    """Computes attention(q, k, v, ...) on a device and holds every element of o and lse against its own error bound, which follows from the
    data and the kernel's arithmetic, by a computation in double. Options as attention(); kernel: a row of the table, e.g. "cpu.avx2.decode"."""
    return default_context().check(q, k, v, **options)


def devices() -> List[Device]:
    """All devices, the CPU first."""
    return default_context().devices()
