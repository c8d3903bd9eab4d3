#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The page in a real browser: sliders, tips and settings are moved, and every number that is shown is held against `heed run` on the same arrays.
web/test_page.py PAGE HEED [FOLDER for screenshots]"""
import math, os, struct, subprocess, sys, tempfile
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


def npy_write(path, rows):  # [len, 1, dim]
    values = [x for row in rows for x in row]
    head = ("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 1, %d), }" % (len(rows), len(rows[0]))).encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + struct.pack("<%df" % len(values), *values))


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
    Select(driver.find_element(By.ID, "query")).select_by_index(9)
    verdict("\u201cit\u201d attends to animal 0.45" in driver.find_element(By.ID, "look").text, "`it` looks at `animal`")
    Select(driver.find_element(By.ID, "head")).select_by_index(2)
    numbers_agree(driver, "another head")
    canvas = driver.find_element(By.ID, "map")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    ActionChains(driver).move_to_element(canvas).perform()
    verdict("; to \u201c" in driver.find_element(By.ID, "look").text, "the map tells what is pointed at")
    canvas.click()
    verdict(state()["query"] != 9, "a row of the map is chosen by a click")
    numbers_agree(driver, "chosen on the map")


def reachable(driver):
    """Tab goes through everything, and everything says what it is."""
    names = driver.execute_script("""
      return [...document.querySelectorAll('button, select, input, [tabindex]')].filter(e => e.getClientRects().length)
        .map(e => e.getAttribute('aria-label') || (e.labels && e.labels[0] && e.labels[0].textContent.trim()) || e.textContent.trim())""")
    verdict(len(names) > 15 and all(names), "everything that can be reached has a name")
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
        walk(driver)
        reachable(driver)
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
        verdict(contrast(driver, "dark") < 0.1, "dark where it is asked for")
        press_step(driver, 6)
        driver.execute_script("document.getElementById('map').scrollIntoView({block: 'end'})")
        picture(driver, "dark")
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 380, "height": 800, "deviceScaleFactor": 1, "mobile": True})
        press_step(driver, 1)
        verdict(driver.execute_script("return document.documentElement.scrollWidth") <= 380, "a narrow screen is enough")
        picture(driver, "narrow")
        loaded = driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
        verdict(not loaded, f"nothing is loaded: {loaded}")
        log = [line for line in driver.get_log("browser") if line["level"] in ("SEVERE", "WARNING")]
        verdict(not log, f"the browser complains of nothing: {log}")
    finally:
        driver.quit()
    print(f"{counts[True]} passed, {counts[False]} failed, 0 skipped")
    sys.exit(counts[False] > 0)


main()
