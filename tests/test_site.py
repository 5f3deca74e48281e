"""The web site: built from the notebooks without a warning, complete, and moved in a browser that reaches nothing but the site.

Needs `pip install -e ".[docs]"` for the first half, playwright and Chromium as well for the second; without them the tests are skipped.
SITE_SHOTS=folder keeps screenshots of the explorers; NANODETR_SITE=folder takes a site that is already built.
"""
import base64
import importlib.util
import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from nanodetr.boxes import cxcywh_to_xyxy, pairwise_giou
from nanodetr.data import ShapesDataset
from nanodetr.model import DETR
from served import CONTRAST, browser, served  # noqa: F401, a fixture

ROOT = Path(__file__).resolve().parent.parent
COURSE = sorted(path.stem for path in (ROOT / "nbs").glob("[0-9]*.ipynb"))
PAGES = sorted(path.relative_to(ROOT / "nbs").with_suffix("").as_posix() for path in (ROOT / "nbs").rglob("*.ipynb")
               if ".ipynb_checkpoints" not in path.parts and path.stem != "index")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The folder of the built site. Strict: a warning fails the build."
    if built := os.environ.get("NANODETR_SITE"): return Path(built)
    for needed in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        try: found = importlib.util.find_spec(needed)
        except ModuleNotFoundError: found = None
        if not found: pytest.skip(f'{needed} is missing: pip install -e ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run([sys.executable, ROOT / ".site" / "build.py", "--out", folder / "out", "--pages", folder / "pages"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "out"


@pytest.fixture(scope="module")
def address(site):
    "Where the site is served."
    with served(site) as where: yield where


@pytest.fixture
def visit(browser, address):
    "visit(path, width, scheme) -> the page. Whatever leaves the site, or is logged as an error, fails the test at its end."
    faults, contexts = [], []

    def local(route):
        if route.request.url.startswith((address, "data:", "blob:")): return route.continue_()
        faults.append(f"asks for {route.request.url}")
        route.abort()

    def visit(path, width=1280, scheme="light", **more):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce", **more))
        contexts[-1].route("**/*", local)
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda m: faults.append(f"{path}: console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda e: faults.append(f"{path}: {e}"))
        page.on("response", lambda r: faults.append(f"{path}: {r.status} for {r.url}") if r.status >= 400 else None)
        page.goto(f"{address}/{path}", wait_until="load")
        return page

    yield visit
    for context in contexts: context.close()
    assert not faults, faults


def explorer(page, kind):
    "The explorer, once it is ready to be played with."
    place = page.locator(f"#{kind}-explorer")
    place.scroll_into_view_if_needed()
    page.wait_for_selector(f"#{kind}-explorer.ready .ndx[data-ready]")
    root = place.locator(".ndx")
    root.scroll_into_view_if_needed()
    return root


def state(root, *names):
    "What the explorer says about itself, in data-attributes."
    found = [root.get_attribute(f"data-{name}") for name in names]
    return found if len(names) > 1 else found[0]


def settle(page):
    "Two frames: after a change, the explorer draws in the next one."
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def press(page, canvas, x, y):
    "A press of the mouse at (x, y) in 0..1; then the pointer leaves."
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.mouse.move(2, 2)
    settle(page)


def keep(root, name):
    if folder := os.environ.get("SITE_SHOTS"): root.screenshot(path=f"{folder}/site_{name}.png")


def pictures(root) -> list:
    "What the explorer's canvases show."
    return root.locator("canvas").evaluate_all("all => all.map(canvas => canvas.toDataURL())")


def data(site, kind) -> dict:
    "The numbers that the explorer draws."
    return json.loads((site / "assets" / "explorers" / f"{kind}.json").read_text(encoding="utf-8"))["data"]


# --- without a browser

def test_every_notebook_is_a_page_and_the_course_is_in_order(site):
    text = (site / COURSE[0] / "index.html").read_text(encoding="utf-8")
    nav = text[text.index('data-md-component="sidebar"'):text.index('data-md-type="toc"')]
    found = [name or COURSE[0] for name, _ in re.findall(r'href="\.\./(\d\d[a-z]?_\w+)/"|href="(\./)"', nav)]
    assert list(dict.fromkeys(found)) == COURSE
    for page in PAGES: assert (site / page / "index.html").is_file(), page
    linked = set(re.findall(r'href="\.\./([\w/]+)/"', nav))
    assert {page for page in PAGES if page != COURSE[0]} <= linked


def test_pages_are_tidy(site):
    for path in [site / page / "index.html" for page in PAGES]:
        text = path.read_text(encoding="utf-8")
        told = path.parent.name in ("follow", "coach")  # which are about these marks, and show some in a toy
        assert told or not re.search(r"#\|\s*(export|default_exp|hide)\b", unescape(re.sub(r"<[^>]+>", "", text))), f"{path}: a directive"
        assert "run_line_magic" not in text, f"{path}: the cell for Colab"
        assert "ModuleNotFoundError" not in text and "Explorer(children=" not in text, path


def test_saved_figures_are_on_the_page(site):
    for name in COURSE:
        cells = json.loads((ROOT / "nbs" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        saved = [output["data"]["image/png"] for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
        shown = re.findall(r'src="\.\./(figures/[^"]+)"', (site / name / "index.html").read_text(encoding="utf-8"))
        decoded = [base64.b64decode("".join(png)) for png in saved]
        assert [(site / file).read_bytes() for file in shown] == decoded, name


def test_the_api_is_read_from_the_source(site):
    text = (site / "api" / "boxes" / "index.html").read_text(encoding="utf-8")
    for words in ("pairwise_giou", "every a with every b", "centre x, centre y, width, height"): assert words in text  # the last from a comment
    assert len(list((site / "api").rglob("index.html"))) >= 16


def test_nothing_on_a_page_is_fetched_from_elsewhere(site):
    for path in site.rglob("*.html"):
        text = re.sub(r"<script>.*?</script>", "", path.read_text(encoding="utf-8"), flags=re.S)
        tags = re.findall(r'<(?:script|img|iframe|source|link rel="(?:stylesheet|preconnect|preload|icon)")[^>]*?(?:src|href)="(https?:)?//([^"]+)', text)
        assert not tags, f"{path}: {tags[:3]}"


def test_the_explorers_are_the_librarys(site):
    for module in (ROOT / "nanodetr" / "explorers").glob("*.js"):
        there = site / "assets" / ("playground" if module.stem == "playground" else "explorers") / module.name
        if module.stem == "playground" and not there.parent.is_dir(): continue  # built without a network
        assert there.read_text(encoding="utf-8") == module.read_text(encoding="utf-8")
    model = DETR.from_pretrained("nano-shapes")
    image = ShapesDataset("val", n=5)[2][0]
    with torch.no_grad(): true = torch.cat(model(image[None], need_weights=True).attention["encoder"])
    told = unpacked(data(site, "encoder_attention")["scenes"][1]["views"]["none"]["weights"])
    assert np.abs(told.reshape(true.shape) - true.numpy()).max() < 0.002


# --- in a browser

def test_every_course_page_opens(visit):
    page = visit("")
    lessons = [*COURSE, "plots/pictures", "solutions/09_matching"] if "NANODETR_SLOW" in os.environ else ["10_loss"]  # each takes seconds, formulas most of all
    for name in [*lessons, "api/model"]:
        page.goto(re.sub(r"(:\d+)/.*", rf"\1/{name}/", page.url), wait_until="load")
        assert page.locator("h1").first.is_visible()
        if page.locator(".arithmatex").count(): page.wait_for_selector("mjx-container svg")
        assert page.locator("mjx-container [data-mml-node=merror]").count() == 0, f"{name}: a formula that MathJax does not know"
        broken = page.evaluate("Array.from(document.images).filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
        assert not broken


def test_dark_mode_is_a_click_away(visit):
    page = visit("06_encoder/")
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.get_attribute("body", "data-md-color-scheme") == "default"
    light = page.evaluate(paper)
    page.locator("label[title='Dark mode']").click()
    page.wait_for_selector("body[data-md-color-scheme=slate]")
    assert page.evaluate(paper) != light
    root = explorer(page, "encoder_attention")
    keep(root, "attention_dark")
    dark = pictures(root)
    page.locator("label[title='Light mode']").click()
    page.wait_for_selector("body[data-md-color-scheme=default]")
    settle(page)
    assert pictures(root) != dark, "the explorer does not follow the theme"


PLACES = [("01_boxes", "boxes"), ("04_positional_encoding", "positions"), ("06_encoder", "encoder_attention"), ("07_decoder", "decoder_attention"), ("09_matching", "matching"), ("11_training", "replay"), ("12_evaluation", "precision_recall")]


@pytest.mark.parametrize("name, kind", PLACES, ids=[kind for _, kind in PLACES])
def test_explorers_work_on_a_phone_by_touch_and_by_keys(visit, name, kind):
    page = visit(f"{name}/", width=390, scheme="dark", has_touch=True, device_scale_factor=2)
    root = explorer(page, kind)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    keep(root, f"{kind}_phone")
    tall = root.bounding_box()["height"]
    for name in ("scene", {"boxes": "slide", "positions": "curve", "precision_recall": "curve", "matching": "table", "replay": "curves", "decoder_attention": "bars"}.get(kind, "maps")):
        canvas = root.locator(f"canvas[data-name={name}]")
        canvas.scroll_into_view_if_needed()
        box, before = canvas.bounding_box(), pictures(root)
        assert 250 < box["width"] <= 390 and canvas.evaluate("canvas => canvas.width / canvas.clientWidth") == pytest.approx(2, abs=0.02)  # sharp
        for x, y in ((0.31, 0.42), (0.6, 0.35), (0.72, 0.55)):
            page.touchscreen.tap(box["x"] + x * box["width"], box["y"] + y * min(box["height"], 800))
            settle(page)
            if pictures(root) != before: break
        else: pytest.fail(f"a finger on {name!r} changes nothing")
        canvas.focus()
        touched = pictures(root)
        for key in ("ArrowRight", "ArrowLeft", "ArrowLeft"):
            page.keyboard.press(key)
            settle(page)
            if pictures(root) != touched: break
        else: pytest.fail(f"the arrow keys on {name!r} change nothing")
        assert canvas.evaluate("canvas => getComputedStyle(canvas).outlineStyle") != "none" and len(canvas.get_attribute("aria-label")) > 20
    assert abs(root.bounding_box()["height"] - tall) < 80, "the page jumps"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_boxes_are_dragged_by_mouse_and_finger(visit):
    page = visit("01_boxes/")
    root = explorer(page, "boxes")
    keep(root, "boxes")
    hull, read = root.locator("canvas[data-name=hull]"), lambda: {key: float(state(root, key.replace("_", "-"))) for key in start}
    start = dict(predicted_cx=0.24, predicted_cy=0.32, predicted_w=0.24, predicted_h=0.3, target_cx=0.68, target_cy=0.54, target_w=0.36, target_h=0.44)
    assert read() == start and float(state(root, "giou")) < 0
    hull.scroll_into_view_if_needed()
    at = lambda x, y: (box["x"] + (x + 0.06) / 1.12 * box["width"], box["y"] + (y + 0.06) / 1.12 * box["height"])  # of the unit square
    box = hull.bounding_box()

    def drag(*points):
        page.mouse.move(*at(*points[0]))
        page.mouse.down()
        for point in points[1:]: page.mouse.move(*at(*point), steps=4)
        page.mouse.up()
        settle(page)
    drag((0.3, 0.4), (0.7, 0.62))
    assert read() == start | {"predicted_cx": pytest.approx(0.64, abs=0.011), "predicted_cy": pytest.approx(0.54, abs=0.011)}
    assert float(state(root, "iou")) > 0.4
    drag((0.76, 0.69), (0.86, 0.79))  # the corner of the box that was moved
    grown = read()
    assert grown["predicted_w"] == pytest.approx(0.34, abs=0.03) and grown["predicted_cx"] - grown["predicted_w"] / 2 == pytest.approx(0.52, abs=0.011)
    page.keyboard.press("ArrowUp")
    settle(page)
    assert read()["predicted_cy"] == pytest.approx(grown["predicted_cy"] - 0.01)

    before, middle = read(), at(grown["predicted_cx"], grown["predicted_cy"])
    page.mouse.move(*middle)
    page.mouse.down(button="right")
    page.mouse.move(*at(0.3, 0.3), steps=3)
    page.mouse.up(button="right")
    settle(page)
    assert read() == before, "the right button drags"
    hull.evaluate("""(canvas, [from, to]) => {  // the button is let go outside of the window: nobody tells the page
        canvas.setPointerCapture = () => {};
        for (const [type, [clientX, clientY], buttons] of [["pointerdown", from, 1], ["pointermove", to, 0]])
          canvas.dispatchEvent(new PointerEvent(type, {clientX, clientY, buttons, button: 0, isPrimary: true, pointerType: "mouse", pointerId: 1}));
    }""", [middle, at(0.3, 0.3)])
    settle(page)
    assert read() == before, "a box follows a mouse without a button"

    page = visit("01_boxes/", width=390, has_touch=True)
    root = explorer(page, "boxes")
    hull = root.locator("canvas[data-name=hull]")
    hull.scroll_into_view_if_needed()
    box, finger, before = hull.bounding_box(), page.context.new_cdp_session(page), page.evaluate("scrollY")
    touch = lambda kind, *points: finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})
    for x, y, moved in ((0.7, 0.6, True), (0.1, 0.95, False)):  # on the target, and on empty ground
        touch("touchStart", at(x, y))
        for k in range(1, 11): touch("touchMove", at(x, y - 0.03 * k))
        touch("touchEnd")
        page.wait_for_timeout(200)
        assert (page.evaluate("scrollY") == before) == moved, "a box is dragged, the page scrolled"
        assert read()["target_cy"] == pytest.approx(0.54 - 0.3, abs=0.02)


def test_a_cell_beyond_a_smaller_map_is_its_last(visit):
    page = visit("04_positional_encoding/")
    root = explorer(page, "positions")
    keep(root, "positions")
    assert state(root, "size", "row", "column") == ["8 x 8", "2", "5"]
    choose = lambda k: root.locator("input[data-key=size]").nth(k).check(force=True)
    choose(3)
    press(page, root.locator("canvas[data-name=scene]"), 33.5 / 34, 0.6)
    assert state(root, "size", "column") == ["25 x 34", "33"] and int(state(root, "row")) > 15
    assert root.locator("input[data-key=column]").evaluate("input => [input.max, input.value].join()") == "33,33"
    choose(0)
    settle(page)
    assert state(root, "row", "column") == ["7", "7"] and root.locator("input[data-key=row]").evaluate("input => [input.max, input.value].join()") == "7,7"
    assert "Cosine with cell (7, 7)" in root.text_content()
    root.locator("canvas[data-name=curve]").hover()
    settle(page)
    assert "cells away" in root.locator("[data-name=hint]").text_content()


def test_a_threshold_moves_along_the_curve_and_leaves_its_area(visit, site):
    page, told = visit("12_evaluation/"), data(site, "precision_recall")["classes"][0]
    root = explorer(page, "precision_recall")
    keep(root, "precision_recall")
    sentence, hint = (root.locator(f"[data-name={name}]") for name in ("sentence", "hint"))
    assert "precision 33/68" in sentence.text_content() and state(root, "kept", "right") == ["68", "33"]
    ap = state(root, "ap")
    scene = root.locator("canvas[data-name=scene]")
    scene.scroll_into_view_if_needed()
    box, first = scene.bounding_box(), data(site, "precision_recall")["classes"][0]["scenes"][0]
    x0, y0, x1, y1 = first["boxes"][0]  # the surest of the first image, which is a third of the width
    page.mouse.move(box["x"] + (x0 + x1) / 2 * box["width"] / 3, box["y"] + (y0 + y1) / 2 * box["height"] / 2)
    settle(page)
    assert hint.text_content().startswith("Score 0.") and ("right: IoU" in hint.text_content() or "wrong: " in hint.text_content())
    press(page, root.locator("canvas[data-name=curve]"), 0.2, 0.3)  # nearer to the start
    higher, kept = float(state(root, "threshold")), int(state(root, "kept"))
    assert higher > 0.5 and kept == sum(score >= higher for score in told["scores"][0]) < 68 and state(root, "ap") == ap
    page.keyboard.press("ArrowDown")  # the IoU that a hit needs
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    settle(page)
    assert state(root, "iou") == "0.6" and float(state(root, "ap")) == told["ap"][2] <= float(ap)
    root.locator("input[data-key=label]").nth(3).check(force=True)
    page.mouse.move(2, 2)
    settle(page)
    assert "detections of cross" in sentence.text_content()


def test_every_control_is_reached_by_tab(visit):
    page = visit("09_matching/")
    root = explorer(page, "matching")
    names = lambda: page.evaluate("() => { const e = document.activeElement; return e.closest('.ndx') && (e.dataset.key || e.dataset.name || e.textContent) }")
    root.locator("input").first.focus()
    seen = [names()]
    for _ in range(12):
        page.keyboard.press("Tab")
        seen.append(names())
    assert list(dict.fromkeys(name for name in seen if name)) == ["image", "stage", "layer", "way", "class_", "l1", "giou", "the paper\u2019s weights", "scene", "table"]


@pytest.mark.parametrize("width", [1280, 390])
def test_what_has_the_focus_is_not_under_the_header(visit, width):
    page = visit("07_decoder/", width=width)
    explorer(page, "decoder_attention").locator("canvas").last.focus()
    for _ in range(14):
        page.keyboard.press("Shift+Tab")
        top = page.evaluate("document.activeElement.getBoundingClientRect().top")
        assert top >= 48, page.evaluate("document.activeElement.outerHTML")


def test_explorers_come_when_the_reader_comes_near(visit):
    page = visit("")
    asked = []
    page.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[-1]))
    page.goto(page.url + "13_inside_detr/", wait_until="load")
    page.wait_for_timeout(300)
    assert "replay.json" not in asked and "core.js" not in asked
    explorer(page, "replay")
    assert "replay.json" in asked and "matching.json" not in asked


def reference(told, picture, stage, weights) -> tuple:
    "(Hungarian total, its queries by object) by SciPy and nanodetr.boxes, from the numbers on the page, by the first decoder layer."
    scene, says = told["scenes"][picture], told["said"][stage][0][picture]
    boxes, objects, probs = (torch.tensor(x, dtype=torch.float64) for x in (says["boxes"], scene["boxes"], says["probs"]))
    cost = weights[0] * -probs[:, scene["labels"]] + weights[1] * torch.cdist(boxes, objects, p=1)
    cost = (cost - weights[2] * pairwise_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(objects))).numpy()
    rows, columns = linear_sum_assignment(cost)
    return cost[rows, columns].sum(), [rows[list(columns).index(j)] for j in range(cost.shape[1])]


def test_matching_explorer_follows_its_sliders(visit, site):
    page, told = visit("09_matching/"), data(site, "matching")
    root = explorer(page, "matching")
    keep(root, "matching")
    image, stage = map(int, state(root, "image", "stage"))
    total = lambda: float(state(root, "total"))
    assert state(root, "layer") == "1" and total() == pytest.approx(reference(told, image, stage, (1, 5, 2))[0], abs=1e-5)
    before, said = pictures(root), root.locator("[data-name=sentence]").text_content()
    assert "less in all" in said  # it opens where greedy loses
    slider = root.locator("input[data-key=l1]")
    slider.focus()
    for _ in range(10): slider.press("ArrowLeft")  # 5 -> 0, by the keyboard
    settle(page)
    assert total() == pytest.approx(reference(told, image, stage, (1, 0, 2))[0], abs=1e-5)
    assert root.locator("[data-name=sentence]").text_content() != said
    for name, value in (("giou", 0), ("class_", 5)):
        root.locator(f"input[data-key={name}]").evaluate("(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value)
    settle(page)
    best, queries = reference(told, image, stage, (5, 0, 0))
    assert total() == pytest.approx(best, abs=1e-5) and pictures(root) != before
    assert float(state(root, "greedy")) >= best - 1e-9
    root.locator("button").click()  # the paper's weights
    settle(page)
    assert pictures(root) == before
    assert state(root, "pairs") == ",".join(map(str, reference(told, image, stage, (1, 5, 2))[1]))
    root.locator("input[data-key=image]").nth(1).check(force=True)
    root.locator("input[data-key=stage]").press("End")
    settle(page)
    assert total() == pytest.approx(reference(told, 1, len(told["stages"]) - 1, (1, 5, 2))[0], abs=1e-5)


def test_a_cell_of_the_cost_table_explains_itself(visit):
    page = visit("09_matching/")
    root = explorer(page, "matching")
    before, hint, table = pictures(root), root.locator("[data-name=hint]"), root.locator("canvas[data-name=table]")
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 44 + 2.5 * 25)  # the first column, the third row
    settle(page)
    assert pictures(root) != before and hint.text_content().startswith("q2 for A: class 1.0") and state(root, "query") == "-"
    page.mouse.move(2, 2)
    settle(page)
    assert pictures(root) == before
    table.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"): page.keyboard.press(key)
    settle(page)
    query, thing = state(root, "query", "object")
    assert thing == "1" and f"q{query} for B costs" in root.locator("[data-name=sentence]").text_content()
    keep(root, "matching_pair")
    page.keyboard.press("Escape")
    settle(page)
    assert state(root, "query", "object") == ["-", "-"] and pictures(root) == before


def unpacked(packed) -> np.ndarray:
    "Packed weights (rows,N)."
    alphabet = {c: k for k, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}
    digits = np.array([alphabet[c] for c in packed["text"]]).reshape(len(packed["top"]), packed["columns"], packed["letters"])
    share = (digits * 64.0 ** np.arange(packed["letters"])[::-1]).sum(-1)
    return share / np.maximum(share.sum(-1, keepdims=True), 1e-12)


def test_attention_explorer_follows_the_chosen_cell(visit, site):
    page, told = visit("06_encoder/"), data(site, "encoder_attention")
    root = explorer(page, "encoder_attention")
    keep(root, "encoder_attention")
    scene, view = root.locator("canvas[data-name=scene]"), told["scenes"][0]["views"]["none"]
    weights = unpacked(view["weights"]).reshape(told["layers"] * told["heads"], view["rows"] * view["columns"], -1)

    def check(row, column):
        assert state(root, "row", "column") == [str(row), str(column)]
        tops = list(map(float, state(root, "tops").split(",")))
        assert tops == pytest.approx(weights[:, row * view["columns"] + column].max(-1), abs=2e-3)

    press(page, scene, 1.5 / 8, 1.5 / 8)
    check(1, 1)
    before = pictures(root)
    press(page, scene, 5.5 / 8, 6.5 / 8)
    check(6, 5)
    assert all(a != b for a, b in zip(before, pictures(root))), "a picture did not follow"
    scene.focus()
    page.keyboard.press("ArrowRight")
    settle(page)
    check(6, 6)
    still = pictures(root)
    scene.hover(position={"x": 3, "y": 3})
    settle(page)
    assert pictures(root) != still and root.locator("[data-name=hint]").text_content().startswith("row 0, column 0")


def test_attention_explorer_shows_what_the_mask_is_for(visit, site):
    page, told = visit("06_encoder/"), data(site, "encoder_attention")
    root = explorer(page, "encoder_attention")
    view = told["scenes"][0]["views"]["padded"]
    padding = [i for i in range(view["rows"] * view["columns"]) if i % view["columns"] >= 8 or i // view["columns"] >= 8]
    assert unpacked(view["weights"])[:, padding][:8].max() == 0 < unpacked(told["scenes"][0]["views"]["mask forgotten"]["weights"])[:, padding].max()
    sentence, options = root.locator("[data-name=sentence]"), root.locator("input[data-key=padding]")
    options.nth(1).check(force=True)
    settle(page)
    assert "gets 0\u00a0% of the weight" in sentence.text_content()
    masked, tall = pictures(root), root.bounding_box()["height"]
    options.nth(2).check(force=True)
    settle(page)
    assert "is lost on padding" in sentence.text_content() and masked != pictures(root)
    root.locator("button").click()  # side by side
    settle(page)
    assert state(root, "beside") == "true" and root.bounding_box()["height"] == tall
    keep(root, "attention_padded")


def test_decoder_explorer_leaves_a_query_out(visit, site):
    page, told = visit("07_decoder/"), data(site, "decoder_attention")
    root = explorer(page, "decoder_attention")
    keep(root, "decoder_attention")
    image, query = map(int, state(root, "image", "query"))
    passes, final = told["scenes"][image]["passes"], lambda left_out: told["scenes"][image]["passes"][str(left_out)]["scores"][-1]
    rises = lambda out: [q for q in range(told["queries"]) if q != out and final(-1)[q] < 0.5 < final(out)[q]]
    out = next(q for q in range(told["queries"]) if rises(q))
    assert not root.locator("canvas[data-name=without]").is_visible()
    tall = root.bounding_box()["height"]
    root.locator("input[data-key=leave_out]").nth(out + 1).check(force=True)
    settle(page)
    assert abs(root.bounding_box()["height"] - tall) <= 2
    assert root.locator("canvas[data-name=without]").is_visible() and len(passes) == told["queries"] + 3  # none, self-attention, positions
    assert list(map(float, state(root, "scores").split(","))) == pytest.approx(final(out), abs=1e-3)
    root.locator("input[data-key=query]").nth(rises(out)[0]).check(force=True)
    settle(page)
    assert f"q{rises(out)[0]} rises from" in root.locator("[data-name=sentence]").text_content()
    keep(root, "decoder_left_out")
    before = state(root, "listens")
    root.locator("canvas[data-name=maps]").focus()
    page.keyboard.press("ArrowDown")  # the next layer
    settle(page)
    assert state(root, "layer") == "3" and state(root, "listens") != before
    for part, name in ((-2, "self-attention"), (-3, "positions")):
        root.locator("input[data-key=leave_out]").nth(told["queries"] - 1 - part).check(force=True)
        settle(page)
        sure = sum(score > 0.5 for score in final(part))
        assert list(map(float, state(root, "scores").split(","))) == pytest.approx(final(part), abs=1e-3)
        assert f"Without {name}, {sure} quer" in root.locator("[data-name=sentence]").text_content()
        assert root.locator("canvas[data-name=without]").is_visible()
        assert (set(state(root, "listens").split(",")) == {"0.000"}) == (part == -2)  # without positions they still listen
        keep(root, f"decoder_without_{name}")


def test_labels_stay_clear_of_one_another(visit):
    "Of boxes that lie on each other, at a rim and with a cell to keep free: each label that is drawn, as a rectangle."
    page = visit("glossary/")
    placed = page.evaluate("""async () => {
        const {labels} = await import(new URL("../assets/explorers/core.js", location.href)), canvas = document.createElement("canvas");
        const context = canvas.getContext("2d"), draw = (boxes, avoid) => {
          const found = [];
          context.roundRect = (x, y, w, h) => found.push([x, y, x + w, y + h]);
          labels(context, boxes.map((box, q) => ({text: `q${q} rectangle 0.44`, box, fill: "#2678D1"})), 245, 245, 10.5, avoid);
          return [...found, ...avoid];
        };
        return [draw(Array(6).fill([66, 64, 185, 190]), []), draw(Array(5).fill([2, 2, 240, 240]), []), draw([[60, 60, 200, 200], [60, 60, 120, 110]], [[60, 40, 90, 60]])];
    }""")
    assert [len(found) for found in placed] == [6, 5, 3]
    for found in placed:
        for k, a in enumerate(found):
            for b in found[:k]: assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1]), (a, b)
            assert a[0] >= 0 and a[1] >= 0 and a[2] <= 245 and a[3] <= 245


def test_many_labels_do_not_slow_an_explorer_down(visit):
    "A hundred boxes in each of six images, as at a threshold near 0: labels for which there is no room are neither placed nor drawn."
    took, drawn = visit("glossary/").evaluate("""async () => {
        const {labels} = await import(new URL("../assets/explorers/core.js", location.href)), context = document.createElement("canvas").getContext("2d");
        let drawn = 0, seed = 1;
        const random = () => (seed = seed * 16807 % 2147483647) / 2147483647, box = (x, y) => [x, y, x + 20 + 40 * random(), y + 20 + 40 * random()];
        const wanted = Array.from({length: 100}, (_, k) => ({text: "0.44", box: box(180 * random(), 180 * random()), fill: "#2678D1", faint: k > 0}));
        context.roundRect = () => { drawn++; };
        const start = performance.now();
        for (let image = 0; image < 6; image++) labels(context, wanted, 245, 245, 10.5);
        return [performance.now() - start, drawn / 6];
    }""")
    assert 5 < drawn < 100 and took < 300, (took, drawn)


def test_a_slider_over_many_classes_stops_only_where_objects_are(visit, site):
    "Of 40 classes, 13 have objects: each key press shows another. A box with a score of 0 has its hint."
    page, told = visit("glossary/"), data(site, "precision_recall")
    shown = [{**told["classes"][0], "label": label} for label in (3, 17, *range(20, 31))]
    shown[1]["scenes"] = [{**scene, "scores": [0.0] * len(scene["scores"])} for scene in shown[1]["scenes"]]
    told = {**told, "names": [f"class {k}" for k in range(40)], "classes": shown}
    page.evaluate("""async told => {
        const {mount} = await import(new URL("../assets/explorers/precision_recall.js", location.href)), place = document.createElement("div");
        document.querySelector("article").replaceChildren(place);
        await mount(place, told, {threshold: 0});
    }""", told)
    root = page.locator(".ndx-precision_recall")
    settle(page)
    slider, seen = root.locator("input[data-key=label]"), []
    slider.focus()
    for key in ("ArrowLeft", "ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
        settle(page)
        seen.append(state(root, "label"))
    assert seen == ["3", "17", "20", "17"] and slider.get_attribute("aria-valuetext") == "class 17"
    scene = root.locator("canvas[data-name=scene]")
    scene.scroll_into_view_if_needed()
    box, (x0, y0, x1, y1) = scene.bounding_box(), shown[1]["scenes"][0]["boxes"][0]
    page.mouse.move(box["x"] + (x0 + x1) / 2 * box["width"] / 3, box["y"] + (y0 + y1) / 2 * box["height"] / 2)
    settle(page)
    assert root.locator("[data-name=hint]").text_content().startswith("Score 0.00, ")


def test_replay_plays_and_follows_a_query(visit, site):
    page, told = visit("11_training/"), data(site, "replay")
    root = explorer(page, "replay")
    assert state(root, "moment", "query") == ["0", "all"]
    root.locator("button").click()
    page.wait_for_function("document.querySelector('.ndx-replay').dataset.moment >= 2")
    root.locator("button").click()
    settle(page)
    rest = int(state(root, "moment"))
    page.wait_for_timeout(1400)
    assert int(state(root, "moment")) == rest and state(root, "playing") == "false"
    assert float(state(root, "loss")) == told["moments"][rest]["loss"][0]
    keep(root, "replay")
    press(page, root.locator("canvas[data-name=curves]"), 0.97, 0.5)
    assert int(state(root, "moment")) == len(told["epochs"]) - 1
    root.locator("canvas[data-name=map]").focus()
    page.keyboard.press("ArrowRight")
    settle(page)
    has = np.mean([row[0] == "1" for row in told["moments"][-1]["busy"]])
    assert state(root, "query") == "0" and f"q0 has an object on {100 * has:.0f}\u00a0%" in root.locator("[data-name=sentence]").text_content()
    keep(root, "replay_query")


# --- the home page, and what a stranger needs

def test_home_is_light_until_the_playground_is_asked_for(visit, site):
    if not (site / "assets" / "playground").is_dir(): pytest.skip("this site was built without the playground")
    page = visit("#start")
    sizes = {}
    page.on("response", lambda r: sizes.__setitem__(r.url, len(r.body()) if r.ok else 0))
    page.reload(wait_until="load")
    page.wait_for_timeout(300)
    early = [url for url in sizes if "/assets/playground/" in url or "/assets/explorers/" in url]
    assert not early and page.locator(".playground-start img:visible").evaluate("image => image.complete && image.naturalWidth > 0")
    weight = sum(sizes.values())
    print(f"\nthe home page: {len(sizes)} requests, {weight / 1e6:.2f} MB")
    assert weight < 1.5e6
    page.locator(".playground-start").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#playground.ready .ndx-playground[data-answers][data-idle=true]")
    found = json.loads(page.get_attribute(".ndx-playground", "data-detections"))
    assert sorted(d["label"] for d in found) == ["cross", "ellipse", "rectangle", "triangle"]
    assert page.evaluate("document.activeElement.dataset.thing") == "0"  # the keyboard goes on from there
    page.keyboard.press("ArrowDown")
    page.wait_for_function("document.querySelector('.ndx-playground').dataset.scene.includes('20,20,13')")
    keep(page.locator("#playground"), "playground")


def test_sentences_about_parameters_become_a_table():
    pytest.importorskip("griffe", reason='griffe is missing: pip install -e ".[docs]"')
    sys.path.insert(0, str(ROOT / ".site"))
    try: import docments
    finally: sys.path.pop(0)
    said = "Draw.\n\nimage (3,H,W) in 0..1; size: pixels, or\nNone. Raises NanodetrError if size: is wrong.\nReturns a figure."
    rest, found = docments.told(said, ["image", "size"])
    assert found == {"image": "(3,H,W) in 0..1", "size": "pixels, or None"}
    assert rest.startswith("Draw.") and "Raises NanodetrError if size: is wrong." in rest and "Returns a figure." in rest and "pixels" not in rest
    assert docments.told("Add image (3,H,W) to size.", ["image", "size"]) == ("Add image (3,H,W) to size.", {})  # a summary stays whole


def test_what_lessons_build_has_an_example():
    pytest.importorskip("griffe", reason='griffe is missing: pip install -e ".[docs]"')
    sys.path.insert(0, str(ROOT / ".site"))
    try: import docments
    finally: sys.path.pop(0)
    found = docments.examples()
    for module, name in (("boxes", "pairwise_giou"), ("attention", "MultiHeadAttention"), ("position", "sinusoidal_pos_encode_2d"), ("backbone", "ResNetBackbone"), ("matching", "HungarianMatcher"),
                         ("loss", "SetCriterion"), ("evaluation", "evaluate"), ("evaluation", "predict")):
        example = found[f"nanodetr.{module}", name]
        assert re.search(rf"(?<![.\w]){name}\(", example) and f"def {name}" not in example and example.count("\n") < 24, example


def test_the_door_opens_the_playground(visit, site):
    if not (site / "assets" / "playground").is_dir(): pytest.skip("this site was built without the playground")
    page = visit("")
    page.locator('a[href$="#play"]').last.click()  # far below
    page.wait_for_selector("#playground.ready .ndx-playground[data-answers][data-idle=true]")
    assert 0 <= page.locator("#playground").bounding_box()["y"] < 200


def test_figures_say_what_they_show(site):
    "What a screen reader reads is words, and no line of code."
    for page in ("00_tour", "07_decoder", "09_matching"):
        said = re.findall(r'<img[^>]*alt="Figure: ([^"]*)"', (site / page / "index.html").read_text(encoding="utf-8"))
        assert said and all(len(text) > 12 and " " in text and not re.search(r"\w[(=]|\w\.\w+$", text) for text in said), said


def test_home_names_what_can_be_pressed(visit):
    page = visit("", width=390, scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    nameless = page.evaluate("""() => [...document.querySelectorAll('main :is(a, button, input, img)')].filter(e => e.offsetParent && !(e.getAttribute('aria-label') || e.title
        || e.textContent.trim() || e.alt || e.labels?.[0]?.textContent.trim() || (e.tagName === 'IMG' && e.closest('button')))).map(e => e.outerHTML.slice(0, 120))""")
    assert not nameless
    keep(page.locator("main"), "home_phone")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["", "07_decoder/", "api/boxes/"])
def test_every_text_can_be_read(visit, path, scheme):
    page = visit(path, scheme=scheme)
    if path == "07_decoder/": explorer(page, "decoder_attention")
    assert page.locator("body").evaluate(CONTRAST) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_index_of_the_search_comes_when_the_search_is_opened(visit, width):
    page = visit("", width=width)
    asked = []
    page.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[-1]))
    page.reload(wait_until="load")
    page.wait_for_timeout(300)
    assert not [name for name in asked if name.startswith("search_index")]
    if width > 1000: page.locator("body").press("s")  # the theme's key
    else: page.locator(".md-header__button[for=__search]").click()
    page.keyboard.type("hungarian")
    page.wait_for_selector(".md-search-result__item a[href*='09_matching']")
    assert asked.count("search_index.json") == 1


def test_search_finds_the_lesson_first(visit):
    page = visit("?q=hungarian")  # as a link to a search
    for query, lesson in (("hungarian", "09_matching"), ("GIoU gradient", "01_boxes"), ("positional encoding", "04_positional_encoding")):
        page.locator(".md-search__input").fill(query)
        page.locator(".md-search__input").press("End")  # it listens to keys
        page.wait_for_selector(f".md-search-result__item a[href$='h={query.lower().replace(' ', '+')}' i]")
        found = page.locator(".md-search-result__item > .md-search-result__link").evaluate_all("all => all.map(a => new URL(a.href).pathname)")
        assert lesson in found[0], (query, found[:4])


def test_a_lesson_leads_on(site):
    text = (site / "05_attention" / "index.html").read_text(encoding="utf-8")
    for words in ('href="../api/attention/#nanodetr.attention.attend"', "View on GitHub", "Download notebook", "/raw/main/nbs/05_attention.ipynb",
                  '<meta property="og:image" content="https://', "images/playground.png"): assert words in text, words
    figure = re.search(r'<a class="enlarge" href="(\.\./figures/[^"]+)"[^>]*><img[^>]*src="([^"]+)"', text)
    assert figure and figure[1] == figure[2]


def test_api_headings_are_qualified_and_parameters_are_tables(site):
    text = (site / "api" / "attention" / "index.html").read_text(encoding="utf-8")
    assert re.search(r'id="nanodetr.attention.attend" class="doc doc-heading">.*?nanodetr\.attention\.attend', text, re.S)
    assert re.search(r"<table>\s*<thead>\s*<tr>\s*<th>Name</th>\s*<th>Type</th>\s*<th>Description</th>", text)
