# SPDX-License-Identifier: MIT
"""What PyTorch's attention reaches on this GPU, by back end, on the shapes of bench/gpu/first.sh: a yardstick from the same run. Times are medians of events on
the device; TFLOP/s count 4 * batch * heads * q * kv * d, half of it when causal. Needs PyTorch 2.5 or later."""
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {"default": None, "cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION,
            "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH}


def milliseconds(call, count=8):
    for _ in range(3):
        call()
    times = []
    for _ in range(count):
        start, end = torch.cuda.Event(True), torch.cuda.Event(True)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[count // 2]


def compare(title, amount, unit, call, names):
    results = []
    for name in names:
        try:
            if BACKENDS[name] is None:
                ms = milliseconds(call)
            else:
                with sdpa_kernel(BACKENDS[name]):
                    ms = milliseconds(call)
            results.append(f"{name} {amount / ms * (1e-6 if unit == 'GB/s' else 1e-9):.1f}")
        except Exception:  # a back end that refuses the problem
            results.append(f"{name} -")
    print(f"{title}: {'  '.join(results)} {unit}", flush=True)


def random(*shape, dtype=torch.bfloat16):
    return torch.randn(*shape, device="cuda", dtype=dtype)


def prefill(batch, heads, kv_heads, d, length, causal, dtype, names):
    q = random(batch, heads, length, d, dtype=dtype)
    k, v = (random(batch, kv_heads, length, d, dtype=dtype) for _ in range(2))
    flop = 4 * batch * heads * length * length * d * (0.5 if causal else 1)
    compare(f"b{batch} hq{heads} hk{kv_heads} d{d} q{length} {str(dtype)[6:]}{' causal' if causal else ''}", flop, "TFLOP/s",
            lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=heads != kv_heads), names)


def decode(batch, heads, kv_heads, length, dtype):
    q = random(batch, heads, 1, 128, dtype=dtype)
    k, v = (random(batch, kv_heads, length, 128, dtype=dtype) for _ in range(2))
    compare(f"b{batch} hq{heads} hk{kv_heads} d128 q1 kv{length} {str(dtype)[6:]}", 2 * k.numel() * k.element_size(), "GB/s",
            lambda: F.scaled_dot_product_attention(q, k, v, enable_gqa=heads != kv_heads), ("default", "cudnn", "flash", "efficient"))


def main():
    print(torch.__version__, torch.backends.cudnn.version(), torch.cuda.get_device_name())
    fast = ("default", "cudnn", "flash", "efficient")
    for heads, d in ((16, 128), (32, 64), (8, 256)):
        for causal in (False, True):
            prefill(1, heads, heads, d, 16384, causal, torch.bfloat16, fast)
    prefill(4, 16, 16, 128, 4096, True, torch.bfloat16, fast)
    prefill(16, 32, 8, 128, 1024, True, torch.bfloat16, fast)
    decode(16, 64, 8, 8192, torch.bfloat16)
    decode(1, 32, 8, 32768, torch.bfloat16)
    torch.backends.cuda.matmul.allow_tf32 = False
    for causal in (False, True):
        prefill(1, 16, 16, 128, 4096, causal, torch.float32, ("efficient", "math"))


main()
