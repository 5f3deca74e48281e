"""Explorers where readers use them: JupyterLab 4 in headless Chromium, moved by the keyboard.

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

ROOT = Path(__file__).resolve().parent.parent
SCREENSHOTS = Path(os.environ.get("SCREENSHOTS") or ROOT / ".screenshots")
# (notebook, a variable: the explorer is shown by the first cell that has this word and shows a widget, the control's label)
ROWS = [
    ("00_tour.ipynb", "explorer", "threshold"),
    ("01_boxes.ipynb", "explorer", "predicted cx"),
    ("04_positional_encoding.ipynb", "explorer", "row"),
    ("06_encoder.ipynb", "explorer", "row"),
    ("07_decoder.ipynb", "explorer", "query"),
    ("09_matching.ipynb", "explorer", "class x"),
]
# notebooks whose explorer has a Play button: (notebook, variable, the label of the control that it drives)
PLAYED = [
    ("11_training.ipynb", "explorer", "training"),
]
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


def keep_what_it_needs(path, variable):
    "Leave of a notebook's code the first cell that makes `variable`, and what that is made of."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    parsed = [names_of("".join(cell["source"])) if cell["cell_type"] == "code" else None for cell in notebook["cells"]]
    first = next(i for i, names in enumerate(parsed) if names and variable in names[0])
    kept, needed = notebook["cells"][first + 1:], {variable}
    kept = [cell for cell in kept if cell["cell_type"] != "code"][::-1]
    for cell, names in reversed(list(zip(notebook["cells"], parsed))[:first + 1]):
        if names:
            if not names[0] & needed: continue
            needed = needed - names[0] | names[1]
        kept.append(cell)
    path.write_text(json.dumps({**notebook, "cells": kept[::-1]}), encoding="utf-8")


@pytest.fixture(scope="module")  # not the session: what comes later may want an event loop of its own
def lab(chromium, tmp_path_factory):
    "(address, token) of a JupyterLab with settings of its own, that serves copies of the notebooks."
    home, token = tmp_path_factory.mktemp("lab"), secrets.token_hex(16)
    shutil.copytree(ROOT / "nbs", home / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    if "NANODETR_SLOW" not in os.environ:
        for notebook, variable, _ in ROWS + PLAYED: keep_what_it_needs(home / "nbs" / notebook, variable)
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

    def run_all(self, seconds=240):
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
        self.ask("""window.ready = window.ran = null;
            (async () => { await panel.context.ready; await panel.sessionContext.ready; await panel.sessionContext.session.kernel.info;
                           window.ready = true })().catch(error => window.ready = String(error))""")
        assert wait_until(lambda: self.ask("return window.ready"), 90, f"the kernel of {self.notebook}") is True
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

    def explorer(self, variable):
        "The place on the page where the explorer stands."
        index = self.ask("""const word = new RegExp('\\\\b' + argument + '\\\\b');
            return [...panel.content.model.cells].findIndex(cell => {
                if (cell.type != 'code' || !word.test(cell.sharedModel.getSource())) return false;
                for (let i = 0; i < cell.outputs.length; i++) if ('application/vnd.jupyter.widget-view+json' in cell.outputs.get(i).data) return true;
                return false })""", variable)
        assert index >= 0, f"{self.notebook}: no cell with {variable!r} shows a widget"
        self.ask("panel.content.activeCellIndex = argument; await panel.content.scrollToItem(argument, 'start')", index)
        return Shown(self, self.page.locator(f'.jp-Notebook .jp-Cell[data-windowed-list-index="{index}"] .jp-OutputArea-output').filter(
            has=self.page.locator("img")).first)

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
        "The part of the row with this label: a slider, a drop-down list or a checkbox."
        found = self.place.locator(".widget-inline-hbox").filter(has=self.page.page.get_by_text(label, exact=True)).first
        wait_until(found.count, 10, lambda: f"a control with the label {label!r}; there are {self.place.locator('.widget-label, .widget-checkbox').all_inner_texts()}")
        return found

    def step(self, label):
        "One step of the control, up or, from its end on, down: by the keyboard, but for lists, whose arrows JupyterLab takes to itself."
        control, before = self.control(label), self.state(label)
        if (options := control.locator("select")).count():
            index, count = options.evaluate("list => [list.selectedIndex, list.length]")
            options.select_option(index=(index + 1) % count)
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
            const find = selector => control.querySelector(selector), list = find('select'), box = find('input[type=checkbox]');
            return list ? list.value : box ? String(box.checked) : (find('.widget-readout') ?? find('.noUi-handle')).textContent }""")

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
        page.run_all()
        return page.explorer(variable)
    yield opened
    for page, name in pages:
        try:
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            page.page.screenshot(path=SCREENSHOTS / f"{name}.png")
            assert not page.complaints, f"{page.notebook}: the console says\n" + "\n".join(page.complaints)
            assert not (errors := page.errors()), f"{page.notebook}: {errors}"
        finally: page.close()


@pytest.mark.parametrize("notebook, variable, label", ROWS, ids=lambda value: value.removesuffix(".ipynb"))
def test_a_control_changes_the_picture(opened, notebook, variable, label):
    explorer = opened(notebook, variable)
    before = explorer.rests()
    for _ in range(4):  # a single step need not change every picture
        explorer.step(label)
        if explorer.changes(before, seconds=8): break
    else: pytest.fail(f"{notebook}: {label!r} moved to {explorer.state(label)}, and the picture stayed the same; below it stands {explorer.words()!r}")
    assert "Error" not in explorer.words()


@pytest.mark.parametrize("notebook, variable, label", PLAYED, ids=lambda value: value.removesuffix(".ipynb"))
def test_play_advances_and_pauses(opened, notebook, variable, label):
    explorer = opened(notebook, variable)
    first, start = explorer.rests(), explorer.state(label)
    button = explorer.place.locator(".widget-play button").first
    button.click()
    second = explorer.changes(first)
    assert second, "pressed Play, and the picture stays the same"
    assert explorer.changes(second), "it stops after one picture"
    assert explorer.state(label) != start
    button.click()
    rest = explorer.rests(seconds=4)
    assert explorer.digest() == rest and "Error" not in explorer.words()
