#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The page in a real browser: sliders, tips and settings are moved, files are dropped, and every number that is shown is held against `heed run` on the
same arrays. web/test_page.py PAGE HEED [FOLDER for screenshots]"""
import base64, math, os, struct, subprocess, sys, tempfile
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import Select, WebDriverWait

page, heed = (os.path.realpath(path) for path in sys.argv[1:3])
pictures = sys.argv[3] if len(sys.argv) > 3 else None
counts = {True: 0, False: 0}


def verdict(good, name):
    counts[bool(good)] += 1
    if not good:
        print("FAIL", name, flush=True)


def npy_bytes(shape, values, descr="<f4", order="False"):
    head = ("{'descr': '%s', 'fortran_order': %s, 'shape': %r, }" % (descr, order, tuple(shape))).encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    letter = {"f4": "f", "f8": "d", "f2": "e", "u2": "H", "i1": "b", "u1": "B", "b1": "B", "i2": "h", "i4": "i", "u4": "I", "i8": "q", "u8": "Q"}.get(descr[1:], "B")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + struct.pack("<%d%s" % (len(values), letter), *values)


def npy_write(path, rows):  # [len, 1, dim]
    with open(path, "wb") as file:
        file.write(npy_bytes((len(rows), 1, len(rows[0])), [x for row in rows for x in row]))


def npy_read(path):
    data = open(path, "rb").read()
    at = 10 + struct.unpack("<H", data[8:10])[0]
    return struct.unpack("<%df" % ((len(data) - at) // 4), data[at:])


def library(state):
    """The dots, scores, weights and output of the chosen query, by the command."""
    with tempfile.TemporaryDirectory() as work:
        for name in "qkv":
            npy_write(f"{work}/{name}.npy", state[name])
        scale = (1 / math.sqrt(state["shape"]["dim"]) if state["scaled"] else 1) / state["temperature"]
        results = []
        for words in (["scale=1", "scores=0"], [f"scale={scale:.9g}", "scores=2"], [f"scale={scale:.9g}", "scores=3"]):
            command = [heed, "run", *(x for n in "qkv" for x in (f"--{n}", f"{work}/{n}.npy")), *words, *(["causal"] if state["causal"] else [])]
            subprocess.run(command + ["--scores", f"{work}/s.npy", "-o", f"{work}/o.npy"], check=True, stdout=subprocess.DEVNULL)
            keys, i = len(state["k"]), state["query"]
            results.append(npy_read(f"{work}/s.npy")[i * keys:(i + 1) * keys])
        width = len(state["v"][0])
        return (*results, npy_read(f"{work}/o.npy")[i * width:(i + 1) * width])


def close(text, value, digits):
    return abs(float(text) - value) <= 0.51 * 10 ** -digits + 1e-6 * abs(value)


def numbers_agree(driver, name):
    state = driver.execute_script("return heedState()")
    dots, scores, weights, output = library(state)
    shown = driver.execute_script("return [...document.querySelectorAll('#rows tr')].map(tr => [...tr.children].map(td => td.textContent))")
    length = lambda x: math.sqrt(sum(y * y for y in x))
    good = len(shown) == len(state["k"])
    for j, cells in enumerate(shown):
        lengths = length(state["q"][state["query"]]) * length(state["k"][j])
        cosine = max(-1, min(1, dots[j] / lengths)) if lengths else 0
        good &= close(cells[1], dots[j], 3) and close(cells[2], cosine, 3) and close(cells[5], weights[j], 4)
        # near 0 and 180 degrees the angle hangs on the last bits of the cosine
        good &= cells[3] == "\u2013" if not lengths else abs(math.cos(math.radians(float(cells[3][:-1]))) - cosine) < 2e-3
        good &= cells[4] == "hidden" if scores[j] == -math.inf else close(cells[4], scores[j], 3)
    text = driver.find_element(By.ID, "output").text.strip("()").split(", ")
    good &= len(text) == len(output) and all(close(t, x, 3) for t, x in zip(text, output))
    verdict(good, f"{name}: the numbers shown are the library's")


def press_step(driver, n):
    driver.find_elements(By.CSS_SELECTOR, "#steps button")[n].click()


def picture(driver, name):
    if pictures:
        os.makedirs(pictures, exist_ok=True)
        driver.save_screenshot(f"{pictures}/{name}.png")


def walk(driver):
    state = lambda: driver.execute_script("return heedState()")
    for n in range(7):
        press_step(driver, n)
        numbers_agree(driver, f"step {n + 1}")
        picture(driver, f"step{n + 1}")
    press_step(driver, 0)
    # a slider by its keys, as a reader without a mouse does
    slider = driver.find_element(By.ID, "slider-0")
    slider.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.PAGE_DOWN)
    verdict(abs(state()["q"][0][0] - 0.8) < 1e-6 and driver.find_element(By.ID, "slider-value-0").text == "0.80", "a slider moves by keys")
    numbers_agree(driver, "slider by keys")
    driver.execute_script("const s = document.getElementById('slider-1'); s.value = -1.5; s.dispatchEvent(new Event('input', {bubbles: true}))")
    verdict(state()["q"][0][1] == -1.5, "a slider moves")
    numbers_agree(driver, "slider")
    # an arrow by its tip
    before = state()["k"][1]
    tip = driver.find_element(By.CSS_SELECTOR, "#arrow-1-1 circle")
    center = lambda: driver.execute_script("const b = arguments[0].getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]", tip)
    start = center()
    ActionChains(driver).click_and_hold(tip).move_by_offset(-60, 60).release().perform()
    after, end = state()["k"][1], center()
    verdict(after[0] < before[0] - 0.3 and after[1] < before[1] - 0.3, f"a tip is dragged: {before} to {after}")
    verdict(abs(end[0] - start[0] + 60) < 6 and abs(end[1] - start[1] - 60) < 6, f"and follows the pointer: {start} to {end}")
    verdict(driver.find_element(By.ID, "vector").get_attribute("value") == "1:1", "what is dragged is chosen")
    numbers_agree(driver, "drag")
    tip.send_keys(Keys.ARROW_UP)
    verdict(abs(state()["k"][1][1] - after[1] - 0.1) < 1e-6, "a tip moves by keys")
    for name in ("causal", "scaled"):
        driver.find_element(By.ID, name).click()
        numbers_agree(driver, name)
    driver.find_element(By.ID, "temperature").send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    verdict(abs(state()["temperature"] - 0.5) < 1e-6, "the temperature moves")
    numbers_agree(driver, "temperature")
    driver.find_element(By.ID, "reset").click()
    verdict(state()["q"][0] == [2, 1] and state()["temperature"] == 1, "reset")
    # zero: no angle
    driver.execute_script("for (const d of [0, 1]) { const s = document.getElementById('slider-' + d); s.value = 0; s.dispatchEvent(new Event('input')) }")
    numbers_agree(driver, "a zero query")
    # the capture
    press_step(driver, 6)
    verdict("\u201cit\u201d looks at \u201canimal\u201d" in driver.find_element(By.ID, "text").text, "the lesson's text")
    Select(driver.find_element(By.ID, "query")).select_by_index(9)
    verdict("\u201cit\u201d attends to animal 0.45" in driver.find_element(By.ID, "look").text, "`it` looks at `animal`")
    first = state()["weights"]
    Select(driver.find_element(By.ID, "head")).select_by_index(2)
    verdict(state()["weights"] != first, "another head has other weights")
    numbers_agree(driver, "another head")
    canvas = driver.find_element(By.ID, "map")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    ActionChains(driver).move_to_element(canvas).perform()
    verdict("; to \u201c" in driver.find_element(By.ID, "look").text, "the map tells what is pointed at")
    canvas.click()
    verdict(state()["query"] != 9, "a row of the map is chosen by a click")
    numbers_agree(driver, "chosen on the map")


def rows_agree(driver):
    """Vectors, one number at a time, and the definition: the same numbers on the page, and the page says which."""
    state = lambda: driver.execute_script("return heedState()")
    shown = lambda: driver.execute_script("return [...document.querySelectorAll('#rows td')].map(td => td.textContent).concat(document.getElementById('output').textContent)")
    for step in (0, 3, 4, 6):
        press_step(driver, step)
        if step == 6:
            Select(driver.find_element(By.ID, "head")).select_by_index(1)
        seen = {}
        for n, kernel in enumerate(("cpu.vector.prefill", "cpu.scalar.prefill", "reference")):
            Select(driver.find_element(By.ID, "kernel")).select_by_visible_text(kernel)
            seen[kernel] = state()
            verdict(seen[kernel]["kernel"] == kernel and kernel in driver.find_element(By.ID, "engine").text, f"{kernel} is named")
            verdict(max(seen[kernel]["differences"]) < 2e-6 and (n < 2 or max(seen[kernel]["differences"]) == 0), f"{kernel}: as the definition, {seen[kernel]['differences']}")
            numbers_agree(driver, f"step {step + 1} by {kernel}")
            seen[kernel]["shown"] = shown()
        vector, scalar = seen["cpu.vector.prefill"], seen["cpu.scalar.prefill"]
        apart = max(abs(a - b) for a, b in zip(vector["weights"] + vector["output"], scalar["weights"] + scalar["output"]))
        verdict(len(vector["weights"]) == len(scalar["weights"]) > 0 and apart < 1e-6, f"step {step + 1}: vector and scalar rows agree, {apart}")
        if step < 6:
            verdict(vector["shown"] == scalar["shown"] == seen["reference"]["shown"], f"step {step + 1}: all rows show the same")
    verdict(any(d > 0 for d in vector["differences"]) and vector["weights"] != seen["reference"]["weights"], "the rows are not the definition under another name")
    Select(driver.find_element(By.ID, "kernel")).select_by_index(0)


# ---- files ------------------------------------------------------------------

def drop(driver, **files):
    """Files by name (q_npy for q.npy) and bytes, as if they came with the pointer; waits until they are read."""
    driver.execute_script("""
      const list = new DataTransfer();
      for (const [name, data] of Object.entries(arguments[0])) list.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], name));
      window.filesRead = false;
      const over = new DragEvent("dragover", {dataTransfer: list, bubbles: true, cancelable: true});
      document.body.dispatchEvent(over);
      window.dropWanted = over.defaultPrevented && document.documentElement.classList.contains("dropping");
      document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: list, bubbles: true, cancelable: true}));
      const before = heedFiles();
      const look = () => heedFiles() > before ? window.filesRead = true : setTimeout(look, 5);
      look();""", {name.replace("_npy", ".npy").replace("_txt", ".txt"): base64.b64encode(data).decode() for name, data in files.items()})
    WebDriverWait(driver, 30).until(lambda d: d.execute_script("return window.filesRead"))
    verdict(driver.execute_script("return window.dropWanted && !document.documentElement.classList.contains('dropping')"), "a drop is wanted, and shown while it hovers")


def trouble(driver):
    return driver.find_element(By.ID, "trouble").text


def remove_all(driver):
    for _ in range(9):
        buttons = driver.find_elements(By.XPATH, "//ul[@id='file-list']//button[text()='remove']")
        if not buttons:
            break
        buttons[0].click()


def cell_says(driver, row, column, value):
    heat = driver.find_element(By.ID, "heat")
    heat.send_keys(Keys.HOME, *([Keys.ARROW_UP] * 40), *([Keys.ARROW_DOWN] * row), *([Keys.ARROW_RIGHT] * column))
    text = driver.find_element(By.ID, "heat-text").text
    return text.startswith(f"Row {row}, column {column}: ") and abs(float(text.split(": ")[1].rstrip(".")) - value) <= 1e-6 * abs(value)


def pictures_of_files(driver):
    wave = [round(math.sin(0.7 * n) * 3, 3) for n in range(5 * 7)]
    drop(driver, map_npy=npy_bytes((5, 7), wave))
    verdict(trouble(driver) == "" and "map.npy [5, 7]" in driver.find_element(By.ID, "picture-name").text, f"a dropped array is drawn: {trouble(driver)}")
    verdict(cell_says(driver, 0, 0, wave[0]) and cell_says(driver, 2, 3, wave[2 * 7 + 3]) and cell_says(driver, 4, 6, wave[34]), "its cells by keys")
    text = driver.find_element(By.ID, "heat-numbers").text
    verdict(f"From {min(wave):g} to {max(wave):g}" in text and abs(float(text.split("mean ")[1].rstrip(".")) - sum(wave) / 35) < 1e-6, f"least, most, mean: {text}")
    colors = driver.execute_script("""
      const c = document.getElementById('heat'), r = devicePixelRatio, w = c.cells[0] / 7 * r, h = c.cells[1] / 5 * r;
      const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
      const at = n => 4 * (Math.floor((Math.floor(n / 7) + .5) * h) * c.width + Math.floor((n % 7 + .5) * w));
      return Array.from({length: 35}, (_, n) => [...data.slice(at(n), at(n) + 3)])""")
    most = max(map(abs, wave))
    mix = lambda x: [round(m + (e - m) * abs(x) / most) for m, e in zip((245, 245, 245), (178, 24, 43) if x > 0 else (33, 102, 172))]
    verdict(all(max(abs(a - b) for a, b in zip(c, mix(x))) <= 1 for c, x in list(zip(colors, wave))[:34]), "its colours are its numbers")
    named(driver, "picture")
    driver.execute_script("document.getElementById('files').scrollIntoView()")
    picture(driver, "signed")
    remove_all(driver)
    verdict(not driver.find_element(By.ID, "picture").is_displayed(), "a removed file is no picture")
    for descr, values in (("<f8", [0.5, 1e300, 2]), ("<f2", [0.5, 1.5, 65504]), ("|i1", [-128, 0, 127]), ("|u1", [0, 7, 255]), ("<i2", [-32768, 5, 32767]), ("<u2", [0x3f80, 0, 0x4000]),
                          ("<i4", [-2147483648, 1, 2]), ("<u4", [4294967295, 1, 2]), ("<i8", [-9007199254740992, 1, 2]), ("<u8", [9007199254740992, 1, 2]), ("|b1", [1, 0, 1])):
        drop(driver, one_npy=npy_bytes((1, 3), values, descr))
        seen = [1.0, 0, 2.0] if descr == "<u2" else values
        verdict(all(cell_says(driver, 0, n, x) for n, x in enumerate(seen)), f"{descr} is read: {trouble(driver)} {driver.find_element(By.ID, 'heat-text').text}")
    drop(driver, line_npy=npy_bytes((4,), [1, math.nan, math.inf, -3]))
    verdict(cell_says(driver, 0, 3, -3) and "1 NaN, 1 infinite" in driver.find_element(By.ID, "heat-numbers").text, "one axis, and what is no number")
    drop(driver, stack_npy=npy_bytes((2, 3, 4, 5), list(range(120)), "<i4"))
    Select(driver.find_element(By.ID, "slice")).select_by_visible_text("1, 2")
    verdict(cell_says(driver, 3, 4, 119) and cell_says(driver, 0, 1, 101), "slices of four axes")
    drop(driver, tall_npy=npy_bytes((2000, 3), [n % 3 for n in range(6000)], "|u1"))
    verdict(trouble(driver) == "" and "From 0 to 2, mean 1" in driver.find_element(By.ID, "heat-numbers").text, "more rows than pixels")
    remove_all(driver)


def bad_files(driver):
    good = npy_bytes((2, 3), range(6))
    drop(driver, a_npy=good)
    for name, data, why in (("text", b"hello, I am no array at all", "is no .npy file"), ("archive", b"PK\x03\x04" + bytes(60), "is an archive"), ("big", npy_bytes((2, 3), range(6), ">f4"), "big endian"),
                            ("columns", npy_bytes((2, 3), range(6), order="True"), "Fortran order"), ("objects", npy_bytes((2,), bytes(16), "|O"), "type |O"),
                            ("complex", npy_bytes((2,), bytes(16), "<c8"), "type <c8"), ("cut", good[:-1], "the file has 23"), ("empty", b"", "is no .npy file"),
                            ("none", npy_bytes((0, 3), []), "nothing to draw"), ("wide", npy_bytes((1, 5000), bytes(5000), "|u1"), "drawn are 4096"), ("version", b"\x93NUMPY\x03\x00" + good[8:], "only 1.0 and 2.0")):
        drop(driver, **{name + "_npy": data})
        verdict(f"{name}.npy: " in trouble(driver) and why in trouble(driver), f"{name}: \"{why}\" in \"{trouble(driver)}\"")
        verdict(driver.find_element(By.ID, "trouble").get_attribute("role") == "alert" and "a.npy" in driver.find_element(By.ID, "picture-name").text, "what was there stays")
    remove_all(driver)
    drop(driver, q_npy=npy_bytes((4, 3), range(12)), k_npy=npy_bytes((5, 2), range(10)))
    verdict("rows of q have 3 elements, rows of k 2" in trouble(driver), f"q and k that do not fit: {trouble(driver)}")
    numbers_agree(driver, "after a refusal")
    drop(driver, k_npy=npy_bytes((5, 3), [math.nan] + [1] * 14))
    verdict("1 elements are NaN" in trouble(driver), f"NaN in k: {trouble(driver)}")
    drop(driver, k_npy=npy_bytes((5, 3), range(15), "<i4"))
    verdict("holds <i4" in trouble(driver), f"integers as k: {trouble(driver)}")
    drop(driver, k_npy=npy_bytes((1500, 3), [0] * 4500))
    verdict("len from 1 to 1024" in trouble(driver), f"too many keys: {trouble(driver)}")
    verdict(not driver.find_element(By.ID, "own-step").is_displayed(), "no step of files that were refused")
    drop(driver, **{f"f{n}_npy": good for n in range(7)})
    verdict("8 files are here already" in trouble(driver), f"too many files: {trouble(driver)}")
    remove_all(driver)


def whole_weights(driver, heads):
    """The page's weights of every head, [heads][queries * keys]."""
    all_heads = []
    for h in range(heads):
        Select(driver.find_element(By.ID, "head")).select_by_index(h)
        all_heads.append(driver.execute_script("return heedState().weights"))
    return all_heads


def attention_of_files(driver):
    state = lambda: driver.execute_script("return heedState()")
    with tempfile.TemporaryDirectory() as work:
        def save(name, data):
            open(f"{work}/{name}.npy", "wb").write(data)
            return data
        def library_weights(*words):
            subprocess.run([heed, "run", *(x for n in "qkv" for x in (f"--{n}", f"{work}/{n}.npy")), *words, "--scores", f"{work}/s.npy", "-o", f"{work}/o.npy"], check=True, stdout=subprocess.DEVNULL)
            return npy_read(f"{work}/s.npy")
        def agree(name, heads, *words):
            library, page_ = library_weights(*words), whole_weights(driver, heads)
            count = len(library) // heads
            apart = max(abs(a - b) for h in range(heads) for a, b in zip(library[h * count:(h + 1) * count], page_[h]))
            verdict(all(len(x) == count for x in page_) and apart < 1e-6, f"{name}: the weights of all heads are heed run's, {apart}")
            numbers_agree(driver, name)
        wave = lambda n, step, size: [round(size * math.sin(step * x + 1), 3) for x in range(n)]
        # [len, heads, dim], two heads of q to one of k; f4, f2, f8
        q = save("q", npy_bytes((6, 4, 8), wave(192, 0.9, 2)))
        k = save("k", npy_bytes((9, 2, 8), wave(144, 0.7, 2), "<f2"))
        v = save("v", npy_bytes((9, 2, 3), wave(54, 1.3, 1), "<f8"))
        drop(driver, q_npy=q, k_npy=k, v_npy=v)
        verdict(trouble(driver) == "" and state()["shape"] == {"queries": 6, "keys": 9, "heads": 4, "dim": 8, "vDim": 3}, f"q, k and v are loaded: {trouble(driver)} {state()['shape']}")
        verdict("q.npy" in driver.find_element(By.ID, "text").text and driver.find_element(By.ID, "own-step").get_attribute("aria-current") == "step", "the step says whose they are")
        agree("q, k, v of files", 4, "scores=3")
        driver.find_element(By.ID, "causal").click()
        agree("causal", 4, "scores=3", "causal")
        picture(driver, "files")
        named(driver, "files")
        # labels
        drop(driver, tokens_txt="a b c d e f g h i".replace(" ", "\n").encode())
        verdict(driver.execute_script("return document.querySelector('#rows th').textContent") == "a" and Select(driver.find_element(By.ID, "query")).options[0].text == "d", "tokens get labels")
        drop(driver, tokens_txt=b"a\nb\n")
        verdict("2 labels for 9 keys" in trouble(driver), f"labels that do not fit: {trouble(driver)}")
        remove_all(driver)
        # by the button and the keyboard alone: [heads, len, dim], names that say nothing, no v
        save("one", npy_bytes((2, 5, 4), wave(40, 1.1, 1.5)))
        save("two", npy_bytes((2, 7, 4), wave(56, 0.6, 1.5)))
        driver.find_element(By.ID, "pick").send_keys(f"{work}/one.npy\n{work}/two.npy")
        WebDriverWait(driver, 30).until(lambda d: state()["shape"]["keys"] == 7)
        for name, source in (("q", "one"), ("k", "two"), ("v", "two")):
            save(name, open(f"{work}/{source}.npy", "rb").read())
        verdict(driver.find_element(By.ID, "axes-order").get_attribute("value") == "1", "fewer heads than tokens")
        agree("heads first", 2, "scores=3", "layout=bhld")
        Select(driver.find_element(By.ID, "axes-order")).select_by_index(0)
        verdict("not a multiple" in trouble(driver) or "tokens" in trouble(driver) or state()["shape"]["queries"] == 2, f"the other order of axes: {trouble(driver)} {state()['shape']}")
        remove_all(driver)
        # two axes; a role chosen by hand
        drop(driver, x_npy=npy_bytes((3, 4), wave(12, 0.8, 1)))
        drop(driver, y_npy=npy_bytes((6, 4), wave(24, 0.5, 1)))
        for n, role in enumerate("qk"):
            Select(driver.find_elements(By.CSS_SELECTOR, "#file-list select")[n]).select_by_visible_text(role)
        driver.find_element(By.ID, "attend").send_keys(Keys.ENTER)
        save("q", npy_bytes((3, 1, 4), wave(12, 0.8, 1)))
        save("k", npy_bytes((6, 1, 4), wave(24, 0.5, 1)))
        save("v", npy_bytes((6, 1, 4), wave(24, 0.5, 1)))
        agree("two axes, roles by hand", 1, "scores=3")
        driver.find_element(By.ID, "reset").click()
        verdict(state()["shape"]["keys"] == 6, "reset keeps the files")
        # as many tokens as the page takes
        drop(driver, q_npy=save("q", npy_bytes((1024, 1, 16), wave(16384, 0.37, 1))), k_npy=save("k", npy_bytes((1024, 1, 16), wave(16384, 0.31, 1))), v_npy=save("v", npy_bytes((1024, 1, 16), wave(16384, 0.31, 1))))
        agree("1024 tokens", 1, "scores=3")
        driver.execute_script("document.getElementById('map').scrollIntoView()")
        picture(driver, "many")
        remove_all(driver)
        verdict(state()["shape"]["keys"] == 4 and not driver.find_element(By.ID, "own-step").is_displayed(), "without the files the lesson is back")


def named(driver, where):
    """Everything that can be reached says what it is."""
    names = driver.execute_script("""
      return [...document.querySelectorAll('button, select, input, [tabindex]')].filter(e => e.getClientRects().length)
        .map(e => e.getAttribute('aria-label') || (document.getElementById(e.getAttribute('aria-labelledby')) || {}).textContent || (e.labels && e.labels[0] && e.labels[0].textContent.trim()) || e.textContent.trim())""")
    verdict(len(names) > 15 and all(names), f"{where}: everything that can be reached has a name")


def reachable(driver):
    """Tab goes through everything."""
    named(driver, "lesson")
    driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    first = driver.execute_script("return document.activeElement.tagName")
    verdict(first == "BUTTON", "Tab begins with the steps")


def contrast(driver, name):
    def luminance(color):
        parts = [float(x) / 255 for x in color[color.index("(") + 1:-1].split(",")[:3]]
        parts = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    ink, paper = driver.execute_script("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
    a, b = sorted((luminance(ink), luminance(paper)))
    verdict((b + 0.05) / (a + 0.05) > 7, f"{name}: letters can be read")
    return luminance(paper)


def main():
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1000"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
    try:
        driver.get("file://" + page)
        WebDriverWait(driver, 60).until(lambda d: d.execute_script("return document.documentElement.dataset.ready") == "yes")
        verdict(contrast(driver, "light") > 0.5, "light by default")
        reachable(driver)
        walk(driver)
        rows_agree(driver)
        pictures_of_files(driver)
        bad_files(driver)
        attention_of_files(driver)
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
        verdict(contrast(driver, "dark") < 0.1, "dark where it is asked for")
        press_step(driver, 6)
        driver.execute_script("document.getElementById('map').scrollIntoView({block: 'end'})")
        picture(driver, "dark")
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 380, "height": 800, "deviceScaleFactor": 1, "mobile": True})
        press_step(driver, 1)
        drop(driver, narrow_npy=npy_bytes((30, 40), [math.sin(n * n / 99) ** 2 for n in range(1200)]))
        verdict(driver.execute_script("return document.documentElement.scrollWidth") <= 380, "a narrow screen is enough")
        picture(driver, "narrow")
        driver.execute_script("document.getElementById('files').scrollIntoView()")
        picture(driver, "narrow-files")
        loaded = driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
        verdict(not loaded, f"nothing is loaded: {loaded}")
        log = [line for line in driver.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]
        verdict(not log, f"the browser complains of nothing: {log}")
    finally:
        driver.quit()
    print(f"{counts[True]} passed, {counts[False]} failed, 0 skipped")
    sys.exit(counts[False] > 0)


main()
