# SPDX-License-Identifier: MIT
"""examples/minilm on a model of a few numbers, made here: word pieces, embeddings against a forward pass in plain Python, files that are wrong in one way
each, and files with bytes changed at random. Neither NumPy nor a download is needed.

    python3 tests/minilm_tiny.py PROGRAM FOLDER [ROUNDS [SEED]]     prints FAIL lines and `N passed, N failed`; ROUNDS of changed bytes
"""
import copy
import json
import math
import os
import pathlib
import pty
import random
import re
import struct
import subprocess
import sys

PROGRAM, WORK = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
ROUNDS, SEED = int(sys.argv[3] if len(sys.argv) > 3 else 150), int(sys.argv[4] if len(sys.argv) > 4 else 7)
HIDDEN, HEADS, LAYERS, INNER, POSITIONS = 16, 2, 2, 24, 14
VOCABULARY = ("[PAD] [UNK] [CLS] [SEP] [MASK] hello world un ##believ ##able , ! ' a ##a cafe 中 i \u03c3 \u1112 ##\u1161 ##\u11ab b ##b # the cat sat ##s on - "
              "belie ##believable").split()
CONFIG = {"model_type": "bert", "hidden_act": "gelu", "hidden_size": HIDDEN, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS,
          "intermediate_size": INNER, "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "vocab_size": len(VOCABULARY),
          "layer_norm_eps": 1e-12, "position_embedding_type": "absolute"}
passed = failed = 0


def verdict(good, text):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    if not good:
        print("FAIL", text)


def run(*words, **more):
    return subprocess.run([str(PROGRAM), *words], capture_output=True, timeout=600, **more)


# ---- word pieces ------------------------------------------------------------------------------------------------------------------

PIECES = [  # text, what stands between [CLS] and [SEP]
    ("", ""),
    ("Hello, WORLD!", "hello , world !"),
    ("unbelievable", "un ##believable"),  # the longest piece, though ##believ ##able would do
    ("unable", "un ##able"),
    ("unablex", "[UNK]"),  # a rest without a piece: the word as a whole, not un ##able [UNK]
    ("Café CAFÉ cafe\u0301 ca\u00adfe", "cafe cafe cafe cafe"),  # precomposed, combining, soft hyphen
    ("İ i\u0307 \u03a3", "i i \u03c3"),
    ("中a中中", "中 a 中 中"),
    ("\ud55c", "\u1112 ##\u1161 ##\u11ab"),  # Hangul comes apart
    ("a\tb\u00a0a\u3000b\u2028a\r\nb", "a b a b a b"),
    ("a\u0000b".replace("\u0000", "\u0001"), "a ##b"),  # a control character is no space
    ("a'b-a", "a ' b - a"),
    ("“a”…", "[UNK] a [UNK] [UNK]"),
    ("##a", "# # a"),  # not the piece ##a
    ("x[SEP]a [MASK][sep]", "[UNK] [SEP] a [MASK] [UNK] [UNK] [UNK]"),
    ("[SEP", "[UNK] [UNK]"),
    ("a" * 100, "a" + " ##a" * 99),
    ("a" * 101, "[UNK]"),
    (b"a\xff\xfea \xc3", "a ##a"),  # not UTF-8: as if it were not there
    (b"\xf0\x9f\x98", ""),
    ("aab", "a ##a ##b"),
    ("a\ufffdb", "a ##b"),
]


def texts_of(out):
    return [re.sub(rb":(\d+)(?= |$)", b"", line).decode() for line in out.split(b"\n")[:-1]]


def pieces_check(folder):
    got = texts_of(run("tokens", "--model", str(folder), *(text for text, _ in PIECES)).stdout)
    for (text, wanted), line in zip(PIECES, got + ["nothing"] * len(PIECES)):
        verdict(line == " ".join(["[CLS]", *wanted.split(), "[SEP]"]), f"tokens {text!r}: {line}, not {wanted}")
    verdict(texts_of(run("tokens", "--model", str(folder), "--most", "4", "a b a b").stdout) == ["[CLS] a b [SEP]"], "a text is cut at --most")
    verdict(texts_of(run("tokens", "--model", str(folder), "--most", "2", "a b").stdout) == ["[CLS] [SEP]"], "--most 2")
    numbers = run("tokens", "--model", str(folder), "hello a").stdout.decode()
    verdict(numbers == f"[CLS]:2 hello:5 a:{VOCABULARY.index('a')} [SEP]:3\n", "numbers of pieces: " + numbers)


# ---- the model --------------------------------------------------------------------------------------------------------------------

def tensors_make(seed):
    """{name: (shape, numbers)} of a model with random weights."""
    r, made = random.Random(seed), {}

    def tensor(name, *shape, middle=0.0, spread=0.3):
        made[name] = (list(shape), [struct.unpack("f", struct.pack("f", r.gauss(middle, spread)))[0] for _ in range(math.prod(shape))])

    def linear(name, out, into):
        tensor(name + ".weight", out, into)
        tensor(name + ".bias", out)

    def norm(name):
        tensor(name + ".weight", HIDDEN, middle=1.0)
        tensor(name + ".bias", HIDDEN)

    for name, rows in (("word", len(VOCABULARY)), ("position", POSITIONS), ("token_type", 2)):
        tensor(f"embeddings.{name}_embeddings.weight", rows, HIDDEN, spread=1.0)
    norm("embeddings.LayerNorm")
    for n in range(LAYERS):
        at = f"encoder.layer.{n}."
        for which in ("query", "key", "value"):
            linear(f"{at}attention.self.{which}", HIDDEN, HIDDEN)
        linear(at + "attention.output.dense", HIDDEN, HIDDEN)
        norm(at + "attention.output.LayerNorm")
        linear(at + "intermediate.dense", INNER, HIDDEN)
        linear(at + "output.dense", HIDDEN, INNER)
        norm(at + "output.LayerNorm")
    return made


def packed(tensors):
    """Table and data of a .safetensors file."""
    table, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (shape, numbers) in tensors.items():
        piece = struct.pack(f"<{len(numbers)}f", *numbers)
        table[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(piece)]}
        data += piece
    return table, data


def file_of(table, data, text=None):
    text = json.dumps(table).encode() if text is None else text
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def folder_make(name, weights, config=CONFIG, vocabulary=VOCABULARY, **others):
    folder = WORK / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    for file, content in others.items():
        path = folder / file.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(content))
    return folder


def linear(w, name, x):
    (out, into), m = w[name + ".weight"]
    b = w[name + ".bias"][1]
    return [[b[n] + sum(row[k] * m[n * into + k] for k in range(into)) for n in range(out)] for row in x]


def norm(w, name, x):
    scale, shift, rows = w[name + ".weight"][1], w[name + ".bias"][1], []
    for row in x:
        mean = sum(row) / HIDDEN
        spread = math.sqrt(sum((a - mean) ** 2 for a in row) / HIDDEN + 1e-12)
        rows.append([(a - mean) / spread * s + t for a, s, t in zip(row, scale, shift)])
    return rows


def attention(q, k, v):
    dim, o = HIDDEN // HEADS, [[0.0] * HIDDEN for _ in q]
    for h in range(HEADS):
        at = range(h * dim, (h + 1) * dim)
        for i, row in enumerate(q):
            p = [math.exp(sum(row[d] * key[d] for d in at) / math.sqrt(dim)) for key in k]
            for d in at:
                o[i][d] = sum(a * value[d] for a, value in zip(p, v)) / sum(p)
    return o


def plus(x, y):
    return [[a + b for a, b in zip(r, s)] for r, s in zip(x, y)]


def forward(w, ids):
    """Vector of one sentence, in double."""
    def row(which, n):
        return w[f"embeddings.{which}_embeddings.weight"][1][n * HIDDEN:(n + 1) * HIDDEN]
    x = norm(w, "embeddings.LayerNorm", [[a + b + c for a, b, c in zip(row("word", t), row("position", n), row("token_type", 0))] for n, t in enumerate(ids)])
    for n in range(LAYERS):
        at = f"encoder.layer.{n}."
        o = attention(*(linear(w, f"{at}attention.self.{which}", x) for which in ("query", "key", "value")))
        x = norm(w, at + "attention.output.LayerNorm", plus(x, linear(w, at + "attention.output.dense", o)))
        y = [[0.5 * a * (1 + math.erf(a / math.sqrt(2))) for a in r] for r in linear(w, at + "intermediate.dense", x)]
        x = norm(w, at + "output.LayerNorm", plus(x, linear(w, at + "output.dense", y)))
    mean = [sum(column) / len(x) for column in zip(*x)]
    return [a / math.sqrt(sum(b * b for b in mean)) for a in mean]


def vectors_read(path):
    blob = path.read_bytes()
    head = 10 + struct.unpack("<H", blob[8:10])[0]
    numbers = struct.unpack(f"<{(len(blob) - head) // 4}f", blob[head:])
    return [numbers[n:n + HIDDEN] for n in range(0, len(numbers), HIDDEN)]


def numbers_check(folder, tensors, lines):
    """On the CPU and on OpenCL, in one batch and in many: each element within 2e-5 of the definition (vectors have length 1)."""
    text, out = WORK / "lines.txt", WORK / "out.npy"
    text.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = run("tokens", "--model", str(folder), "--most", str(POSITIONS), *lines).stdout.decode().split("\n")[:-1]
    ids = [[int(piece.rsplit(":", 1)[1]) for piece in line.split(" ")] for line in found]
    verdict(max(map(len, ids)) == POSITIONS, "a line is as long as there are positions")
    wanted = [forward(tensors, i) for i in ids]
    for device in ("cpu", "opencl:0"):
        for batch in ("2048", "14", "20"):
            got = run("embed", str(text), "-o", str(out), "--model", str(folder), "--device", device, "--batch", batch)
            if device != "cpu" and got.returncode == 3:
                print("skipped: no opencl:0 for minilm here")
                break
            far = max((abs(a - b) for x, y in zip(wanted, vectors_read(out)) for a, b in zip(x, y)), default=1) if got.returncode == 0 else 1
            verdict(far <= 2e-5 and len(vectors_read(out)) == len(lines), f"embed --device {device} --batch {batch}: off by {far} {got.stderr.decode()}")
    return wanted


def rank_check(folder, lines, wanted):
    text = WORK / "ranked.txt"
    text.write_text("\n\n".join(lines) + "\n", encoding="utf-8")  # blank lines are passed over, numbers of lines stay
    got = run("rank", lines[3], str(text), "--model", str(folder), "--top", "4")
    near = sorted(((-sum(a * b for a, b in zip(wanted[3], w)), n) for n, w in enumerate(wanted) if lines[n].strip()))[:4]
    said = [line.split(None, 2) for line in got.stdout.decode().split("\n")[:-1]]
    verdict(len(said) == 4 and all(abs(float(s[0]) + c) < 1e-4 and int(s[1]) == 2 * n + 1 and s[2] == lines[n] for s, (c, n) in zip(said, near)),
            f"rank: {said}, not {near} {got.stderr.decode()}")
    verdict(said and said[0][0] == "1.0000", "a line is nearest to itself")
    piped = run("rank", lines[3], "-", "--model", str(folder), "--top", "4", input=text.read_bytes())
    verdict(piped.stdout == got.stdout and got.stdout, "rank reads standard input")
    verdict(b"\r" not in got.stderr, "no progress line without a terminal")
    verdict(b"\r" in terminal(folder, text) and b" of 9 lines (" in terminal(folder, text), "a progress line on a terminal")


def terminal(folder, text):
    """What standard error shows on a terminal."""
    above, below = pty.openpty()
    subprocess.run([str(PROGRAM), "rank", "a", str(text), "--model", str(folder), "--batch", "14"], stdout=subprocess.DEVNULL, stderr=below, timeout=600)
    os.close(below)
    shown = b""
    try:
        while piece := os.read(above, 4096):
            shown += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(above)
    return shown


# ---- wrong files -------------------------------------------------------------------------------------------------------------------

def refused(name, words, weights, **others):
    folder = folder_make("wrong/" + re.sub(r"\W+", "-", name), weights, **others)
    got = run("embed", str(WORK / "lines.txt"), "-o", str(WORK / "no.npy"), "--model", str(folder))
    told = got.stderr.decode(errors="replace")
    verdict(got.returncode == 2 and words in told and told.startswith("minilm: ") and told.count("\n") == 1 and not (WORK / "no.npy").exists(),
            f"{name}: exit {got.returncode}, {told!r}, wanted \"{words}\"")


def wrong_weights(table, data):
    good = file_of(table, data)

    def with_entry(**fields):
        changed = copy.deepcopy(table)
        changed["embeddings.LayerNorm.bias"].update(fields)
        return file_of(changed, data)

    begin, end = table["embeddings.LayerNorm.bias"]["data_offsets"]
    less = {k: v for k, v in table.items() if k != "encoder.layer.1.output.dense.bias"}
    yield "cut in the data", "is the file cut?", good[:-5]
    yield "cut in the table", "or cut", good[:200]
    yield "seven bytes", "too short", good[:7]
    yield "empty", "too short", b""
    yield "table longer than 63 bits", "states a table of", struct.pack("<Q", 2 ** 64 - 8) + good[8:]
    yield "table one byte too long", "states a table of", struct.pack("<Q", len(good) - 7) + good[8:]
    yield "no JSON", "no JSON object", file_of(None, data, b"once upon a time")
    yield "JSON without end", "no JSON object", file_of(None, data, json.dumps(table).encode()[:-1])
    yield "an array", "no JSON object", file_of([1, 2], data)
    yield "deep", "no JSON object", file_of(None, data, b'{"a":' * 100000)
    yield "a zero byte in a name", "no JSON object", file_of(None, data, json.dumps(table).encode().replace(b"LayerNorm.bias", b"LayerNorm\\u0000bias", 1))
    yield "a name twice", "duplicate", file_of(None, data, json.dumps(table).encode().replace(b"embeddings.LayerNorm.bias", b"embeddings.LayerNorm.weight", 1))
    yield "a tensor missing", "has no tensor encoder.layer.1.output.dense.bias", file_of(
        {**less, "other": table["encoder.layer.1.output.dense.bias"]}, data)
    yield "half the width", "embeddings.LayerNorm.bias is F16, this program reads F32", file_of(
        {**table, "embeddings.LayerNorm.bias": {"dtype": "F16", "shape": [HIDDEN], "data_offsets": [begin, begin + 32]},
         "rest": {"dtype": "F16", "shape": [HIDDEN], "data_offsets": [begin + 32, end]}}, data)
    yield "whole numbers", "is I32, this program", with_entry(dtype="I32")
    yield "unknown dtype", "dtype F31 is not known", with_entry(dtype="F31")
    yield "dtype a number", "dtype (none) is not known", with_entry(dtype=7)
    yield "offsets beyond", "reach beyond", with_entry(data_offsets=[len(data) - 60, len(data) + 4])
    yield "offsets of 63 bits", "reach beyond", with_entry(data_offsets=[2 ** 63 - 65, 2 ** 63 - 1])
    yield "offsets backwards", "reach beyond", with_entry(data_offsets=[end, begin])
    yield "offset negative", "not two whole numbers", with_entry(data_offsets=[-64, 0])
    yield "offset a fraction", "not two whole numbers", with_entry(data_offsets=[begin + 0.5, end])
    yield "three offsets", "not two whole numbers", with_entry(data_offsets=[begin, end, end])
    yield "shape too large", "want another number", with_entry(shape=[HIDDEN + 1])
    yield "shape that overflows", "want another number", with_entry(shape=[2 ** 62, 2 ** 62])
    yield "shape that overflows to the right size", "want another number", with_entry(shape=[HIDDEN + 2 ** 62])
    yield "shape negative", "not a whole number", with_entry(shape=[-1, -HIDDEN])
    yield "shape a word", "not an array", with_entry(shape="wide")
    yield "shape of nine numbers", "not an array", with_entry(shape=[1] * 8 + [HIDDEN])
    yield "another shape", "has another shape", with_entry(shape=[1, HIDDEN])
    yield "a dimension too many", "has another shape", with_entry(shape=[HIDDEN, 1])
    yield "overlap", "tensors overlap", with_entry(data_offsets=table["embeddings.LayerNorm.weight"]["data_offsets"])
    yield "bytes behind", "8 bytes behind the last tensor", good + b"12345678"
    yield "a hole", "a hole at byte", file_of({k: v for k, v in table.items() if k != "embeddings.LayerNorm.bias"}, data)
    yield "an entry that is none", "dtype (none)", file_of({**table, "embeddings.LayerNorm.bias": 3}, data)
    text = json.dumps(table).encode()
    text += b" " * (1 + -len(text) % 4)
    yield "odd place", "multiple of 4", struct.pack("<Q", len(text)) + text + data
    yield "not a number", "NaN", file_of(table, data[:begin] + struct.pack("<f", math.nan) + data[begin + 4:])
    last = table["encoder.layer.1.output.LayerNorm.bias"]["data_offsets"][0]
    yield "infinite", "infinity", file_of(table, data[:last] + struct.pack("<f", math.inf) + data[last + 4:])


def wrong_check(table, data):
    good = file_of(table, data)
    for name, words, weights in wrong_weights(table, data):
        refused(name, words, weights)
    for field, value, words in (("hidden_size", 15, "no multiple of"), ("hidden_size", 32, "has another shape"), ("num_hidden_layers", 3, "has no tensor encoder.layer.2."),
                                ("num_hidden_layers", 0, "from 1 to"), ("hidden_act", "relu", "hidden_act is not what"), ("model_type", "gpt2", "model_type"),
                                ("layer_norm_eps", "small", "layer_norm_eps"), ("vocab_size", 7, "has another shape"), ("max_position_embeddings", 1 << 40, "from 1 to"),
                                ("num_attention_heads", None, "num_attention_heads")):
        refused(f"config {field} {value}", words, good, config={**CONFIG, field: value})
    refused("cased", "do_lower_case is not what", good, tokenizer_config={"do_lower_case": False})
    refused("first token", "pooling_mode", good, **{"1_Pooling__config": {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}})
    refused("more pieces than the model", "do not belong together", good, vocabulary=VOCABULARY + ["zebra"])
    refused("no unknown", "has no line [UNK]", good, vocabulary=[p for p in VOCABULARY if p != "[UNK]"])
    refused("a piece twice", "repeats line 6", good, vocabulary=VOCABULARY[:-1] + ["hello"])


def changed(r, content, head):
    """Some bytes of it, mostly of its head; now and then it is cut."""
    blob = bytearray(content)
    for _ in range(r.choice((1, 1, 2, 5))):
        at = r.randrange(head) if r.random() < 0.9 else r.randrange(len(blob))
        blob[at] = r.choice(b"0123456789[]{},:\"-e\n") if r.random() < 0.7 else r.randrange(256)
    return blob[:r.randrange(len(blob))] if r.random() < 0.2 else blob


def fuzz_check(table, data):
    """Bytes of the three files changed, files cut: an exit code of 0 or 2, and never a signal."""
    good, r, folder = file_of(table, data), random.Random(SEED), folder_make("fuzz", b"")
    bad, others = [], {name: (folder / name).read_bytes() for name in ("config.json", "vocab.txt")}
    for n in range(ROUNDS):
        for name, content in others.items():
            (folder / name).write_bytes(changed(r, content, len(content)) if r.random() < 0.1 else content)
        (folder / "model.safetensors").write_bytes(changed(r, good, len(good) - len(data)) if r.random() < 0.8 else good)
        got = run("embed", str(WORK / "lines.txt"), "-o", "/dev/null", "--model", str(folder))
        if got.returncode not in (0, 2) or (got.returncode == 2 and not got.stderr.startswith(b"minilm: ")):
            bad.append(f"round {n}: exit {got.returncode} {got.stderr[-2000:]!r}")
    verdict(not bad, f"{ROUNDS} rounds of changed bytes, seed {SEED}: {bad[:3]}")
    texts = [bytes(r.choice((r.randrange(1, 256), r.choice(b"a[SEP]##\xcc\x81 "))) for _ in range(r.randrange(300))) for _ in range(400)]
    got = run("tokens", "--model", str(folder), "--", *texts)
    verdict(got.returncode == 0 and got.stdout.count(b"\n") == 400, f"tokens of random bytes: exit {got.returncode} {got.stderr[-2000:]!r}")


def usage_check(folder):
    for code, words, *line in ((2, "rank QUERY FILE"), (2, "rank QUERY FILE", "rank", "a"), (2, "rank QUERY FILE", "dance"), (0, "rank QUERY FILE", "--help"),
                               (2, "no model", "rank", "a", str(WORK / "lines.txt")), (2, "No such file", "rank", "a", str(WORK / "none"), "--model", str(folder)),
                               (3, "zzz", "rank", "a", str(WORK / "lines.txt"), "--model", str(folder), "--device", "zzz"),
                               (2, "0 is not a whole number", "rank", "a", "b", "--threads", "0"), (2, "vocab.txt", "tokens", "a", "--model", "/none")):
        got = run(*line, env={k: v for k, v in os.environ.items() if k != "MINILM_MODEL"})
        verdict(got.returncode == code and words in (got.stdout + got.stderr).decode(), f"minilm {' '.join(line)}: exit {got.returncode} {got.stderr.decode()}")
    got = run("embed", str(WORK / "lines.txt"), "--model", str(folder), "-o", "/dev/full")
    verdict(got.returncode == 4 and b"/dev/full" in got.stderr, f"a full disk: exit {got.returncode}")


def main():
    tensors = tensors_make(1)
    table, data = packed(tensors)
    folder = folder_make("good", file_of(table, data), sentence_bert_config={"max_seq_length": 256})
    lines = ["hello world", "the cat sat on the cats", "unbelievable!", "a b a b", "", "中", "the the the cat on a - b hello world cafe cafe a b a b", "hello, hello", "caf"]
    pieces_check(folder)
    wanted = numbers_check(folder, tensors, lines)
    rank_check(folder, lines, wanted)
    wrong_check(table, data)
    fuzz_check(table, data)
    usage_check(folder)
    print(f"{passed} passed, {failed} failed")


main()
