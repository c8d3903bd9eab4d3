# SPDX-License-Identifier: MIT
# A model for whisper.cpp with random weights: the head (sizes, mel filters, words) of a file that whisper.cpp has for its tests, and its tensors.
#   whisper_model.py FOR_TESTS_GGML_TINY_BIN FILE
import struct
import sys

import numpy as np

random = np.random.default_rng(7)
source, target = sys.argv[1:]
with open(source, "rb") as file:
    head = file.read()
# n_vocab, then audio and text: context, width, heads, layers; mel bands, type
vocab, audio_context, width, _, audio_layers, text_context, _, _, text_layers, mels = struct.unpack("<10i", head[4:44])


def matrices():
    """Name, shape with the fastest axis last, standard deviation (None: ones)."""
    yield "encoder.positional_embedding", (audio_context, width), 0.3
    yield "encoder.conv1.weight", (width, mels, 3), (mels * 3) ** -0.5
    yield "encoder.conv1.bias", (width, 1), 0.1
    yield "encoder.conv2.weight", (width, width, 3), (width * 3) ** -0.5
    yield "encoder.conv2.bias", (width, 1), 0.1
    yield from norm("encoder.ln_post")
    for n in range(audio_layers):
        yield from block(f"encoder.blocks.{n}.", ("attn",))
    yield "decoder.positional_embedding", (text_context, width), 0.3
    yield "decoder.token_embedding.weight", (vocab, width), 1
    yield from norm("decoder.ln")
    for n in range(text_layers):
        yield from block(f"decoder.blocks.{n}.", ("attn", "cross_attn"))


def norm(name):
    yield name + ".weight", (width,), None
    yield name + ".bias", (width,), 0.1


def linear(name, rows, columns, gain=1.0, bias=True):
    yield name + ".weight", (rows, columns), gain * columns**-0.5
    if bias:
        yield name + ".bias", (rows,), 0.1


def block(name, attentions):
    for attention in attentions:
        yield from norm(name + attention + "_ln")
        yield from linear(name + attention + ".query", width, width, 1.5)
        yield from linear(name + attention + ".key", width, width, 1.5, bias=False)
        yield from linear(name + attention + ".value", width, width)
        yield from linear(name + attention + ".out", width, width, 2)
    yield from norm(name + "mlp_ln")
    yield from linear(name + "mlp.0", 4 * width, width)
    yield from linear(name + "mlp.2", width, 4 * width)


with open(target, "wb") as file:
    file.write(head)
    for name, shape, deviation in matrices():
        x = np.ones(shape, np.float32) if deviation is None else random.standard_normal(shape, np.float32) * np.float32(deviation)
        wide = len(shape) == 1 or shape[-1] == 1 or "positional" in name
        file.write(struct.pack("<3i", len(shape), len(name), 0 if wide else 1))
        file.write(struct.pack(f"<{len(shape)}i", *reversed(shape)))
        file.write(name.encode())
        file.write((x if wide else x.astype(np.float16)).tobytes())
