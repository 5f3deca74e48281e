"""The course as a web site, from the notebooks as they are: `python .site/build.py`, then `python -m http.server -d _docs`.

Nothing is executed: pages show the outputs and figures saved in the notebooks. Needs `pip install -e ".[docs]"`. The pages are assembled in
_proc/site, the site is written to _docs (both ignored by git). A warning of MkDocs is an error here.
"""
import argparse
import json
import logging
import os
import posixpath
import re
import shutil
import sys
from configparser import ConfigParser
from importlib.metadata import files
from pathlib import Path

os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import explorers  # noqa: E402
import playground  # noqa: E402
from pages import ROOT, Page, SiteError  # noqa: E402

# page: {explorer: where it stands: after the code cell or before the heading that has the first of these patterns that occurs}
EXPLORERS = {
    "01_boxes": {"boxes": [r"explore_boxes\("]},
    "04_positional_encoding": {"positions": [r"explore_positions\("]},
    "06_encoder": {"encoder_attention": [r"explore_encoder_attention\(", "What does a trained encoder look at"]},
    "07_decoder": {"decoder_attention": [r"explore_decoder_attention\("]},
    "09_matching": {"matching": [r"explore_matching\(", "Where greedy fails"]},
    "11_training": {"replay": [r"explore_replay\("]},
    "12_evaluation": {"precision_recall": [r"explore_precision_recall\("]},
    "13_inside_detr": {"encoder_attention": [r"explore_encoder_attention\("], "decoder_attention": [r"explore_decoder_attention\("],
                       "replay": [r"explore_replay\("]},
    **{f"explorers/{kind}": {kind: ["The question"]} for kind in ("boxes", "encoder_attention", "decoder_attention", "matching", "positions", "precision_recall", "replay")},
}

# what a reader may search for: the lesson that introduces it comes first
TOPICS = {
    "00_tour": ["start", "first steps"],
    "01_boxes": ["IoU", "GIoU", "GIoU gradient", "box formats"],
    "02_data": ["dataset", "padding mask", "collate"],
    "03_backbone": ["backbone", "ResNet", "frozen batch norm", "receptive field"],
    "04_positional_encoding": ["positional encoding", "sine positions"],
    "05_attention": ["attention", "multi-head attention", "query key value", "softmax"],
    "06_encoder": ["encoder", "layer norm", "residual"],
    "07_decoder": ["decoder", "object queries", "cross-attention"],
    "08_model": ["DETR", "forward pass", "detect"],
    "09_matching": ["Hungarian", "matching", "assignment", "greedy"],
    "10_loss": ["loss", "no-object weight", "auxiliary losses", "deep supervision"],
    "11_training": ["training", "learning rate", "gradient accumulation", "overfit"],
    "12_evaluation": ["average precision", "AP", "precision recall"],
    "13_inside_detr": ["ablation", "attention maps", "duplicates"],
    "14_your_photos": ["your own photos", "fine-tuning", "transfer"],
    "14b_why_slow": ["slow to learn", "slow convergence", "instability of the matching"],
    "15_beyond_detr": ["deformable attention", "denoising", "anchor queries", "conditional attention", "two-stage"],
    "16_voc": ["Pascal VOC"],
    "17_benchmarks": ["benchmark", "speed", "roofline"],
}


def settings() -> dict:
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


def write(file: Path, content) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content) if isinstance(content, bytes) else file.write_text(content, encoding="utf-8")


def mathjax() -> bytes:
    "MathJax in one file, fonts and all, out of a package that carries it."
    found = [f for f in files("sphinx-mathjax-offline") or () if f.name == "tex-svg.js"]
    if not found: raise SiteError('no tex-svg.js in sphinx-mathjax-offline: pip install -e ".[docs]"')
    return found[0].locate().read_bytes()


def ranked(name: str) -> str:
    "How much a page counts in the search: lessons before what is behind the scenes, and the lesson that introduces a thing before later ones."
    boost = 1.0 if name in ("index", "glossary") else 0.3
    if "/" not in name and name[:2].isdigit(): boost = 8 - 0.35 * int(name[:2]) if int(name[:2]) else 3
    return f"search: {{boost: {boost:g}}}\n" + (f"tags: {json.dumps(TOPICS[name])}\n" if name in TOPICS else "")


def place_playground(text: str, out: Path) -> str:
    "The home page with the playground in place of its moving picture, and its files below `out`. Offline, the page says why it is missing."
    moving = re.search(r"^!\[[^\]]*\]\(images/playground\.gif\)(\{[^}]*\})?$", text, re.M)
    if not moving: raise SiteError("nbs/index.ipynb has no picture images/playground.gif, where the playground stands")
    assets = out / "assets" / "playground"
    try: playground.write_files(assets)
    except playground.Missing as why:
        print(f"The home page has no playground: {why}", file=sys.stderr)
        html = '<p class="needs-kernel">This build of the site has no playground: onnxruntime-web or onnx was missing.</p>'
        return f"{text[:moving.end()]}\n\n{html}{text[moving.end():]}"
    return text[:moving.start()] + playground.markup("assets/playground/", playground.megabytes(assets)) + text[moving.end():]


def notebooks() -> list:
    "Every notebook: the course at the top in order, then the folders behind the scenes, solutions among them."
    found = [path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts]
    return sorted(found, key=lambda path: (len(path.relative_to(ROOT).parts), path.as_posix()))


def dotted(module: str) -> str:
    return module.replace("/", ".")


def api_page(module: str, page: Page) -> str:
    notebook = posixpath.relpath(f"{page.name}.md", posixpath.dirname(f"api/{module}"))
    return f"---\n{ranked('api/' + module)}---\n\n# nanodetr.{dotted(module)}\n\nBuilt in [{page.title}]({notebook}).\n\n::: nanodetr.{dotted(module)}\n"


def assemble(out: Path) -> list:
    "Write every page below `out`; the navigation, as MkDocs wants it."
    s = settings()
    blob = f"{s['git_url']}/blob/{s['branch']}/"
    pages = [Page(path, blob) for path in notebooks()]
    home = next(page for page in pages if page.name == "index")
    if out.exists(): shutil.rmtree(out)
    for page in pages:
        text = page.markdown([(patterns, explorers.markup(kind, page.name)) for kind, patterns in EXPLORERS.get(page.name, {}).items()])
        hide = "hide: [navigation, toc]\n" if page is home else ""
        if page is home: text = place_playground(text, out)
        write(out / f"{page.name}.md", f"---\ntitle: {page.title}\n{hide}{ranked(page.name)}---\n\n{text}")
        for name, png in page.figures.items(): write((out / page.name).parent / "figures" / name, png)
    for image in (ROOT / "nbs" / "images").iterdir(): write(out / "images" / image.name, image.read_bytes())
    write(out / "assets" / "mathjax.js", mathjax())
    kinds = sorted({kind for found in EXPLORERS.values() for kind in found})
    for name, text in explorers.files(kinds).items(): write(out / "assets" / "explorers" / name, text)
    write(out / "assets" / "site.css", (HERE / "site.css").read_text(encoding="utf-8"))

    inside = lambda folder: [page for page in pages if posixpath.dirname(page.name) == folder]
    solutions, course = inside("solutions"), [page for page in inside("") if page is not home]
    behind = {folder: inside(folder) for folder in dict.fromkeys(posixpath.dirname(page.name) for page in pages) if folder not in ("", "solutions")}
    listed = "\n".join(f"- [{page.title}]({page.name.split('/')[1]}.md)" for page in solutions)
    write(out / "solutions" / "index.md", f"# Solutions\n\nTry first. Each exercise has a checker that says how far off you are.\n\n{listed}\n")
    modules = {page.module: page for page in [*course, *sum(behind.values(), [])] if page.module}
    for module, page in modules.items(): write(out / "api" / f"{module}.md", api_page(module, page))
    listed = "\n".join(f"- [nanodetr.{dotted(module)}]({module}.md), from [{page.title}](../{page.name}.md)" for module, page in modules.items())
    write(out / "api" / "index.md", f"# The library\n\nOne notebook, one module. The descriptions are the docstrings and comments of the source.\n\n{listed}\n")

    entry = lambda page: {page.title: f"{page.name}.md"}
    return [{"Home": "index.md"}, {"Course": [entry(page) for page in course]},
            {"Behind the scenes": [{folder.capitalize(): [entry(page) for page in found]} for folder, found in behind.items()]},
            {"Solutions": ["solutions/index.md", *(entry(page) for page in solutions)]},
            {"API": ["api/index.md", *({f"nanodetr.{dotted(module)}": f"api/{module}.md"} for module in modules)]}]


class Warnings(logging.Handler):
    "Keeps, and prints, what MkDocs and its plugins warn of."

    def __init__(self):
        super().__init__(logging.WARNING)
        self.said = []

    def emit(self, record) -> None:
        self.said.append(record.getMessage())
        print(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)


def build(pages: Path, out: Path, draft: bool = False) -> None:
    "Assemble the pages and write the site. SiteError when anything warned, unless it is a draft."
    from mkdocs.commands.build import build as mkdocs_build
    from mkdocs.config import load_config

    s, warnings = settings(), Warnings()
    logging.getLogger("mkdocs").addHandler(warnings)
    nav = assemble(pages)
    mkdocs_build(load_config(str(HERE / "mkdocs.yml"), docs_dir=str(pages), site_dir=str(out), nav=nav, repo_url=s["git_url"],
                             repo_name=f"{s['user']}/{s['repo']}", site_url=s["doc_host"] + s["doc_baseurl"] + "/"))
    if warnings.said and not draft: raise SiteError(f"{len(warnings.said)} warnings: mend what they name")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "_docs", help="where the site is written (default: _docs)")
    parser.add_argument("--pages", type=Path, default=ROOT / "_proc" / "site", help="where its pages are assembled (default: _proc/site)")
    parser.add_argument("--draft", action="store_true", help="warnings are no errors")
    args = parser.parse_args()
    build(args.pages.resolve(), args.out.resolve(), args.draft)
    size = sum(file.stat().st_size for file in args.out.rglob("*") if file.is_file())
    print(f"{args.out}: {len(list(args.out.rglob('*.html')))} pages, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
