"""Explorers where readers use them: JupyterLab 4 in headless Chromium, moved by the keyboard and, those that the browser draws, by the mouse.

One server and one browser for all rows of ROWS; each opens its notebook, runs it and plays with one explorer. The copies that are
opened hold the text, and of the code what the explorer is made of (nbdev_test runs all of it); NANODETR_SLOW=1 runs whole notebooks.
A screenshot of each is kept in the folder $SCREENSHOTS (.screenshots/ unless it is set).
"""
import ast
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from nanodetr import follow

ROOT = Path(__file__).resolve().parent.parent
SCREENSHOTS = Path(os.environ.get("SCREENSHOTS") or ROOT / ".screenshots")
# (notebook, a variable: the explorer is shown by the first cell that has this word and shows a widget, the control's label, what the
# explorer says when the notebook has run)
ROWS = [
    ("00_tour.ipynb", "explorer", "threshold", "3 of 12 queries score 0.50 or more"),
    ("13_inside_detr.ipynb", "image_explorer", "threshold", "queries score"),
]
# the explorers that the browser draws, in the form without anywidget: (variable, label)
DRAWN = [("boxes", "predicted cx"), ("positions", "row"), ("precision", "class"), ("encoder", "row"), ("decoder", "layer"), ("matching", "class x"), ("replay", "training")]
DRAWN_BY_PYTHON = """
import torch
from nanodetr.data import ShapesDataset
from nanodetr.explorers import *
from nanodetr.model import DETR
model, val, snapshots = DETR.from_pretrained("nano-shapes"), ShapesDataset("val", n=4), load_snapshots()[:4]
images, targets = map(list, zip(*(val[i] for i in range(4))))
===
boxes = explore_boxes(live=False)
boxes
===
positions = explore_positions(live=False)
positions
===
found = [{"boxes": t["boxes"], "labels": t["labels"], "scores": torch.linspace(0.3, 0.9, len(t["labels"]))} for t in map(val.get_target, range(4))]
precision = explore_precision_recall(found, [val.get_target(i) for i in range(4)], images, val.classes, live=False)
precision
===
encoder = explore_encoder_attention(model, images, live=False)
encoder
===
decoder = explore_decoder_attention(model, images, live=False)
decoder
===
matching = explore_matching(snapshots, images, targets, live=False)
matching
===
replay = explore_replay(snapshots, images, targets, live=False)
replay
"""
# (notebook, variable, module, canvas, where it is pressed in 0..1, what that moves, {what the kernel moves: to}, what stands there after Run All)
LIVE = [
    ("01_boxes.ipynb", "explorer", "boxes", "slide", (0.6, 0.4), ("predicted_cx",), {"predicted_w": 0.5}, "IoU 0.00 has no slope at all"),
    ("04_positional_encoding.ipynb", "explorer", "positions", "scene", (0.2, 0.7), ("row", "column"), {"temperature": 10000}, "The next cell in the row is 0.970"),
    ("06_encoder.ipynb", "explorer", "encoder_attention", "scene", (0.2, 0.8), ("row", "column"), {"padding": "mask forgotten"}, "The cell lies on the"),
    ("07_decoder.ipynb", "explorer", "decoder_attention", "bars", (0.6, 0.5), ("query",), {"leave_out": 0}, "It leaves the object to q"),
    ("09_matching.ipynb", "explorer", "matching", "table", (0.3, 0.4), ("query", "object"), {"l1": 0.0}, "less in all"),
    ("11_training.ipynb", "explorer", "replay", "curves", (0.6, 0.4), ("moment",), {"query": 4}, "Before the training"),
    ("12_evaluation.ipynb", "explorer", "precision_recall", "curve", (0.4, 0.5), ("threshold",), {"iou": 0.8}, "precision 33/68"),
    ("13_inside_detr.ipynb", "encoder_explorer", "encoder_attention", "scene", (0.2, 0.8), ("row", "column"), {"padding": "mask forgotten"}, "The cell lies on"),
    ("13_inside_detr.ipynb", "decoder_explorer", "decoder_attention", "bars", (0.6, 0.5), ("query",), {"leave_out": 0}, "It leaves the object to q"),
    ("13_inside_detr.ipynb", "replay", "replay", "curves", (0.6, 0.4), ("moment",), {"query": 4}, "Before the training"),
]
# the training and the playground that one meddles with
BY_HAND = """
from nanodetr.data import ShapesDataset
from nanodetr.explorers.live_training import train_live
from nanodetr.explorers.playground import explore_live
val = ShapesDataset("val", n=4)
===
live = train_live(ShapesDataset("train", n=64), [val[i] for i in range(4)])
live
===
playground = explore_live()
playground
"""
# console errors that are nobody's fault (patterns, each with its reason): none so far
ALLOWED = []
BADGE = '<svg xmlns="http://www.w3.org/2000/svg" width="117" height="20"><rect width="117" height="20" fill="#777"/></svg>'
CHROMIUMS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome",
             "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/Applications/Chromium.app/Contents/MacOS/Chromium"]


def wait_until(happened, seconds, what):
    "The first true value of happened(); an error that says what did not happen."
    end = time.monotonic() + seconds
    while not (value := happened()):
        if time.monotonic() > end: pytest.fail(f"waited {seconds} s in vain for {what() if callable(what) else what}")
        time.sleep(0.1)
    return value


@pytest.fixture(scope="module")  # not the session: what comes later may want an event loop of its own
def chromium():
    "A headless browser."
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    pytest.importorskip("jupyterlab", reason="no JupyterLab: pip install jupyterlab")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium, or name a Chrome in the variable CHROMIUM")
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox", *quiet])
        try: yield browser
        finally: browser.close()


def names_of(source):
    "(names that a cell makes, names that it uses)."
    tree = ast.parse("".join(line for line in source.splitlines(True) if not line.lstrip().startswith(("%", "!"))))
    makes, inner = set(), (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

    def look(node):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store): makes.add(child.id)
            elif isinstance(child, (ast.FunctionDef, ast.ClassDef)): makes.add(child.name)
            elif isinstance(child, (ast.Import, ast.ImportFrom)): makes.update((alias.asname or alias.name).split(".")[0] for alias in child.names)
            if not isinstance(child, inner): look(child)
    look(tree)
    return makes, {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def keep_what_it_needs(path, variables):
    "Leave of a notebook's code the first cell that makes each of `variables`, and what those are made of."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    parsed = [names_of("".join(cell["source"])) if cell["cell_type"] == "code" else None for cell in notebook["cells"]]
    wanted = {next(i for i, names in enumerate(parsed) if names and variable in names[0]) for variable in variables}
    kept, needed = [], set()
    for i, (cell, names) in reversed(list(enumerate(zip(notebook["cells"], parsed)))):
        if names:
            if i not in wanted and not names[0] & needed: continue
            needed = needed - names[0] | names[1]
        kept.append(cell)
    path.write_text(json.dumps({**notebook, "cells": kept[::-1]}), encoding="utf-8")


@pytest.fixture(scope="module")  # not the session: what comes later may want an event loop of its own
def lab(chromium, tmp_path_factory):
    "(address, token) of a JupyterLab with settings of its own, that serves copies of the notebooks."
    home, token = tmp_path_factory.mktemp("lab"), secrets.token_hex(16)
    shutil.copytree(ROOT / "nbs", home / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    if "NANODETR_SLOW" not in os.environ:
        for notebook in {row[0] for row in ROWS + LIVE}: keep_what_it_needs(home / "nbs" / notebook, {row[1] for row in ROWS + LIVE if row[0] == notebook})
    cell = lambda source: {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source.strip()}
    (home / "nbs" / "drawn.ipynb").write_text(json.dumps({"cells": [cell(source) for source in DRAWN_BY_PYTHON.split("===")], "nbformat": 4, "nbformat_minor": 4,
                                                         "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}}))
    (home / "nbs" / "hand.ipynb").write_text(json.dumps({**json.loads((home / "nbs" / "drawn.ipynb").read_text()), "cells": [cell(source) for source in BY_HAND.split("===")]}))
    follow.begin(ROOT, "05_attention", folder=home / "nbs")
    folders = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    # what would pop up over the page, or fetch something
    settings = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}}
    (home / "config" / "labconfig").mkdir(parents=True)
    (home / "config" / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(settings))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **folders, "HOME": str(home), "PYTHONPATH": path, "IN_TEST": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={home / 'nbs'}",
               f"--IdentityProvider.token={token}", "--LabApp.extension_manager=readonly", "--LabApp.expose_app_in_browser=True",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    address, log = f"http://127.0.0.1:{port}", home / "server.log"
    with open(log, "w") as file:
        server = subprocess.Popen([sys.executable, "-m", "jupyter", "lab", *options], stdout=file, stderr=file, env=environment, cwd=home)

    def answers():
        if server.poll() is not None: pytest.fail(f"JupyterLab ended at once:\n{log.read_text()[-3000:]}")
        try: return urllib.request.urlopen(f"{address}/api/status?token={token}", timeout=2).status == 200
        except (urllib.error.URLError, OSError): return False
    try:
        wait_until(answers, 90, lambda: f"JupyterLab to answer:\n{log.read_text()[-3000:]}")
        yield address, token
    finally:
        server.terminate()  # which ends its kernels too
        try: server.wait(20)
        except subprocess.TimeoutExpired: server.kill()


class Page:
    "A notebook in JupyterLab: opened, run, and looked at."

    def __init__(self, browser, lab, notebook):
        self.address, self.notebook, self.complaints = lab[0], notebook, []
        self.context = browser.new_context(viewport={"width": 1280, "height": 1000}, reduced_motion="reduce")
        self.context.route(lambda url: not url.startswith((self.address, "blob:", "data:")), self.outside)
        self.page = self.context.new_page()
        self.page.on("console", lambda said: said.type == "error" and self.complain(f"{said.text} ({said.location.get('url', '')})"))
        self.page.on("pageerror", lambda error: self.complain(str(error)))
        self.page.goto(f"{self.address}/doc/tree/{notebook}?token={lab[1]}")

    def outside(self, route):
        "There is no network: one picture is known to come from it, and anything else is a fault."
        if route.request.url.endswith("/colab-badge.svg"): route.fulfill(body=BADGE, content_type="image/svg+xml")
        else:
            self.complain(f"asks for {route.request.url}")
            route.abort()

    def complain(self, text):
        if not any(re.search(pattern, text) for pattern in ALLOWED): self.complaints.append(text)

    def ask(self, script, argument=None):
        "The value of a JavaScript function of (the notebook's panel, argument)."
        return self.page.evaluate(f"argument => (async (panel, argument) => {{{script}}})(jupyterapp.shell.currentWidget, argument)", argument)

    def wakes(self):
        "Itself, once its kernel answers."
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
        self.ask("""window.ready = window.ran = null;
            (async () => { await panel.context.ready; await panel.sessionContext.ready; await panel.sessionContext.session.kernel.info;
                           window.ready = true })().catch(error => window.ready = String(error))""")
        assert wait_until(lambda: self.ask("return window.ready"), 90, f"the kernel of {self.notebook}") is True
        return self

    def run_all(self, seconds=240):
        self.wakes()
        self.ask("""jupyterapp.commands.execute('notebook:run-all-cells').then(() => window.ran = true, error => window.ran = String(error))""")
        ran = wait_until(lambda: self.ask("return window.ran"), seconds, lambda: f"{self.notebook} to run; now at\n{self.running()}")
        assert not (errors := self.errors()), f"{self.notebook}: {errors}"
        assert ran is True, ran
        assert not (left := self.running()), f"{self.notebook}: never ran\n{left}"

    def running(self):
        return self.ask("""for (const cell of panel.content.model.cells)
            if (cell.type == 'code' && cell.sharedModel.getSource().trim() && cell.executionCount == null) return cell.sharedModel.getSource().slice(0, 300)""")

    def errors(self):
        "The tracebacks that cells show."
        return self.ask("""const found = [];
            for (const cell of panel.content.model.cells) if (cell.type == 'code')
                for (let i = 0; i < cell.outputs.length; i++) {
                    const output = cell.outputs.get(i).toJSON();
                    if (output.output_type == 'error') found.push(output.ename + ': ' + output.evalue) }
            return found""")

    def kernel(self, expression):
        "The value of an expression in the kernel, by way of JSON."
        said = self.ask("""let said = '';
            const asked = panel.sessionContext.session.kernel.requestExecute({code: argument});
            asked.onIOPub = message => { if (message.header.msg_type == 'stream') said += message.content.text; if (message.header.msg_type == 'error') said += message.content.evalue };
            await asked.done;
            return said""", f"import json as _json; print(_json.dumps({expression}))")
        return json.loads(said)

    def live(self, variable, module):
        "The root of an explorer that the browser draws, once it has drawn."
        root = self.page.locator(f".jp-Notebook .ndx-{module}")
        self.go_to(variable)
        self.page.locator(f".jp-Notebook .ndx-{module}[data-ready]").first.wait_for(timeout=60_000)
        return root.first

    def explorer(self, variable):
        "The place on the page where the explorer stands."
        index = self.go_to(variable)
        return Shown(self, self.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{index}"] .jp-OutputArea-output').filter(
            has=self.page.locator("img")).first)

    def go_to(self, variable):
        "The number of the cell that shows the widget `variable`, which is scrolled to."
        index = self.ask("""const word = new RegExp('\\\\b' + argument + '\\\\b');
            return [...panel.content.model.cells].findIndex(cell => {
                if (cell.type != 'code' || !word.test(cell.sharedModel.getSource())) return false;
                for (let i = 0; i < cell.outputs.length; i++) if ('application/vnd.jupyter.widget-view+json' in cell.outputs.get(i).data) return true;
                return false })""", variable)
        assert index >= 0, f"{self.notebook}: no cell with {variable!r} shows a widget"
        self.ask("panel.content.activeCellIndex = argument; await panel.content.scrollToItem(argument, 'start')", index)
        return index

    def close(self):
        "Also ends the kernel, which holds a few hundred megabytes."
        try: self.ask("await panel.sessionContext.shutdown()")
        finally: self.context.close()


class Shown:
    "An explorer on a page."

    def __init__(self, page, place):
        self.page, self.place, self.picture, self.backwards = page, place, place.locator("img").first, False
        self.picture.wait_for(timeout=30_000)

    def digest(self):
        "The hash of the picture's bytes: an equal picture under a new address is no change."
        return self.picture.evaluate("""async image => {
            try { const bytes = await (await fetch(image.src)).arrayBuffer();
                  return [...new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))].join(' ') }
            catch { return null } }""")  # null: the address was replaced meanwhile

    def words(self):
        return self.place.inner_text()

    def control(self, label):
        "The part of the row with this label: a slider, buttons or a checkbox."
        found = self.place.locator(".widget-inline-hbox, .widget-toggle-buttons").filter(has=self.page.page.get_by_text(label, exact=True)).first
        wait_until(found.count, 10, lambda: f"a control with the label {label!r}; there are {self.place.locator('.widget-label, .widget-checkbox').all_inner_texts()}")
        return found

    def step(self, label):
        "One step of the control, up or, from its end on, down: by the keyboard."
        control, before = self.control(label), self.state(label)
        if (options := control.locator(".widget-toggle-button")).count():
            options.nth(0 if options.last.evaluate("button => button.classList.contains('mod-active')") else options.count() - 1).focus()
            self.page.page.keyboard.press("Enter")
            return wait_until(lambda: self.state(label) != before, 5, f"{label!r} to leave {before}")
        slides = control.locator(".noUi-handle").count()
        part = control.locator(".noUi-handle" if slides else "input[type=checkbox]").first
        for key in (["ArrowRight", "ArrowLeft"][self.backwards:] if slides else ["Space"]):
            part.focus()
            self.page.page.keyboard.press(key)
            end = time.monotonic() + 5
            while time.monotonic() < end:
                if self.state(label) != before: return
                time.sleep(0.05)
            self.backwards = True  # it stood at its end
        pytest.fail(f"{self.page.notebook}: the keys do not move {label!r}, which stays at {before}")

    def state(self, label):
        "Where a control stands, as the page shows it."
        return self.control(label).evaluate("""control => {
            const find = selector => control.querySelector(selector), pressed = find('.widget-toggle-button.mod-active'), box = find('input[type=checkbox]');
            return pressed ? pressed.textContent : box ? String(box.checked) : (find('.widget-readout') ?? find('.noUi-handle')).textContent }""")

    def changes(self, before, seconds=30):
        "Waits for another picture than `before`, and returns its hash; None if it does not come."
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if (digest := self.digest()) and digest != before: return digest
            time.sleep(0.1)

    def rests(self, seconds=1.5):
        "The hash of the picture, once it has been the same for a while."
        last, since = None, time.monotonic()

        def calm():
            nonlocal last, since
            if (digest := self.digest()) != last: last, since = digest, time.monotonic()
            return last and time.monotonic() - since >= seconds and last
        return wait_until(calm, 30, "the picture to come to rest")


@pytest.fixture
def opened(chromium, lab, request):
    "A function that opens and runs a notebook; afterwards what the console said is looked at, and a screenshot kept."
    pages = []

    def opened(notebook, variable):
        page = Page(chromium, lab, notebook)
        pages.append((page, f"{Path(notebook).stem}-{variable}"))
        if variable == "": return page.wakes()
        page.run_all()
        return page.explorer(variable) if variable else page
    yield opened
    for page, name in pages:
        try:
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            page.page.screenshot(path=SCREENSHOTS / f"{name}.png")
            assert not page.complaints, f"{page.notebook}: the console says\n" + "\n".join(page.complaints)
            assert not (errors := page.errors()), f"{page.notebook}: {errors}"
        finally: page.close()


@pytest.mark.parametrize("notebook, variable, label, says", [row for row in ROWS if row[0][:2] == "00" or "NANODETR_SLOW" in os.environ],
                         ids=lambda value: value.removesuffix(".ipynb"))
def test_a_control_changes_the_picture(opened, notebook, variable, label, says):
    explorer = opened(notebook, variable)
    before = explorer.rests()
    assert says in explorer.words() and "Error" not in explorer.words(), f"after Run All, below it stands {explorer.words()!r}"
    moved(explorer, label, before)


def moved(explorer, label, before):
    for _ in range(4):  # a single step need not change every picture
        explorer.step(label)
        if explorer.changes(before, seconds=8): break
    else: pytest.fail(f"{label!r} moved to {explorer.state(label)}, and the picture stayed the same; below it stands {explorer.words()!r}")
    assert "Error" not in explorer.words()


@pytest.mark.weekly
def test_without_anywidget_python_draws(opened):
    explorer = opened("drawn.ipynb", "boxes")
    for variable, label in DRAWN:
        explorer = explorer.page.explorer(variable)
        moved(explorer, label, explorer.rests(0.5))
    first, start = explorer.rests(), explorer.state("training")  # the replay: play, and pause
    button = explorer.place.locator(".widget-play button").first
    button.click()
    second = explorer.changes(first)
    assert second, "pressed Play, and the picture stays the same"
    assert explorer.changes(second), "it stops after one picture"
    assert explorer.state("training") != start
    button.click()
    rest = explorer.rests(seconds=4)
    assert explorer.digest() == rest and "Error" not in explorer.words()


@pytest.mark.parametrize("notebook, variable, module, canvas, place, moves, told, says",
                         [pytest.param(*row, marks=[] if row[0][:2] in ("06", "09") else pytest.mark.weekly) for row in LIVE], ids=[f"{row[0][:2]}-{row[2]}" for row in LIVE])
def test_a_live_explorer_follows_hand_and_kernel(opened, notebook, variable, module, canvas, place, moves, told, says):
    page = opened(notebook, None)
    root = page.live(variable, module)
    data = lambda name: root.get_attribute(f"data-{name.strip('_').replace('_', '-')}")
    sentence, hint = (lambda: root.locator("[data-name=sentence]").inner_text()), (lambda: root.locator("[data-name=hint]").inner_text())
    values = lambda: page.kernel(f"{variable}.values")
    text = lambda value: str(value).lower() if isinstance(value, bool) else value if isinstance(value, str) else f"{value:g}"  # as JavaScript writes it
    agree = lambda: all(data(name) == text(value) for name, value in values().items())
    state = lambda: [data(name) for name in moves]
    drawn = lambda: root.locator("canvas").evaluate_all("all => all.map(canvas => canvas.toDataURL()).join()")
    assert says in sentence() and agree(), f"after Run All there stands {sentence()!r}, at {values()}"

    surface = root.locator(f"canvas[data-name={canvas}]")
    surface.scroll_into_view_if_needed()
    box, before, picture, quiet = surface.bounding_box(), state(), drawn(), hint()
    x, y = box["x"] + place[0] * box["width"], box["y"] + place[1] * box["height"]
    page.page.mouse.move(x, y)
    wait_until(lambda: data("hover") and hint() != quiet, 5, "values under the pointer")
    page.page.mouse.click(x, y)
    wait_until(lambda: state() != before, 5, f"a press to move {moves}")
    wait_until(agree, 10, lambda: f"the kernel to hear of it: {values()}, {state()}")
    page.page.mouse.move(2, 2)
    wait_until(lambda: drawn() != picture, 5, "another picture")

    pressed, active = state(), page.ask("return panel.content.activeCellIndex")
    surface.focus()
    for key in ("ArrowRight", "ArrowLeft", "ArrowLeft"): page.page.keyboard.press(key)
    wait_until(lambda: state() != pressed, 5, "the arrow keys to move it")
    wait_until(agree, 10, "the kernel to hear of it")
    assert surface.evaluate("canvas => getComputedStyle(canvas).outlineStyle") != "none", "no ring shows the focus"
    count = page.ask("return panel.content.model.cells.length")
    slider = root.locator("input").last
    slider.focus()
    page.page.keyboard.press("x")  # which cuts a cell elsewhere
    page.page.keyboard.press("ArrowDown")
    assert (page.ask("return panel.content.activeCellIndex"), page.ask("return panel.content.model.cells.length")) == (active, count)
    wait_until(agree, 10, "the kernel to hear of it")

    (name, value), picture = next(iter(told.items())), drawn()
    page.kernel(f"[setattr({variable}, {name!r}, {value!r}), 0][1]")
    wait_until(lambda: data(name) == text(value) and drawn() != picture, 10, f"{name} = {value!r} in the kernel to be drawn")
    spent = root.evaluate("root => { const start = performance.now(); for (let i = 0; i < 50; i++) root.explorer.redraw(); return (performance.now() - start) / 50 }")
    print(f"{module}: a redraw takes {spent:.1f} ms (mean of 50, software rendering)")
    assert spent < 200  # 16 ms are meant, on a quiet machine
    nothing = root.locator("canvas").evaluate_all("all => all.filter(canvas => canvas.clientWidth && !canvas.getAttribute('aria-label')).map(canvas => canvas.dataset.name)")
    assert not nothing, f"canvases that say nothing to who cannot see them: {nothing}"


@pytest.mark.weekly
def test_a_training_is_run_paused_and_changed_by_hand(opened):
    explorer = opened("hand.ipynb", "live")
    page, words = explorer.page, explorer.words
    press = lambda word: explorer.place.locator("button").filter(has_text=word).first.click()
    steps = lambda: page.kernel("len(live.pupils['nano'].losses)")
    before = explorer.rests()
    assert "Before the training" in words() and steps() == 0
    press("one step")
    assert explorer.changes(before) and steps() == 1 and "After 1 step " in words()
    press("run")
    wait_until(lambda: steps() >= 5, 60, "five steps")
    assert explorer.changes(explorer.digest()), "it trains, and the picture stands still"
    press("run")  # once more: it rests
    rest = explorer.rests(2)
    count = steps()
    assert explorer.digest() == rest and steps() == count and f"After {count} steps" in words()
    rate = "live.pupils['nano'].trainer.optimizer.param_groups[0]['base_lr']"
    before = page.kernel(rate)
    explorer.step("rate x")
    wait_until(lambda: page.kernel(rate) != before, 10, "another rate")
    press("from the start")
    assert explorer.changes(rest) and "Before the training" in words() and steps() == 0
    assert page.kernel("[live.stop(), live.thread is None][1]")


@pytest.mark.weekly
def test_the_playground_plays_in_a_notebook(opened):
    page = opened("hand.ipynb", None)
    page.go_to("playground")
    root = page.page.locator(".jp-Notebook .ndx-playground[data-answers]").first
    root.wait_for(timeout=60_000)

    def found():
        wait_until(lambda: root.get_attribute("data-idle") == "true", 30, "the kernel's answer")
        return {d["label"]: d for d in json.loads(root.get_attribute("data-detections"))}
    first = found()
    assert sorted(first) == ["cross", "ellipse", "rectangle", "triangle"]
    cells = page.ask("return panel.content.model.cells.length")
    root.locator("[data-thing='0']").focus()  # the ellipse
    for _ in range(6): page.page.keyboard.press("ArrowRight")
    wait_until(lambda: "ellipse" in found() and found()["ellipse"]["box"][0] > first["ellipse"]["box"][0] + 3, 30, lambda: f"its box to follow: {found()}")
    page.page.keyboard.press("Delete")
    wait_until(lambda: "ellipse" not in found(), 30, "it to be gone")
    assert page.ask("return panel.content.model.cells.length") == cells, "the keys were the notebook's"


@pytest.mark.weekly
def test_the_coach_answers_below_what_was_typed(opened):
    page = opened("work/05_attention.ipynb", "")  # nothing is run yet
    first = "plain_attention"
    index = page.ask("""return [...panel.content.model.cells].findIndex(cell => cell.sharedModel.getSource().startsWith('def ' + argument))""", first)
    page.ask("""panel.content.activeCellIndex = argument; await panel.content.scrollToItem(argument, 'start');
        await jupyterapp.commands.execute('notebook:run-all-above')""", index)

    def written(answer):
        "What the coach says below, when the body is `answer`."
        page.ask("panel.content.activeCellIndex = argument; await panel.content.scrollToItem(argument, 'start')", index)
        page.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{index}"] .cm-content').click()
        page.page.keyboard.press("Control+A")
        page.page.keyboard.insert_text(f"def {first}(query, key, value):\n{answer}")
        page.page.keyboard.press("Shift+Enter")
        page.page.keyboard.press("Shift+Enter")
        text = """const outputs = panel.content.model.cells.get(argument).outputs, found = [];
            for (let i = 0; i < outputs.length; i++) { const output = outputs.get(i).toJSON(); found.push([].concat(output.text ?? output.evalue ?? '').join('')) }
            return panel.content.model.cells.get(argument).executionCount && found.join('')"""
        said = wait_until(lambda: page.ask(text, index + 1), 60, "the coach to say something")
        page.ask("await jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
        return said
    wrong = written("    weights = (query @ key.T).softmax(0)\n    return weights @ value, weights")
    assert "not yet right" in wrong and "hint=1" in wrong
    right = written("    scores = query @ key.transpose(-2, -1)\n    weights = scores.softmax(dim=-1)\n    return weights @ value, weights")
    assert f"{first}" in right and "right" in right and "not yet" not in right
