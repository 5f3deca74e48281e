"A folder as a web page on this machine, a headless browser to open it, and what is hard to read there: what the tests of the site and of the playground share."
import functools
import http.server
import os
import shutil
import threading
from contextlib import contextmanager

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


@contextmanager
def served(folder):
    "The address at which a folder is served."
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install playwright")
    if CHROMIUM is None: pytest.skip("Chromium is missing: apt-get install -y --no-install-recommends chromium, or name a Chrome in the variable CHROMIUM")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


# for evaluate on a locator: [text, contrast] of each text below it whose contrast with its ground is under 4.5
CONTRAST = """root => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const parse = (colour, under) => { canvas.fillStyle = under, canvas.fillRect(0, 0, 1, 1), canvas.fillStyle = colour, canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3); };
  const light = c => { const [r, g, b] = c.map(x => (x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const page = matchMedia('(prefers-color-scheme: dark)').matches ? '#121212' : '#fff', bad = [];
  for (const e of root.querySelectorAll('*')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || !e.getClientRects().length || e.tagName === 'STYLE' || e.closest('[aria-disabled=true], :disabled')) continue;
    const chain = []; for (let up = e; up; up = up.parentElement) chain.unshift(getComputedStyle(up).backgroundColor);
    let ground = parse(page, '#000'); for (const colour of chain) ground = parse(colour, `rgb(${ground})`);
    let clear = 1; for (let up = e; up; up = up.parentElement) clear *= Number(getComputedStyle(up).opacity);
    if (clear < 0.05) continue;  // it waits to be shown
    const full = parse(getComputedStyle(e).color, `rgb(${ground})`), ink = full.map((x, k) => clear * x + (1 - clear) * ground[k]), [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) bad.push([e.textContent.slice(0, 40), ((a + 0.05) / (b + 0.05)).toFixed(2)]);
  }
  return bad;
}"""
