"""The playground of the home page: the trained model as a graph, and onnxruntime-web, which runs it in the visitor's browser.

onnxruntime-web comes from the npm registry, in one version whose hash is written down here; nothing of it is committed, and a page
asks no other server for it. What was fetched and exported is kept in ~/.cache/nanodetr.

python .site/playground.py FOLDER    the playground alone: then `python -m http.server -d FOLDER`
"""
import base64
import hashlib
import io
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]
MODULES = ROOT / "nanodetr" / "explorers"
VERSION = "1.22.0"  # its WebAssembly is smaller than that of later versions
INTEGRITY = "sha512-Ud/+EBo6mhuaQWt/OjaOk0iNWjXqJoeeMFr6xQEERZdIZH2OWpGzuujz7lfuOBjUa6TEE/sc4nb7Da5dNL34fg=="  # as the registry states it
ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")  # on one thread, in spite of the name
# what the graph depends on
SOURCES = ("model.py", "attention.py", "backbone.py", "encoder.py", "decoder.py", "position.py", "checkpoints/export.py", "explorers/playground.py", "weights/manifest.json")


class Missing(Exception):
    "Why there is no playground, with the remedy."


def kept(name: str) -> Path:
    "A place for what is made once."
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nanodetr" / name


def fill(folder: Path, make) -> Path:
    "The folder, which `make(path)` has filled: whole or not there."
    if folder.is_dir(): return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        make(Path(place) / "new")
        try: os.rename(Path(place) / "new", folder)
        except OSError:  # another process was faster
            if not folder.is_dir(): raise
    return folder


def fetch_runtime(folder: Path) -> None:
    "The files of onnxruntime-web in `folder`. Raises Missing without a network, or when the package is not the one we know."
    try:
        with urllib.request.urlopen(ADDRESS, timeout=60) as answer: data = answer.read()
    except OSError as error:
        raise Missing(f"onnxruntime-web could not be fetched from registry.npmjs.org ({error}): build again with a network") from None
    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != INTEGRITY: raise Missing(f"{ADDRESS} has the hash {found}, not the one in .site/playground.py: do not use it")
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for name in RUNTIME: (folder / name).write_bytes(archive.extractfile(f"package/dist/{name}").read())


def export(folder: Path) -> None:
    "The graph and its weights in `folder`. Raises Missing without onnx."
    from nanodetr.errors import NanodetrError
    from nanodetr.explorers.playground import write_playground
    try: write_playground(folder)
    except NanodetrError as error: raise Missing(str(error)) from None


def fingerprint() -> str:
    "Changes with whatever the graph depends on."
    import torch
    every = hashlib.sha256(torch.__version__.encode())
    for name in SOURCES: every.update((ROOT / "nanodetr" / name).read_bytes())
    return every.hexdigest()[:16]


def write_files(folder: Path) -> None:
    "All that the playground fetches, in `folder`. Raises Missing."
    parts = fill(kept(f"onnxruntime-web-{VERSION}"), fetch_runtime), fill(kept(f"playground-{fingerprint()}"), export)
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        for file in part.iterdir(): shutil.copyfile(file, folder / file.name)
    for name in ("core.js", "playground.js"): shutil.copyfile(MODULES / name, folder / name)


def megabytes(folder: Path) -> float:
    "What a visitor loads to play, as servers send it."
    import gzip
    first = [*RUNTIME, "core.js", "playground.js", "model.onnx", "trained", "playground.json"]
    return sum(len(gzip.compress((folder / name).read_bytes(), 6)) for name in first) / 1e6


def markup(assets: str, size: float) -> str:
    "The playground on a page, as HTML without a blank line, which would end it in Markdown: a picture, and the rest at a click."
    still = lambda name, mode: f'<img src="images/{name}" class="only-{mode}" alt="" width="1180" height="771" loading="lazy">'
    return f"""<div class="playground" id="playground" data-from="{assets}">
<button type="button" class="playground-start">{still("playground.png", "light")}{still("playground_dark.png", "dark")}<span class="playground-go"><b>Play</b> A real DETR, in your browser: {size:.0f} MB, nothing is sent anywhere</span></button>
<noscript><p>The playground needs JavaScript. The <a href="00_tour/">tour</a> shows the same in still pictures.</p></noscript>
</div>
<script type="module">
const place = document.getElementById("playground"), button = place.querySelector("button"), words = button.querySelector("span");
async function start() {{
  if (button.disabled) return;
  button.disabled = true, words.textContent = "Loading the model \\u2026";
  const from = new URL(place.dataset.from, location.href).href;
  try {{
    const {{play}} = await import(`${{from}}playground.js`), slot = document.createElement("div");
    button.replaceWith(slot);
    await play(slot, from);
    slot.querySelector("[data-thing]")?.focus({{preventScroll: true}});
    place.classList.add("ready");
  }} catch (error) {{
    place.textContent = "The playground could not be loaded. Reload the page, or take the tour.";
    throw error;
  }}
}}
button.addEventListener("click", start);
const enter = () => {{ place.scrollIntoView({{block: "start"}}), start(); }};
if (location.hash === "#play") enter();
document.addEventListener("click", event => {{ if (event.target.closest('a[href$="#play"]')) event.preventDefault(), enter(); }});  // the doors on this page
</script>"""


STANDALONE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>nanodetr: the playground</title><link rel="icon" href="data:,">
<style>:root { color-scheme: light dark; } body { margin: 14px; }</style>
<div id="playground"></div>
<script type="module">import * as module from "./playground.js"; window.module = module; window.frame = await module.play(document.getElementById("playground"), new URL("./", location.href).href);</script>
</html>
"""


def write_alone(folder: Path) -> Path:
    "A folder with the playground and nothing else, to be served. Raises Missing."
    write_files(folder)
    (folder / "index.html").write_text(STANDALONE, encoding="utf-8")
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2: sys.exit(__doc__.strip().splitlines()[-1])
    try: print(f"{write_alone(Path(sys.argv[1]))}: {megabytes(Path(sys.argv[1])):.1f} MB to play")
    except Missing as why: sys.exit(str(why))
