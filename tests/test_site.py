"""The web site: built from the notebooks without a warning, complete, and moved in a browser that reaches nothing but the site.

Needs `pip install -e ".[docs]"` for the first half, playwright and Chromium as well for the second; without them the tests are skipped.
SITE_SHOTS=folder keeps screenshots of the explorers.
"""
import base64
import functools
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zlib
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from nanodetr.boxes import cxcywh_to_xyxy, pairwise_giou
from nanodetr.data import ShapesDataset
from nanodetr.model import DETR

ROOT = Path(__file__).resolve().parent.parent
COURSE = sorted(path.stem for path in (ROOT / "nbs").glob("[0-9]*.ipynb"))
PAGES = sorted(path.relative_to(ROOT / "nbs").with_suffix("").as_posix() for path in (ROOT / "nbs").rglob("*.ipynb")
               if ".ipynb_checkpoints" not in path.parts and path.stem != "index")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The folder of the built site. Strict: a warning fails the build."
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
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install playwright")
    if CHROMIUM is None: pytest.skip("Chromium is missing: apt-get install -y --no-install-recommends chromium")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    "visit(path, width, scheme) -> the page. Whatever leaves the site, or is logged as an error, fails the test at its end."
    faults, contexts = [], []

    def local(route):
        if route.request.url.startswith((address, "data:", "blob:")): return route.continue_()
        faults.append(f"asks for {route.request.url}")
        route.abort()

    def visit(path, width=1280, scheme="light"):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
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
    page.wait_for_selector(f"#{kind}-explorer.ready")
    root = page.locator(f"#{kind}-explorer")
    root.scroll_into_view_if_needed()
    return root


def keep(root, name):
    if folder := os.environ.get("SITE_SHOTS"): root.screenshot(path=f"{folder}/site_{name}.png")


def pictures(root) -> list:
    "What the explorer's canvases show."
    return root.locator("canvas").evaluate_all("all => all.map(canvas => canvas.toDataURL())")


def data(page, kind) -> dict:
    return json.loads(page.locator(f"#{kind}-explorer [data-name=data]").text_content())


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
        told = path.parent.name == "follow"  # which is about these marks, and shows some in a toy
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


def test_packed_attention_is_the_models(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / ".site"))
    import explorer_data
    model = DETR.from_pretrained(explorer_data.NAME)
    image = ShapesDataset("val", size=64, n=5)[3][0]
    with torch.no_grad(): true = torch.cat(model(image[None], need_weights=True).attention["encoder"])
    numbers = np.frombuffer(zlib.decompress(base64.b64decode(explorer_data.packed(true))), np.uint8).astype(float)
    count = true.shape[:3].numel()
    largest, share = numbers[:count].reshape(true.shape[:3]) / 255, numbers[count:].reshape(true.shape) / explorer_data.LEVELS
    assert np.abs(largest[..., None] * share - true.numpy()).max() < 0.6 / explorer_data.LEVELS


# --- in a browser

def test_every_course_page_opens(visit):
    page = visit("")
    for name in [*COURSE, "plots/pictures", "api/model", "solutions/09_matching"]:
        page.goto(re.sub(r"(:\d+)/.*", rf"\1/{name}/", page.url), wait_until="load")
        assert page.locator("h1").first.is_visible()
        if page.locator(".arithmatex").count(): page.wait_for_selector("mjx-container svg")
        assert page.locator("mjx-container [data-mml-node=merror]").count() == 0, f"{name}: a formula that MathJax does not know"
        broken = page.evaluate("Array.from(document.images).filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
        assert not broken


def test_search_finds_a_word(visit):
    page = visit("")
    page.locator("label.md-search__icon, .md-search__input").first.click()
    page.locator(".md-search__input").fill("Hungarian algorithm")
    page.wait_for_selector(".md-search-result__item")
    assert any("09_matching" in link for link in page.locator(".md-search-result__link").evaluate_all("all => all.map(a => a.href)"))


def test_dark_mode_is_a_click_away(visit):
    page = visit("06_encoder/")
    paper = "getComputedStyle(document.body).backgroundColor"
    assert page.get_attribute("body", "data-md-color-scheme") == "default"
    light = page.evaluate(paper)
    page.locator("label[title='Dark mode']").click()
    page.wait_for_selector("body[data-md-color-scheme=slate]")
    assert page.evaluate(paper) != light
    keep(explorer(page, "attention"), "attention_dark")


@pytest.mark.parametrize("name", ["06_encoder", "09_matching"])
def test_pages_fit_a_phone(visit, name):
    page = visit(f"{name}/", width=360, scheme="dark")
    root = explorer(page, "attention" if name.startswith("06") else "matching")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for canvas in root.locator("canvas").all(): assert canvas.bounding_box()["width"] > 60
    keep(root, f"{name}_phone")


def test_hungarian_equals_scipy(visit):
    page, random = visit("09_matching/"), np.random.default_rng(0)
    explorer(page, "matching")
    tables = []
    for case in range(50):
        objects = int(random.integers(1, 9))
        table = random.normal(size=(objects + int(random.integers(0, 9)), objects)) * 5
        tables.append((table.round() if case % 3 == 0 else table).tolist())  # whole numbers: ties
    answers = page.evaluate("tables => tables.map(t => document.getElementById('matching-explorer').explorer.assign(t))", tables)
    for table, answer in zip(map(np.array, tables), answers):
        assert len(set(answer)) == table.shape[1], "two objects have one query"
        assert table[answer, range(table.shape[1])].sum() == pytest.approx(table[linear_sum_assignment(table)].sum())
    assert page.evaluate("document.getElementById('matching-explorer').explorer.assign([[], []])") == []


def reference(told, picture, model, weights) -> tuple:
    "(Hungarian total, its queries by object) by SciPy and nanodetr.boxes, from the numbers on the page."
    scene, says = told["pictures"][picture], told["models"][model]["says"][picture]
    boxes, objects, probs = (torch.tensor(x, dtype=torch.float64) for x in (says["boxes"], scene["boxes"], says["probs"]))
    cost = weights[0] * -probs[:, scene["labels"]] + weights[1] * torch.cdist(boxes, objects, p=1)
    cost = (cost - weights[2] * pairwise_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(objects))).numpy()
    rows, columns = linear_sum_assignment(cost)
    return cost[rows, columns].sum(), [rows[list(columns).index(j)] for j in range(cost.shape[1])]


def test_matching_explorer_follows_its_sliders(visit):
    page = visit("09_matching/")
    root, told = explorer(page, "matching"), data(page, "matching")
    total = lambda: float(root.get_attribute("data-total"))
    keep(root, "matching")
    assert total() == pytest.approx(reference(told, 0, 0, (1, 5, 2))[0], abs=1e-5)
    cell = "[data-pair].best"
    assert root.locator(cell).count() == len(told["pictures"][0]["labels"])
    before, said = pictures(root), root.locator("[data-name=sentence]").text_content()
    slider = root.locator("input[data-name=l1]")
    slider.focus()
    for _ in range(20): slider.press("ArrowLeft")  # 5 -> 0, by the keyboard
    assert total() == pytest.approx(reference(told, 0, 0, (1, 0, 2))[0], abs=1e-5)
    assert root.locator("[data-name=sentence]").text_content() != said
    for name, value in (("giou", 0), ("class", 5)):
        root.locator(f"input[data-name={name}]").evaluate("(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value)
    best, queries = reference(told, 0, 0, (5, 0, 0))
    assert total() == pytest.approx(best, abs=1e-5) and pictures(root) != before
    assert float(root.get_attribute("data-greedy")) >= best - 1e-9
    assert root.locator(cell).evaluate_all("all => all.map(td => td.dataset.pair)") == [f"{q},{j}" for q, j in sorted(zip(queries, range(len(queries))))]
    root.locator("[data-name=reset]").click()
    assert pictures(root) == before
    root.locator("select[data-name=picture]").select_option("1")
    root.locator("select[data-name=model]").select_option(str(len(told["models"]) - 1))
    assert total() == pytest.approx(reference(told, 1, len(told["models"]) - 1, (1, 5, 2))[0], abs=1e-5)


def test_a_cell_of_the_cost_table_explains_itself(visit):
    page = visit("09_matching/")
    root, told = explorer(page, "matching"), data(page, "matching")
    before, pair = pictures(root), root.locator("[data-name=pair]")
    cell = root.locator("[data-pair='2,1']")
    cell.hover()
    assert pictures(root) != before and "q2 for the" in pair.text_content()
    says, scene = told["models"][0]["says"][0], told["pictures"][0]
    assert f"{says['probs'][2][scene['labels'][1]]:.2f} = " in pair.text_content()
    page.mouse.move(5, 5)
    cell.focus()
    page.keyboard.press("ArrowDown")
    assert "q3 for the" in pair.text_content()
    keep(root, "matching_pair")


def unpacked(told, picture, view) -> np.ndarray:
    "The attention on the page, (layers, heads, N, N)."
    numbers = np.frombuffer(zlib.decompress(base64.b64decode(told["pictures"][picture]["views"][view]["weights"])), np.uint8)
    count = told["layers"] * told["heads"]
    cells = round((len(numbers) / count + 0.25) ** 0.5 - 0.5)  # count * N + count * N * N numbers
    share = numbers[count * cells:].reshape(told["layers"], told["heads"], cells, cells).astype(float)
    return share / share.sum(-1, keepdims=True)


def test_attention_explorer_follows_the_chosen_cell(visit):
    page = visit("06_encoder/")
    root, told = explorer(page, "attention"), data(page, "attention")
    keep(root, "attention")
    scene, captions = root.locator("[data-name=scene]"), root.locator("figcaption")
    assert captions.count() == told["layers"] * told["heads"]
    box = scene.bounding_box()

    def click(row, column, columns=8):
        scene.click(position={"x": (column + 0.5) * box["width"] / columns, "y": (row + 0.5) * box["width"] / columns})
        page.mouse.move(5, 5)

    def check(weights, cell):
        wanted = [f"head {h + 1}: {100 * weights[l, h, cell].max():.0f} %" for l in range(told["layers"]) for h in range(told["heads"])]
        assert [re.sub(r"\s+", " ", text) for text in captions.all_text_contents()] == wanted

    click(1, 1)
    before, weights = pictures(root), unpacked(told, 0, 0)
    check(weights, 1 * 8 + 1)
    click(6, 5)
    check(weights, 6 * 8 + 5)
    assert all(a != b for a, b in zip(before, pictures(root))), "a map did not follow"
    scene.focus()
    page.keyboard.press("ArrowRight")
    check(weights, 6 * 8 + 6)
    scene.hover(position={"x": 3, "y": 3})
    check(weights, 0)
    page.mouse.move(5, 5)
    check(weights, 6 * 8 + 6)


def test_attention_explorer_shows_what_the_mask_is_for(visit):
    page = visit("06_encoder/")
    root, told = explorer(page, "attention"), data(page, "attention")
    rows, columns = (told["pictures"][0]["views"][1][key] for key in ("rows", "columns"))
    padding = [i for i in range(rows * columns) if i % columns >= rows]
    assert unpacked(told, 0, 1)[..., padding].max() == 0 < unpacked(told, 0, 2)[..., padding].max()
    before, sentence = pictures(root), root.locator("[data-name=sentence]")
    root.locator("select[data-name=view]").select_option("1")
    assert "no head looks at the padding" in sentence.text_content()
    masked = pictures(root)
    root.locator("select[data-name=view]").select_option("2")
    assert "is lost on padding" in sentence.text_content() and masked != pictures(root) != before
    keep(root, "attention_padded")


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
    weight = sum(size for url, size in sizes.items() if "search" not in url)
    print(f"\nthe home page: {len(sizes)} requests, {weight / 1e6:.2f} MB without the search index")
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


def test_home_names_what_can_be_pressed(visit):
    page = visit("", width=390, scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    nameless = page.evaluate("""() => [...document.querySelectorAll('main :is(a, button, input, img)')].filter(e => e.offsetParent && !(e.getAttribute('aria-label') || e.title
        || e.textContent.trim() || e.alt || e.labels?.[0]?.textContent.trim() || (e.tagName === 'IMG' && e.closest('button')))).map(e => e.outerHTML.slice(0, 120))""")
    assert not nameless
    keep(page.locator("main"), "home_phone")


@pytest.mark.parametrize("query, lesson", [("hungarian", "09_matching"), ("GIoU gradient", "01_boxes"), ("positional encoding", "04_positional_encoding")])
def test_search_finds_the_lesson_first(visit, query, lesson):
    page = visit(f"?q={query}")  # as a link to a search
    page.wait_for_selector(f".md-search-result__item a[href*='h={query.split()[0]}' i]")
    found = page.locator(".md-search-result__item > .md-search-result__link").evaluate_all("all => all.map(a => new URL(a.href).pathname)")
    assert lesson in found[0], found[:4]


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
