# SPDX-License-Identifier: MIT
"""The package against sums written out in Python, against numpy's arrays and against torch, as far as these are here.
    python3 -m unittest discover -s python/tests"""

import array
import ast
import contextlib
import inspect
import math
import os
import pathlib
import random
import sys
import threading
import unittest

import heed

try:
    import numpy
except ImportError:
    numpy = None
try:
    import torch
except ImportError:
    torch = None


def cube(shape, seed):
    """float32 of any shape without another package: (memoryview, nested lists)."""
    noise = random.Random(seed)
    flat = array.array("f", (noise.gauss(0, 1) for _ in range(math.prod(shape))))
    return memoryview(flat).cast("B").cast("f", shape=list(shape))


def expected(q, k, v, visible=lambda b, h, i, j: True, scale=None, extra=lambda b, h, i, j: 0.0, softcap=0.0, sink=None):
    """o, lse, p by the definition: [b][h][i]... of lists."""
    q, k, v = q.tolist(), k.tolist(), v.tolist()
    group = len(q[0]) // len(k[0])
    scale = scale or 1 / math.sqrt(len(q[0][0][0]))
    o, lse, p = [], [], []
    for b in range(len(q)):
        o.append([]), lse.append([]), p.append([])
        for h in range(len(q[0])):
            o[b].append([]), lse[b].append([]), p[b].append([])
            keys, values = k[b][h // group], v[b][h // group]
            for i, row in enumerate(q[b][h]):
                s = []
                for j, key in enumerate(keys):
                    x = scale * sum(a * c for a, c in zip(row, key))
                    x = softcap * math.tanh(x / softcap) if softcap else x
                    s.append(x + extra(b, h, i, j) if visible(b, h, i, j) else -math.inf)
                top = max(s + ([sink[h]] if sink else []))
                e = [math.exp(x - top) if x > -math.inf else 0.0 for x in s]
                total = sum(e) + (math.exp(sink[h] - top) if sink else 0.0)
                weights = [x / total if total else 0.0 for x in e]
                p[b][h].append(weights)
                lse[b][h].append(top + math.log(total) if total else -math.inf)
                o[b][h].append([sum(w * values[j][d] for j, w in enumerate(weights)) for d in range(len(values[0]))])
    return o, lse, p


def flat(x):
    if hasattr(x, "tolist"):
        x = x.tolist()
    return [z for y in x for z in flat(y)] if isinstance(x, list) else [x]


class Case(unittest.TestCase):
    def near(self, got, want, most=2e-6):
        got, want = flat(got), flat(want)
        self.assertEqual(len(got), len(want))
        for a, b in zip(got, want):
            self.assertTrue(a == b or abs(a - b) <= most, f"{a} for {b}")


class Definition(Case):
    """Without any other package: memoryviews in, memoryviews out."""

    def setUp(self):
        self.q, self.k, self.v = cube((2, 4, 3, 8), 1), cube((2, 2, 5, 8), 2), cube((2, 2, 5, 6), 3)

    def test_plain(self):
        o = heed.attention(self.q, self.k, self.v)
        self.assertEqual(tuple(o.shape), (2, 4, 3, 6))
        self.near(o, expected(self.q, self.k, self.v)[0])

    def test_lse_and_weights(self):
        o, lse, p = heed.attention(self.q, self.k, self.v, lse=True, weights=True)
        right = expected(self.q, self.k, self.v)
        self.near(o, right[0]), self.near(lse, right[1]), self.near(p, right[2])

    def test_weights_of_chosen_heads_and_rows_and_key_sums(self):
        p = expected(self.q, self.k, self.v, lambda b, h, i, j: j <= i + 2)[2]
        o, w, sums = heed.attention(self.q, self.k, self.v, causal=True, weights=True, weight_heads=[3, 0], weight_rows=2, key_sums=True)
        self.assertEqual((tuple(w.shape), tuple(sums.shape)), ((2, 2, 2, 5), (2, 4, 5)))
        self.near(o, expected(self.q, self.k, self.v, lambda b, h, i, j: j <= i + 2)[0])
        self.near(w, [[p[b][h][1:] for h in (3, 0)] for b in range(2)])
        last = [[[p[b][h][1][j] + p[b][h][2][j] for j in range(5)] for h in range(4)] for b in range(2)]
        self.near(sums, last)
        all_heads = heed.attention(self.q, self.k, self.v, causal=True, weight_rows=2, key_sums="all")[1]
        self.assertEqual(tuple(all_heads.shape), (2, 5))
        self.near(all_heads, [[sum(last[b][h][j] for h in range(4)) for j in range(5)] for b in range(2)])
        o, sums = heed.attention(cube((3, 8), 4), cube((5, 8), 5), cube((5, 8), 6), key_sums=True)
        self.assertEqual(tuple(sums.shape), (5,))
        self.near([sum(flat(sums))], [3.0])
        for wrong, say in ((dict(weights=True, weight_heads=[4]), "score_heads"), (dict(weights=True, weight_heads=[1, 1]), "score_heads"),
                           (dict(weight_rows=0), "weight_rows"), (dict(key_sums="heads"), "key_sums")):
            with self.assertRaisesRegex(ValueError, say):
                heed.attention(self.q, self.k, self.v, **wrong)

    def test_causal_both_ways(self):
        self.near(heed.attention(self.q, self.k, self.v, causal=True), expected(self.q, self.k, self.v, lambda b, h, i, j: j <= i + 2)[0])
        self.near(heed.attention(self.q, self.k, self.v, causal="top-left"), expected(self.q, self.k, self.v, lambda b, h, i, j: j <= i)[0])
        self.near(heed.attention(self.q, self.k, self.v, causal=True, q_position=[0, 1]),
                  expected(self.q, self.k, self.v, lambda b, h, i, j: j <= i + b)[0])

    def test_scale_softcap_window_lengths(self):
        self.near(heed.attention(self.q, self.k, self.v, scale=0.7, softcap=2.0), expected(self.q, self.k, self.v, scale=0.7, softcap=2.0)[0])
        self.near(heed.attention(self.q, self.k, self.v, window=(1, 0)), expected(self.q, self.k, self.v, lambda b, h, i, j: 0 <= i + 2 - j <= 1)[0])
        self.near(heed.attention(self.q, self.k, self.v, window=1), expected(self.q, self.k, self.v, lambda b, h, i, j: abs(i + 2 - j) <= 1)[0])
        self.near(heed.attention(self.q, self.k, self.v, kv_lens=[5, 2]), expected(self.q, self.k, self.v, lambda b, h, i, j: j < (5, 2)[b])[0])

    def test_alibi_and_sinks(self):
        slopes, sinks = [0.5, 0.25, 0.125, 0.0625], array.array("f", [0.5, -1.0, 2.0, 0.0])
        right = expected(self.q, self.k, self.v, extra=lambda b, h, i, j: -slopes[h] * abs(i + 2 - j), sink=list(sinks))
        o, lse = heed.attention(self.q, self.k, self.v, alibi=slopes, sinks=sinks, lse=True)
        self.near(o, right[0]), self.near(lse, right[1])

    def test_mask_and_bias(self):
        seen = [[(i + 2 * j + h) % 3 != 0 for j in range(5)] for h in range(4) for i in range(3)]
        mask = memoryview(bytes(x for row in seen for x in row)).cast("?", shape=[4, 3, 5])
        bias = cube((3, 5), 9)
        plus = bias.tolist()
        self.near(heed.attention(self.q, self.k, self.v, mask=mask), expected(self.q, self.k, self.v, lambda b, h, i, j: seen[h * 3 + i][j])[0])
        self.near(heed.attention(self.q, self.k, self.v, mask=bias), expected(self.q, self.k, self.v, extra=lambda b, h, i, j: plus[i][j])[0])
        self.near(heed.attention(self.q, self.k, self.v, mask=mask, bias=bias),
                  expected(self.q, self.k, self.v, lambda b, h, i, j: seen[h * 3 + i][j], extra=lambda b, h, i, j: plus[i][j])[0])

    def test_a_query_that_sees_nothing_gets_zeros(self):
        o, lse = heed.attention(self.q, self.k, self.v, kv_lens=[0, 0], lse=True)
        self.assertEqual(set(flat(o)), {0.0})
        self.assertEqual(set(flat(lse)), {-math.inf})

    def test_fewer_axes(self):
        q, k, v = cube((4, 3, 8), 4), cube((2, 5, 8), 5), cube((2, 5, 8), 6)
        one = heed.attention(q, k, v)
        self.assertEqual(tuple(one.shape), (4, 3, 8))
        self.near(one, expected(*(memoryview(x).cast("B").cast("f", shape=[1, *x.shape]) for x in (q, k, v)))[0])
        o, lse = heed.attention(cube((3, 8), 4), cube((5, 8), 5), cube((5, 8), 6), lse=True)
        self.assertEqual((tuple(o.shape), tuple(lse.shape)), ((3, 8), (3,)))

    def test_out(self):
        room = memoryview(bytearray(2 * 4 * 3 * 6 * 4)).cast("f", shape=[2, 4, 3, 6])
        self.assertIs(heed.attention(self.q, self.k, self.v, out=room), room)
        self.near(room, expected(self.q, self.k, self.v)[0])

    def test_check(self):
        report = heed.check(self.q, self.k, self.v, causal=True)
        self.assertTrue(report.ok, report.message)
        self.assertEqual((report.elements, report.outside), (2 * 4 * 3 * 6 + 2 * 4 * 3, 0))
        self.assertTrue(report.kernel)

    def test_devices(self):
        found = heed.devices()
        self.assertEqual((found[0].index, found[0].backend, found[0].usable), (0, "cpu", True))
        right = heed.attention(self.q, self.k, self.v)
        for device in found:
            if device.usable:
                self.near(heed.attention(self.q, self.k, self.v, device=device), right)
                self.near(heed.attention(self.q, self.k, self.v, device=device.index), right)
        self.near(heed.attention(self.q, self.k, self.v, device="auto"), right)

    def test_errors(self):
        q, k, v = self.q, self.k, self.v
        for wrong, kind, text in (
                (lambda: heed.attention(q, k, v, device="nonesuch"), heed.DeviceNotFound, "nonesuch"),
                (lambda: heed.attention(q, k, v, softcap=-1.0), heed.InvalidArgument, "softcap"),
                (lambda: heed.attention(q, k, v, kv_lens=[5, 6]), heed.OutOfBounds, "k"),
                (lambda: heed.attention(q, k, v, kv_lens=[5]), ValueError, "kv_lens has 1"),
                (lambda: heed.attention(q, k, v, scale=0.0), ValueError, "scale"),
                (lambda: heed.attention(q, k, v, causal="left"), ValueError, "top-left"),
                (lambda: heed.attention(q, cube((2, 3, 5, 8), 1), cube((2, 3, 5, 8), 1)), heed.InvalidArgument, "kv_heads"),
                (lambda: heed.attention(q, k, cube((2, 2, 4, 8), 1)), ValueError, "keys and values 5, 4"),
                (lambda: heed.attention(q, k, cube((2, 5, 8), 1)), ValueError, "axes"),
                (lambda: heed.attention(q, k, v, layout="bhdl"), ValueError, "layout"),
                (lambda: heed.attention(array.array("d", [1.0]), k, v), TypeError, "q: an array of format 'd'"),
                (lambda: heed.attention(3, k, v), TypeError, "q: int has neither"),
                (lambda: heed.attention(q, k, v, mask=memoryview(bytes(3)).cast("?", shape=[3, 1])), ValueError, "all 5 keys"),
                (lambda: heed.attention(q, k, v, out=memoryview(bytes(2 * 4 * 3 * 6 * 4)).cast("f", shape=[2, 4, 3, 6])), ValueError, "read-only"),
                (lambda: heed.attention(q, k, v, sinks=[1.0]), ValueError, "sinks"),
                (lambda: heed.Context(cpu="z80"), heed.InvalidArgument, "z80")):
            with self.assertRaisesRegex(kind, text):
                wrong()

    def test_types_are_told_of_what_is_there(self):
        stubs = ast.parse((pathlib.Path(heed.__file__).parent / "__init__.pyi").read_text())
        told = {f.name: f.args for f in stubs.body if isinstance(f, ast.FunctionDef)}
        self.assertEqual(sorted(told), sorted(name for name in heed.__all__ if inspect.isfunction(getattr(heed, name))))
        self.assertTrue({name for name in heed.__all__ if inspect.isclass(getattr(heed, name))} <=
                        {alias.asname for part in stubs.body if isinstance(part, ast.ImportFrom) for alias in part.names})
        for name in "attention", "check":
            there = [p for p in inspect.signature(getattr(heed.Context, name)).parameters.values() if p.name != "self"]
            self.assertEqual([a.arg for a in told[name].args], [p.name for p in there if p.kind == p.POSITIONAL_OR_KEYWORD])
            self.assertEqual([(a.arg, ast.literal_eval(d)) for a, d in zip(told[name].kwonlyargs, told[name].kw_defaults)],
                             [(p.name, p.default) for p in there if p.kind == p.KEYWORD_ONLY])

    def test_threads_and_contexts(self):
        right = heed.attention(self.q, self.k, self.v)
        with heed.Context(threads=1, opencl=False, validate_every=1) as own:
            self.assertEqual(len(own.devices()), 1)
            found = []
            workers = [threading.Thread(target=lambda: found.append(flat(own.attention(self.q, self.k, self.v)))) for _ in range(4)]
            [w.start() for w in workers], [w.join() for w in workers]
            self.assertEqual(found, [flat(right)] * 4)

    def test_a_forked_child_has_a_context_of_its_own(self):
        right = flat(heed.attention(self.q, self.k, self.v))
        child = os.fork()
        if child == 0:
            os._exit(0 if flat(heed.attention(self.q, self.k, self.v)) == right else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)


@unittest.skipIf(numpy is None, "no numpy here")
class Numpy(Case):
    def setUp(self):
        noise = numpy.random.default_rng(7)
        self.q, self.k, self.v = (noise.standard_normal(s, dtype="float32") for s in ((2, 4, 3, 8), (2, 2, 5, 8), (2, 2, 5, 8)))

    def test_the_program_of_the_readme(self):
        text = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
        names = {}
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            exec(text.split("```python\n")[1].split("```")[0], names)
        self.assertEqual((names["o"].shape, names["lse"].shape), ((2, 8, 5, 64), (2, 8, 5)))

    def test_arrays_of_numpy_come_back(self):
        o = heed.attention(self.q, self.k, self.v)
        self.assertIsInstance(o, numpy.ndarray)
        self.near(o, expected(self.q, self.k, self.v)[0])

    def test_half(self):
        q, k, v = (x.astype("float16") for x in (self.q, self.k, self.v))
        o = heed.attention(q, k, v)
        self.assertEqual(o.dtype, numpy.float16)
        self.near(o, expected(q, k, v)[0], 2e-3)

    def test_strides_without_copies(self):
        right = heed.attention(self.q, self.k, self.v)
        q, k, v = (numpy.ascontiguousarray(x.transpose(0, 2, 1, 3)) for x in (self.q, self.k, self.v))
        o = heed.attention(q, k, v, layout="blhd")
        self.assertTrue((o.transpose(0, 2, 1, 3) == right).all())
        self.assertTrue((heed.attention(q.transpose(0, 2, 1, 3), k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)) == right).all())
        self.assertTrue((heed.attention(self.q, self.k[:, :, ::-1], self.v[:, :, ::-1]) - right < 1e-6).all())  # keys in any order
        wide = numpy.full((2, 4, 3, 16), 7.0, "float32")
        heed.attention(self.q, self.k, self.v, out=wide[..., :8])
        self.assertTrue((wide[..., :8] == right).all() and (wide[..., 8:] == 7).all())
        with self.assertRaisesRegex(ValueError, "q: its last axis has stride"):
            heed.attention(self.q.transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2), self.k, self.v)

    def test_read_only(self):
        self.q.flags.writeable = False
        heed.attention(self.q, self.k, self.v)

    def test_int8_with_scales(self):
        k8, v8 = (numpy.clip(numpy.rint(x * 20), -127, 127).astype("int8") for x in (self.k, self.v))
        scale = numpy.full((2, 2, 5), 0.05, "float32")
        o = heed.attention(self.q, k8, v8, k_scale=scale, v_scale=scale)
        self.near(o, expected(self.q, k8 * numpy.float32(0.05), v8 * numpy.float32(0.05))[0], 1e-5)


@unittest.skipIf(torch is None, "no torch here")
class Torch(Case):
    """Against scaled_dot_product_attention, whose names and defaults these are."""

    def make(self, kind=None, keys=6, heads=4):
        torch.manual_seed(3)
        return tuple(torch.randn(2, h, n, 16).to(kind or torch.float32) for h, n in ((4, 6), (heads, keys), (heads, keys)))

    def both(self, q, k, v, most, torch_options=None, **options):
        o = heed.attention(q, k, v, **options)
        self.assertIsInstance(o, torch.Tensor)
        self.assertEqual((o.dtype, o.shape), (q.dtype, q.shape))
        right = torch.nn.functional.scaled_dot_product_attention(q, k, v, **(torch_options or {}))
        self.assertLess((o.float() - right.float()).abs().max().item(), most)

    def test_plain_and_types(self):
        self.both(*self.make(), 2e-6)
        self.both(*self.make(torch.float16), 4e-3)
        self.both(*self.make(torch.bfloat16), 4e-2)

    def test_causal(self):
        self.both(*self.make(), 2e-6, dict(is_causal=True), causal=True)
        self.both(*self.make(keys=9), 2e-6, dict(is_causal=True), causal="top-left")

    def test_masks(self):
        seen = torch.rand(2, 1, 6, 6) > 0.3
        seen[..., 0] = True
        self.both(*self.make(), 2e-6, dict(attn_mask=seen), mask=seen)
        added = torch.randn(6, 6)
        self.both(*self.make(), 2e-6, dict(attn_mask=added), mask=added)

    def test_grouped_and_scale(self):
        self.both(*self.make(heads=2), 2e-6, dict(enable_gqa=True, scale=0.3), scale=0.3)

    def test_transposed_views(self):
        q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in self.make())
        self.both(q, k, v, 2e-6)

    def test_gradients_are_refused(self):
        q, k, v = self.make()
        with self.assertRaises((BufferError, RuntimeError, TypeError)):
            heed.attention(q.requires_grad_(), k, v)


if __name__ == "__main__":
    unittest.main(argv=sys.argv)
