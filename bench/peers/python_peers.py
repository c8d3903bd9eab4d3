#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Attention by Python packages, as peers of `heed bench --peers`: PyTorch, ONNX Runtime, OpenVINO, on the CPU.

Started by the bench (bench/peers/python.c) with the number of threads; talks in lines of words between tabs, one answer to one question:

  at the start        peer NAME VERSION | absent NAME WHY, ..., end
  problem FOLDER TYPE batch q_heads kv_heads q_len kv_len head_dim v_head_dim causal scale threads        ok | error WHY
                      FOLDER holds q, k and v as raw arrays [batch, heads, len, dim] of TYPE; causal: 0 no, 1 aligned to the end, 2 to the start
  begin NAME          ok SETTING | error WHY      builds every form the package has of the problem, tries each, keeps the fastest right one
  run NAME COUNT      ok SECONDS...               times its own runs
  result NAME         ok                          the last run's result in FOLDER/o, f32
  end NAME            ok                          lets go of it

A form is a pair (name, function); the function runs once and returns the result. What stands outside the function is not timed: copies into
the package's own layout, compiling, K and V repeated for grouped heads. A package that cannot do a problem says why.
"""

import importlib.metadata
import os
import sys
import time

THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else 1


def version_of(name):
    return importlib.metadata.version(name)


class Problem:
    """The arrays and the words of one problem."""

    def __init__(self, words):
        import numpy

        self.folder, self.type = words[0], words[1]
        self.b, self.hq, self.hk, self.q_len, self.kv_len, self.d, self.dv, self.causal = map(int, words[2:10])
        self.scale = float(words[10])
        storage = {"f32": numpy.float32, "f16": numpy.float16, "bf16": numpy.uint16}[self.type]

        def load(name, heads, rows, dim):
            return numpy.fromfile(os.path.join(self.folder, name), storage).reshape(self.b, heads, rows, dim)

        self.q = load("q", self.hq, self.q_len, self.d)
        self.k = load("k", self.hk, self.kv_len, self.d)
        self.v = load("v", self.hk, self.kv_len, self.dv)
        self.group = self.hq // self.hk
        # With one query, aligned to the end, causal hides nothing.
        self.all_seen = not self.causal or (self.causal == 1 and self.q_len == 1)
        self.square = self.q_len == self.kv_len

    def folded(self):
        """Can the heads of a group become rows of one head? With one query each, or where all see all."""
        return self.group > 1 and self.all_seen

    def mask(self):
        """[q_len, kv_len] bool, True = seen; None where nothing is hidden."""
        import numpy

        if self.all_seen:
            return None
        shift = self.kv_len - self.q_len if self.causal == 1 else 0
        return numpy.arange(self.kv_len)[None, :] <= numpy.arange(self.q_len)[:, None] + shift

    def expanded(self, array):
        """[batch, q_heads, ...]: each KV head once for every query head."""
        import numpy

        return array if self.group == 1 else numpy.repeat(array, self.group, axis=1)


class PyTorch:
    name = "pytorch"

    def __init__(self):
        import torch

        self.torch = torch
        torch.set_num_threads(THREADS)
        torch.set_grad_enabled(False)
        self.version = "PyTorch " + torch.__version__

    def use_threads(self, count):
        self.torch.set_num_threads(count)

    def tensor(self, problem, array):
        tensor = self.torch.from_numpy(array.copy())
        return tensor.view(self.torch.bfloat16) if problem.type == "bf16" else tensor

    def forms(self, problem):
        torch = self.torch
        sdpa = torch.nn.functional.scaled_dot_product_attention
        q, k, v = (self.tensor(problem, x) for x in (problem.q, problem.k, problem.v))
        mask = problem.mask()
        mask = None if mask is None else torch.from_numpy(mask)
        say = {"scale": problem.scale}
        if mask is not None and problem.square:
            say["is_causal"] = True
        elif mask is not None:
            say["attn_mask"] = mask
        if problem.group > 1:
            yield "sdpa enable_gqa", lambda: sdpa(q, k, v, enable_gqa=True, **say)
        if problem.folded():
            rows = q.view(problem.b, problem.hk, problem.group * problem.q_len, problem.d)
            yield "sdpa, group as rows", lambda: sdpa(rows, k, v, scale=problem.scale).view(problem.b, problem.hq, problem.q_len, problem.dv)
        if problem.group == 1 or problem.q_len > 1:
            wide_k, wide_v = (x if problem.group == 1 else x.repeat_interleave(problem.group, 1) for x in (k, v))
            yield "sdpa" if problem.group == 1 else "sdpa, K and V repeated", lambda: sdpa(q, wide_k, wide_v, **say)
        if problem.all_seen and problem.b * problem.hq * problem.q_len * problem.kv_len <= 1 << 27:
            rows = q.view(problem.b, problem.hk, problem.group * problem.q_len, problem.d)
            yield "matmul, softmax, matmul", lambda: torch.matmul(
                torch.softmax(torch.matmul(rows, k.transpose(-1, -2)) * problem.scale, -1), v
            ).view(problem.b, problem.hq, problem.q_len, problem.dv)

    def array(self, result):
        return result.float().numpy()


class OnnxRuntime:
    name = "onnxruntime"

    def __init__(self):
        import onnx
        import onnxruntime

        self.onnx, self.ort = onnx, onnxruntime
        self.version = "ONNX Runtime " + onnxruntime.__version__
        onnxruntime.set_default_logger_severity(4)

    def session(self, nodes, inputs, outputs, opset, contrib=False):
        helper, types = self.onnx.helper, self.onnx.TensorProto
        kinds = {"float32": types.FLOAT, "float16": types.FLOAT16, "bool": types.BOOL, "int32": types.INT32}

        def declare(name, kind, shape):
            return helper.make_tensor_value_info(name, kinds[kind], shape)

        graph = helper.make_graph(nodes, "peer", [declare(n, str(a.dtype), a.shape) for n, a in inputs], [declare(*o) for o in outputs])
        opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid("com.microsoft", 1)] if contrib else [])
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        return self.ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def bound(self, session, inputs, outputs):
        """A function that runs the session on arrays that are already in its hands; its first output."""
        binding = session.io_binding()
        values = [(name, self.ort.OrtValue.ortvalue_from_numpy(array)) for name, array in inputs]
        for name, value in values:
            binding.bind_ortvalue_input(name, value)
        results = []
        for name, kind, shape in outputs:
            shared = dict(values).get(name.replace("present", "past"))  # a cache that is appended to in place
            value = shared or self.ort.OrtValue.ortvalue_from_shape_and_type(shape, kind, "cpu")
            results.append(value)
            binding.bind_ortvalue_output(name, value)

        def run():
            session.run_with_iobinding(binding)
            return results[0]

        return run

    def node_form(self, problem, q, k, v):
        helper = self.onnx.helper
        inputs = [("q", q), ("k", k), ("v", v)]
        mask = problem.mask()
        say = {"scale": problem.scale}
        if mask is not None and problem.square:
            say["is_causal"] = 1
        elif mask is not None:
            inputs.append(("mask", mask))
        outputs = [("o", str(q.dtype), (q.shape[0], q.shape[1], q.shape[2], problem.dv))]
        session = self.session([helper.make_node("Attention", [n for n, _ in inputs], ["o"], **say)], inputs, outputs, 23)
        return self.bound(session, inputs, outputs)

    def heads_last(self, array):
        """[batch, heads, len, dim] to [batch, len, heads * dim]."""
        import numpy

        return numpy.ascontiguousarray(array.transpose(0, 2, 1, 3)).reshape(array.shape[0], array.shape[2], -1)

    def multi_head_form(self, problem):
        q, k, v = (self.heads_last(x) for x in (problem.q, problem.expanded(problem.k), problem.expanded(problem.v)))
        inputs, outputs = [("q", q), ("k", k), ("v", v)], [("o", str(q.dtype), (problem.b, problem.q_len, problem.hq * problem.dv))]
        say = {"num_heads": problem.hq, "scale": problem.scale, "unidirectional": 0 if problem.all_seen else 1}
        node = self.onnx.helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["o"], domain="com.microsoft", **say)
        return self.bound(self.session([node], inputs, outputs, 21, True), inputs, outputs)

    def grouped_form(self, problem):
        """Causal, aligned to the end: the last q_len keys are new, the others lie in a cache that grows in place."""
        import numpy

        past = problem.kv_len - problem.q_len
        new_k, new_v = (self.heads_last(x[:, :, past:]) for x in (problem.k, problem.v))
        q = self.heads_last(problem.q)
        lengths = numpy.full((problem.b,), problem.kv_len - 1, numpy.int32)
        inputs = [("q", q), ("k", new_k), ("v", new_v), ("past_k", problem.k), ("past_v", problem.v), ("lengths", lengths),
                  ("total", numpy.array([problem.kv_len], numpy.int32))]
        kind = str(q.dtype)
        outputs = [("o", kind, q.shape), ("present_k", kind, problem.k.shape), ("present_v", kind, problem.v.shape)]
        node = self.onnx.helper.make_node("GroupQueryAttention", [n for n, _ in inputs], [n for n, _, _ in outputs], domain="com.microsoft",
                                          num_heads=problem.hq, kv_num_heads=problem.hk, scale=problem.scale)
        return self.bound(self.session([node], inputs, outputs, 21, True), inputs, outputs)

    def forms(self, problem):
        if problem.type == "bf16":
            return
        if problem.folded():
            rows = problem.q.reshape(problem.b, problem.hk, problem.group * problem.q_len, problem.d)
            yield "Attention 23, group as rows", lambda: self.node_form(problem, rows, problem.k, problem.v)
        if problem.group == 1 or problem.q_len > 1:
            yield "Attention 23", lambda: self.node_form(problem, problem.q, problem.k, problem.v)
        if (problem.all_seen or (problem.causal and problem.square)) and (problem.group == 1 or problem.q_len > 1):
            yield "MultiHeadAttention", lambda: self.multi_head_form(problem)
        if problem.causal == 1 and problem.d == problem.dv and problem.q_len in (1, problem.kv_len):
            yield "GroupQueryAttention", lambda: self.grouped_form(problem)

    late = True  # forms() yields what makes the function, since making it may fail

    def array(self, result, problem):
        import numpy

        got = result.numpy().astype(numpy.float32)
        if got.ndim == 3:  # [batch, len, heads * dim]
            got = got.reshape(problem.b, problem.q_len, problem.hq, problem.dv).transpose(0, 2, 1, 3)
        return got.reshape(problem.b, problem.hq, problem.q_len, problem.dv)


class OpenVino:
    name = "openvino"

    def __init__(self):
        import openvino

        self.ov = openvino
        self.core = openvino.Core()
        self.version = "OpenVINO " + openvino.__version__.split("-")[0]

    def compiled(self, problem, q, k, v):
        import numpy
        from openvino import opset13

        def parameter(array):
            return opset13.parameter(array.shape, dtype=array.dtype)

        arrays = [q, k, v]
        nodes = [parameter(x) for x in arrays]
        mask = problem.mask()
        causal = mask is not None and problem.square
        if mask is not None and not causal:
            arrays.append(mask)
            nodes.append(opset13.parameter(mask.shape, dtype=numpy.bool_))
        scale = opset13.constant(numpy.array(problem.scale, q.dtype))
        if len(nodes) == 3:
            zero = opset13.constant(numpy.zeros((), q.dtype))
            attention = opset13.scaled_dot_product_attention(nodes[0], nodes[1], nodes[2], zero, scale, causal=causal)
        else:
            attention = opset13.scaled_dot_product_attention(nodes[0], nodes[1], nodes[2], nodes[3], scale, causal=False)
        precision = {"f32": "f32", "f16": "f16"}[problem.type]
        model = self.core.compile_model(
            self.ov.Model([attention], nodes, "peer"), "CPU",
            {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": THREADS, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"})
        request = model.create_infer_request()
        for n, array in enumerate(arrays):
            tensor = self.ov.Tensor(array.dtype if array.dtype != numpy.bool_ else self.ov.Type.boolean, self.ov.Shape(array.shape))
            tensor.data[:] = array
            request.set_input_tensor(n, tensor)

        def run():
            request.infer()
            return request.get_output_tensor(0).data

        return run

    def forms(self, problem):
        if problem.type != "f32":
            return
        if problem.folded():
            rows = problem.q.reshape(problem.b, problem.hk, problem.group * problem.q_len, problem.d)
            yield "ScaledDotProductAttention, group as rows", lambda: self.compiled(problem, rows, problem.k, problem.v)
        if problem.group == 1 or problem.q_len > 1:
            yield "ScaledDotProductAttention", lambda: self.compiled(
                problem, problem.q, problem.expanded(problem.k), problem.expanded(problem.v))

    late = True

    def array(self, result, problem):
        import numpy

        return numpy.array(result, numpy.float32).reshape(problem.b, problem.hq, problem.q_len, problem.dv)


def timed(function):
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def expected_row(problem):
    """The last row of the last head, in double: a form that computes something else is not chosen. (The bench checks the whole result.)"""
    import numpy

    def wide(array):
        if problem.type == "bf16":
            array = (array.astype(numpy.uint32) << 16).view(numpy.float32)
        return array.astype(numpy.float64)

    scores = wide(problem.k[-1, -1]) @ wide(problem.q[-1, -1, -1]) * problem.scale
    mask = problem.mask()
    if mask is not None:
        scores[~mask[-1]] = -numpy.inf
    weights = numpy.exp(scores - scores.max())
    return weights @ wide(problem.v[-1, -1]) / weights.sum()


class Peer:
    def __init__(self, package):
        self.package = package
        self.run, self.threads = None, THREADS

    def array(self, problem, result):
        return self.package.array(result, problem) if getattr(self.package, "late", False) else self.package.array(result)

    def begin(self, problem):
        import numpy

        best, why = None, "no form of this problem"  # python.c knows these words
        want = expected_row(problem)
        for name, form in self.package.forms(problem):
            try:
                function = form() if getattr(self.package, "late", False) else form
                got = self.array(problem, function())[-1, -1, -1]
                if not numpy.abs(got - want).max() <= (1e-3 if problem.type == "f32" else 5e-2) * numpy.abs(want).max():
                    why = name + " computes something else"
                    continue
                first = timed(function)
                seconds = min([first] + [timed(function) for _ in range(2 if first < 0.5 else 0)])
            except Exception as error:  # a form that a package refuses is not the end of the others
                why = name + ": " + " ".join(str(error).split())[:160]
                continue
            if best is None or seconds < best[0]:
                best = (seconds, name, function)
        if best is None:
            raise RuntimeError(why)
        self.run, self.threads = best[2], THREADS
        if THREADS > 1 and hasattr(self.package, "use_threads"):  # small problems are faster on one
            self.package.use_threads(1)
            alone = min(timed(best[2]) for _ in range(3 if best[0] < 0.05 else 1))
            self.threads = 1 if alone < best[0] else THREADS
            self.package.use_threads(THREADS)
        return best[1] if self.threads == THREADS else best[1] + ", one thread"

    def runs(self, count):
        seconds, result = [], None
        if self.threads != THREADS:
            self.package.use_threads(self.threads)
        for _ in range(count):
            begin = time.perf_counter()
            result = self.run()
            seconds.append(time.perf_counter() - begin)
        if self.threads != THREADS:
            self.package.use_threads(THREADS)
        return seconds, result


def serve(ask, tell):
    peers = {}
    for package in (PyTorch, OnnxRuntime, OpenVino):
        try:
            made = package()
            peers[package.name] = Peer(made)
            tell("peer", package.name, made.version)
        except Exception as error:
            tell("absent", package.name, "not there (script/peers installs it): " + " ".join(str(error).split())[:120])
    tell("end")
    problem, result = None, None
    for line in ask:
        words = line.rstrip("\n").split("\t")
        try:
            if words[0] == "problem":
                problem = Problem(words[1:])
                tell("ok")
            elif words[0] == "begin":
                tell("ok", peers[words[1]].begin(problem))
            elif words[0] == "run":
                seconds, result = peers[words[1]].runs(int(words[2]))
                tell("ok", " ".join("%.9g" % s for s in seconds))
            elif words[0] == "result":
                array = peers[words[1]].array(problem, result)
                array.astype("float32").tofile(os.path.join(problem.folder, "o"))
                tell("ok")
            elif words[0] == "end":
                peers[words[1]].run = result = None
                tell("ok")
            else:
                tell("error", "unknown word " + words[0])
        except Exception as error:
            tell("error", " ".join(str(error).split())[:200] or type(error).__name__)


def main():
    # Libraries print; what they print must not look like an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(*words):
        answers.write("\t".join(words) + "\n")
        answers.flush()

    serve(sys.stdin, tell)


if __name__ == "__main__":
    main()
