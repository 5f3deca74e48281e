"""The playground in a browser: what it draws, what its model answers beside PyTorch, and whether a hand, a finger and a keyboard reach everything.

Needs onnx, onnxscript, playwright and Chromium, and for its first run a network; without them the tests are skipped.
PLAYGROUND_SHOTS=folder keeps screenshots.
"""
import base64
import importlib.util
import io
import json
import os
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from nanodetr.datasets.shapes import shape_coverage
from nanodetr.explorers.core import live_module
from nanodetr.explorers.playground import LiveModel, SwitchedDETR, playground_facts, switch_positions, training_stages
from nanodetr.loss import SetCriterion
from nanodetr.matching import HungarianMatcher
from nanodetr.model import DETR, DETROutput, postprocess
from served import CONTRAST, browser, served  # noqa: F401, a fixture

ROOT = Path(__file__).resolve().parent.parent
ROOT_OF = ".ndx-playground"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    "Where the playground is served, alone."
    if not all(map(importlib.util.find_spec, ("onnx", "onnxscript"))): pytest.skip('onnx is missing: pip install "nanodetr[onnx]"')
    sys.path.insert(0, str(ROOT / ".site"))
    try: import playground
    finally: sys.path.pop(0)
    try: folder = playground.write_alone(tmp_path_factory.mktemp("playground") / "page")
    except playground.Missing as why: pytest.skip(str(why))

    (folder / "one.js").write_text(live_module("playground"), encoding="utf-8")  # as a notebook gets it
    (folder / "blank.html").write_text('<!doctype html><title>blank</title><link rel="icon" href="data:,"><body>')

    with served(folder) as where: yield where


@pytest.fixture(scope="module")
def visit(browser, address):
    "visit(width, scheme) -> a page with the playground, ready. What is logged as an error, or leaves the site, fails at the end of the module."
    faults, contexts = [], []

    def visit(width=1280, scheme="light", touch=False, path="index.html"):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=touch))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: faults.append(str(e)))
        page.on("request", lambda r: None if r.url.startswith((address, "data:", "blob:")) else faults.append(f"asks for {r.url}"))
        page.on("response", lambda r: faults.append(f"{r.status} for {r.url}") if r.status >= 400 else None)
        page.goto(f"{address}/{path}")
        if path == "index.html": settle(page)
        return page

    yield visit
    for context in contexts: context.close()
    assert not faults, faults


@pytest.fixture(scope="module")
def desk(visit):
    "One page for the tests that leave it as they found it."
    return visit()


@pytest.fixture(scope="module")
def model():
    return DETR.from_pretrained("nano-shapes")


def settle(page):
    "Wait until the answer on the page is that for the scene on the page."
    page.wait_for_function(f"(e => e && e.dataset.answers && e.dataset.idle === 'true')(document.querySelector('{ROOT_OF}'))")


def told(page, name):
    settle(page)
    return page.locator(ROOT_OF).get_attribute(f"data-{name}")


def detections(page) -> dict:
    return {d["query"]: d for d in json.loads(told(page, "detections"))}


def scene(page) -> list:
    return json.loads(told(page, "scene"))


def called(page, selector) -> str:
    "What a screen reader says of a thing on the page, once the page shows its last state."
    settle(page)
    return page.locator(selector).get_attribute("aria-label")


def keep(page, name):
    if folder := os.environ.get("PLAYGROUND_SHOTS"): page.locator(ROOT_OF).screenshot(path=f"{folder}/playground_{name}.png")


def begin(page):
    "The first scene, nothing broken."
    page.get_by_role("button", name="First scene").click()
    page.locator("[data-name=mend]").click()
    settle(page)


# --- what it is made of

def test_a_build_without_network_or_with_another_package_says_so(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / ".site"))
    import playground
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def unreachable(*args, **kwargs): raise OSError("no route to host")

    monkeypatch.setattr(playground.urllib.request, "urlopen", unreachable)
    with pytest.raises(playground.Missing, match="could not be fetched .*no route to host.*build again with a network"): playground.write_files(tmp_path / "out")
    monkeypatch.setattr(playground.urllib.request, "urlopen", lambda *args, **kwargs: io.BytesIO(b"another package"))
    with pytest.raises(playground.Missing, match="has the hash sha512-.*do not use it"): playground.write_files(tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list((tmp_path / "nanodetr").iterdir())


# --- what it draws

def test_the_pixels_are_those_that_the_dataset_would_draw(desk):
    drawn = desk.evaluate("""() => [1, 2, 3].map(seed => {
        const scene = {...module.randomScene(seed), noise: 0}, {pixels, boxes} = module.paint(scene);
        return {scene, boxes, pixels: Array.from(pixels)};
    })""")
    for case in drawn:
        size, t = 64, (np.arange(64) + 0.5) / 64
        a, b, c, d = np.array(case["scene"]["corners"])[:, :, None, None]
        top, bottom = a + (b - a) * t, c + (d - c) * t
        image = top + (bottom - top) * t[:, None]
        for thing, box in zip(case["scene"]["things"], case["boxes"]):
            turn = ((1, 0), (0, 1), (-1, 0), (0, -1))[thing["turn"]]
            count, x0, y0, tight = shape_coverage(thing["kind"], thing["cx"], thing["cy"], thing["a"], thing["b"], turn, size, 4)
            h, w = count.shape
            shade = 1 + thing["shade"][0] * (np.arange(w) / w - 0.5) + thing["shade"][1] * (np.arange(h)[:, None] / h - 0.5)
            region = image[:, y0:y0 + h, x0:x0 + w]
            region += count / 16 * (np.array(thing["colour"])[:, None, None] * shade - region)
            assert np.abs(np.array(box) - tight).max() <= 0.25, thing  # one of the four points per pixel
        gap = np.abs(np.array(case["pixels"]).reshape(3, 64, 64) * 255 - np.floor(image.clip(0, 1) * 255 + 0.5))
        assert (gap > 1).mean() < 0.002, f"{(gap > 1).sum()} numbers of {gap.size} are others"


# --- what its model answers

SWITCHES = [{}, {"mirrored": 1}, {"cut": 1}, {"bare": 1}, {"silent": 4}, {"stage": 3}]

@pytest.mark.parametrize("broken", SWITCHES, ids=lambda b: "".join(b) or "whole")
def test_the_browser_answers_as_pytorch_does(desk, model, broken):
    begin(desk)
    stages = training_stages()
    for name in ("mirrored", "cut"):
        if name in broken: desk.locator(f"[data-key={name}]").check()
    if "bare" in broken: desk.locator("[data-key=padding][value=bare]").check(force=True)
    if "silent" in broken:
        desk.locator(f"button[data-query='{broken['silent']}']").click()
        desk.locator("[data-name=mute]").click()
    if "stage" in broken: desk.locator("[data-key=stage]").evaluate("(input, k) => { input.value = k; input.dispatchEvent(new Event('input')); }", broken["stage"])
    settle(desk)
    keep(desk, "".join(broken) or "whole")
    found = desk.evaluate("""() => { const {answer} = document.querySelector('.ndx-playground').playground;
        return {width: answer.width, image: Array.from(answer.image), boxes: answer.boxes, labels: answer.labels,
                outputs: Object.fromEntries(Object.entries(answer.outputs).map(([name, x]) => [name, Array.from(x)]))}; }""")
    used = model
    if "stage" in broken:
        from nanodetr.checkpoints.files import load_model_weights
        used = load_model_weights(DETR(model.config), stages[broken["stage"]][2]).eval()
    image = torch.tensor(found["image"]).view(1, 3, 64, found["width"])
    switches = switch_positions(12, broken.get("mirrored", 0), 1 - broken.get("cut", 0), [broken["silent"]] if "silent" in broken else [])
    with torch.no_grad(): wanted = SwitchedDETR(used)(image, *switches)
    for name, numbers in found["outputs"].items():
        gap = (torch.tensor(numbers) - wanted[name].flatten()).abs().max().item()
        assert gap < 1e-3, f"{name}: {gap}"
    if broken: return
    out = used(image)
    assert (out.logits - wanted["logits"]).abs().max() < 1e-4
    # boxes with scores on the page, the matching and the loss
    truth = torch.tensor(found["boxes"])
    target = {"labels": torch.tensor(found["labels"]), "boxes": torch.cat([(truth[:, :2] + truth[:, 2:]) / 2, truth[:, 2:] - truth[:, :2]], 1) / 64}
    (said,) = postprocess(out, torch.tensor([[64, 64]]))
    shown = detections(desk)
    assert set(shown) == set((said["scores"] > 0.5).nonzero().flatten().tolist()) and len(shown) == 4
    for q, d in shown.items():
        assert d["label"] == used.config.classes[said["labels"][q]] and d["score"] == pytest.approx(said["scores"][q].item(), abs=1e-3)
        assert d["box"] == pytest.approx(said["boxes"][q].tolist(), abs=0.02)
    queries, objects = HungarianMatcher()(out.logits, out.boxes, [target])[0]
    assert [int(q) for q in told(desk, "owner").split(",")] == queries[objects.argsort()].tolist()
    criterion = SetCriterion(len(used.config.classes))
    assert float(told(desk, "loss")) == pytest.approx(criterion.total(criterion(out, [target])).item(), abs=2e-3)
    begin(desk)


def test_a_silenced_query_answers_for_nothing(desk):
    begin(desk)
    before = detections(desk)
    query = next(iter(before))
    desk.locator(f"button[data-query='{query}']").click()
    desk.locator("[data-name=mute]").click()
    assert query not in detections(desk) and str(query) not in told(desk, "owner").split(",")
    assert called(desk, f"button[data-query='{query}']") == f"Query {query}: silenced"
    begin(desk)
    assert set(detections(desk)) == set(before)


# --- hands

def middle(page, k):
    box = page.locator(f"[data-thing='{k}']").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_boxes_follow_a_dragged_shape(desk):
    begin(desk)
    before, (kind, cx, cy, *_) = detections(desk), scene(desk)[0]
    inside = lambda found: next(d for d in found.values() if d["label"] == kind)
    side = desk.locator("[data-name=scene]").bounding_box()["width"] / 64
    x, y = middle(desk, 0)
    answers = int(told(desk, "answers"))
    desk.mouse.move(x, y)
    desk.mouse.down()
    desk.mouse.move(x + 5 * side, y + 6 * side, steps=15)
    desk.mouse.up()
    after = detections(desk)
    _, nx, ny, *_ = scene(desk)[0]
    assert (nx, ny) == pytest.approx((cx + 5, cy + 6), abs=0.1)
    moved = np.array(inside(after)["box"]) - inside(before)["box"]
    assert moved == pytest.approx([5, 6, 5, 6], abs=1.6)
    times = desk.evaluate("document.querySelector('.ndx-playground').playground.times")
    print(f"\n{int(told(desk, 'answers')) - answers} answers while the pointer moved 15 times; a frame, from asking to boxes: median {statistics.median(times):.0f} ms of {len(times)}, "
          f"the model alone {told(desk, 'ms')} ms")
    assert statistics.median(times) < 2000  # on two busy cores; on quiet ones about 20
    begin(desk)


def test_shapes_are_resized_recoloured_added_and_removed(desk):
    begin(desk)
    side = desk.locator("[data-name=scene]").bounding_box()["width"] / 64
    desk.locator("[data-thing='3']").click()
    *_, a, b = scene(desk)[3]
    grip = desk.locator("[data-name=grip]").bounding_box()
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    desk.mouse.move(x, y)
    desk.mouse.down()
    desk.mouse.move(x + 6 * side, y + 2 * side, steps=4)
    desk.mouse.up()
    *_, wide, high = scene(desk)[3]
    assert wide > a + 2 and high > b
    desk.get_by_role("button", name="Colour: red").click()
    assert "red rectangle" in called(desk, "[data-thing='3']")
    count = len(scene(desk))
    desk.get_by_role("button", name="Add: ellipse").click()
    assert [kind for kind, *_ in scene(desk)][count:] == ["ellipse"]
    desk.get_by_role("button", name="Remove").click()
    assert len(scene(desk)) == count
    begin(desk)


def test_a_pointed_query_shows_where_it_looks(desk):
    begin(desk)
    shots = lambda: desk.locator(".ndp-maps canvas").evaluate_all("all => all.map(canvas => canvas.toDataURL())")
    found = sorted(detections(desk))
    desk.locator(f"button[data-query='{found[0]}']").hover()
    desk.wait_for_function(f"document.querySelector('[data-name=layer3]').getAttribute('aria-label').includes('query {found[0]} looks in layer 3')")
    first = shots()
    desk.locator(f"button[data-query='{found[1]}']").hover()
    desk.wait_for_function(f"document.querySelector('[data-name=layer3]').getAttribute('aria-label').includes('query {found[1]} looks in layer 3')")
    assert all(a != b for a, b in zip(first, shots())) and len(first) == 3
    owner = told(desk, "owner").split(",")[0]
    x, y = middle(desk, 0)
    desk.mouse.move(x, y)  # a box on the scene does the same
    desk.wait_for_function(f"document.querySelector('[data-name=layer1]').getAttribute('aria-label').includes('query {owner} looks')")
    desk.mouse.move(2, 2)


def test_the_keyboard_reaches_everything(desk):
    begin(desk)
    desk.locator("[data-thing='2']").focus()
    desk.keyboard.press("Shift+Tab")
    desk.keyboard.press("Shift+Tab")
    desk.keyboard.press("Tab")
    assert desk.evaluate("document.activeElement.dataset.thing") == "1"
    assert desk.evaluate("(s => s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2)(getComputedStyle(document.activeElement))")
    kind, x, y, a, b = scene(desk)[1]
    for key in ("ArrowLeft", "ArrowLeft", "Shift+ArrowDown", "+"): desk.keyboard.press(key)
    _, nx, ny, na, nb = scene(desk)[1]
    assert (nx, ny) == pytest.approx((x - 2, y + 4), abs=0.02) and na == pytest.approx(a * 1.08, abs=0.02)
    desk.keyboard.press("-")
    desk.keyboard.press("c")
    assert "orange triangle" in called(desk, "[data-thing='1']")
    assert any(d["label"] == kind for d in detections(desk).values())
    desk.keyboard.press("Delete")
    assert len(scene(desk)) == 3 and desk.evaluate("document.activeElement.dataset.thing") is not None
    seen, names = set(), set()
    for _ in range(70):  # Tab goes once around
        desk.keyboard.press("Tab")
        here = desk.evaluate("(e => [e.tagName, e.getAttribute('aria-label') || e.textContent || e.type, e.dataset.key || ''])(document.activeElement)")
        seen.add(here[2]), names.add(here[1])
    assert {"stage", "mirrored", "cut", "padding", "class", "l1", "giou", "pixels"} <= seen
    assert "New scene" in names and any(name.startswith("Query 11") for name in names)
    begin(desk)


def test_every_control_has_a_name(desk):
    nameless = desk.evaluate("""() => [...document.querySelectorAll('.ndx-playground :is(button, input, select, [tabindex], [role=group], [role=toolbar])')]
        .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.[0]?.textContent.trim() || e.getAttribute('aria-labelledby'))).map(e => e.outerHTML.slice(0, 120))""")
    assert not nameless


def test_a_finger_moves_a_shape_on_a_phone(visit):
    page = visit(390, "dark", touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    _, cx, cy, *_ = scene(page)[1]
    side = page.locator("[data-name=scene]").bounding_box()["width"] / 64
    x, y = middle(page, 1)
    finger = page.context.new_cdp_session(page)
    touch = lambda kind, *at: finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [dict(x=a, y=b) for a, b in at]})
    touch("touchStart", (x, y))
    for k in range(1, 6): touch("touchMove", (x - k * side, y + k * side))
    touch("touchEnd")
    _, nx, ny, *_ = scene(page)[1]
    assert (nx, ny) == pytest.approx((cx - 5, cy + 5), abs=0.3)
    for button in page.locator(f"{ROOT_OF} .ndp-tools button").all():
        box = button.bounding_box()
        assert min(box["width"], box["height"]) >= 32, button
    keep(page, "phone")


def test_on_a_phone_the_scene_and_its_switches_are_in_view_together(visit):
    page = visit(390, "light", touch=True)
    page.set_viewport_size({"width": 390, "height": 760})
    inside = lambda selector: (lambda box: box["y"] >= 0 and box["y"] + box["height"] <= 760)(page.locator(selector).first.bounding_box())
    for selector in ("[data-name=scene]", "[data-key=stage]", "[data-key=mirrored]", "[data-key=cut]", "[data-key=padding][value=bare]"): assert inside(selector), selector
    for lower in (".ndp-maps", "[data-name=costs]", "[data-name=loss]"):  # what is further down is seen below the scene
        page.locator(lower).evaluate("e => e.scrollIntoView({block: 'end'})")
        scene, there = page.locator("[data-name=scene]").bounding_box(), page.locator(lower).bounding_box()
        assert inside("[data-name=scene]") and scene["y"] + scene["height"] < there["y"] + there["height"] <= 761, lower


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_on_the_page_moves_while_a_hand_plays(visit, width):
    page, seen = visit(width), {}

    def look(why):
        settle(page)
        page.wait_for_timeout(400)  # the sentence waits for a rest
        seen.setdefault(page.locator(ROOT_OF).bounding_box()["height"], why)

    look("as it opens")
    page.locator("[data-thing='0']").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowRight"):
        page.keyboard.press(f"Shift+{key}")
        look(key)
    page.keyboard.press("Escape")
    for name in ("bare", "masked"):
        page.locator(f"[data-key=padding][value={name}]").check(force=True)
        look(name)
    page.locator("[data-key=cut]").check()
    look("cut")
    page.locator("[data-name=mend]").click()
    for _ in range(4): page.get_by_role("button", name="Add: ellipse").click()
    look("eight shapes")
    for _ in range(8): page.keyboard.press("Delete")
    look("no shape")
    assert max(seen) - min(seen) <= 4, seen


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(desk, visit, scheme):
    page = desk if scheme == "light" else visit(1280, "dark")
    assert page.locator(ROOT_OF).evaluate(CONTRAST) == []
    keep(page, scheme)


# --- challenges

def dare(page, name) -> str:
    settle(page)
    return page.locator(f"[data-dare={name}].ndp-won").text_content() if page.locator(f"[data-dare={name}].ndp-won").count() else ""


def test_challenges_notice_when_they_are_met(visit):
    page = visit()
    assert not any(dare(page, name) for name in ("twice", "greedy", "wrong"))
    show = lambda things: page.evaluate("""things => { const p = document.querySelector('.ndx-playground').playground, scene = module.firstScene();
        scene.things = things.map(([kind, cx, cy, a, b, paint]) => ({kind, cx, cy, a, b, turn: 0, colour: module.PAINTS[paint], shade: [0, 0]})), p.show(scene); }""", things)
    page.locator("[data-key=cut]").check()
    show([["ellipse", 20, 32, 14, 9, "yellow"], ["rectangle", 14, 52, 8, 8, "blue"]])
    assert "both answer for" in dare(page, "twice")
    page.locator("[data-name=mend]").click()
    show([["rectangle", 32, 32, 5, 3, "yellow"]])
    assert "says ellipse" in dare(page, "wrong") and "You drew: rectangle" in dare(page, "wrong")
    for name, value in {"stage": 2, "class": 5, "l1": 0.5, "giou": 0}.items():
        page.locator(f"[data-key={name}]").evaluate("(input, k) => { input.value = k; input.dispatchEvent(new Event('input')); }", value)
    page.evaluate("document.querySelector('.ndx-playground').playground.show(module.randomScene(7))")
    assert "Greedy paid" in dare(page, "greedy") and float(told(page, "greedy")) > float(told(page, "total"))


# --- in a notebook

def test_the_kernel_answers_in_place_of_the_browser(visit, address, model):
    live, stages = LiveModel(model, training_stages()), training_stages()

    def send(content, buffer):
        told, buffers = live.answer(content, [base64.b64decode(buffer)])
        return told, [base64.b64encode(b).decode() for b in buffers]

    page = visit(path="blank.html")
    page.expose_function("kernel", send)
    page.evaluate("""async ([address, facts]) => {
        const text = bytes => btoa(Array.from(new Uint8Array(bytes), c => String.fromCharCode(c)).join('')), heard = [];
        const model = {get: name => ({facts})[name], on: (name, f) => heard.push(f), off: () => {},
          send: async (content, _, buffers) => { const [told, back] = await kernel(content, text(buffers[0]));
            for (const f of heard) f(told, back.map(b => new DataView(Uint8Array.from(atob(b), c => c.charCodeAt(0)).buffer))); }};
        document.body.replaceChildren();
        const {default: module} = await import(`${address}/one.js`);
        window.close_ = await module.render({model, el: document.body});
    }""", [address, playground_facts(model, stages)])
    found = detections(page)
    assert sorted(d["label"] for d in found.values()) == ["cross", "ellipse", "rectangle", "triangle"]
    page.locator("[data-thing='0']").focus()
    for _ in range(6): page.keyboard.press("ArrowRight")
    moved = next(d for d in detections(page).values() if d["label"] == "ellipse")["box"]
    assert moved[0] > next(d for d in found.values() if d["label"] == "ellipse")["box"][0] + 3
    page.evaluate("close_()")
    assert page.locator(ROOT_OF).count() == 0
