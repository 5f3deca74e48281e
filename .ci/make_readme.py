"""README.md from nbs/index.ipynb.

python .ci/make_readme.py           writes README.md
python .ci/make_readme.py --check   writes nothing; exit status 1 when README.md differs or points to a missing file

Cells that start with `#| hide` are dropped, so are `#|` lines; links and images, relative to nbs/, are made relative to the top level.
"""
import argparse
import difflib
import posixpath
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE, README = ROOT / "nbs" / "index.ipynb", ROOT / "README.md"
REMEDY = "run `python .ci/make_readme.py` and commit README.md (edit nbs/index.ipynb, never README.md)"
LINK = re.compile(r'(\]\()([^)\s]+)|((?:src|href)=")([^"]+)')
CODE = re.compile(r"(^(?:```|~~~).*?^(?:```|~~~)[^\n]*$|`[^`\n]+`)", re.M | re.S)


def is_local(target: str) -> bool:
    "Neither an address with a scheme, nor an anchor, nor a path from the root."
    return not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|[#/]", target)


def from_top(match) -> str:
    "The same link, seen from the top level instead of from nbs/."
    before, target = match.group(1) or match.group(3), match.group(2) or match.group(4)
    return before + (posixpath.normpath(posixpath.join("nbs", target)) if is_local(target) else target)


def outside_code(text: str, change) -> str:
    "Apply `change` to what is neither a fenced block nor inline code."
    return "".join(part if k % 2 else change(part) for k, part in enumerate(CODE.split(text)))


def shown(notebook):
    "The notebook without hidden cells and without directive lines."
    notebook.metadata.setdefault("language_info", {"name": "python"})  # names the language of the fences
    notebook.cells = [cell for cell in notebook.cells if not re.match(r"#\|\s*hide\b", cell.source.lstrip())]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("#|")).strip()
    return notebook


def make() -> str:
    "The text of README.md."
    import nbformat
    from nbconvert import MarkdownExporter

    body, resources = MarkdownExporter().from_notebook_node(shown(nbformat.read(SOURCE, as_version=4)))
    if resources.get("outputs"):
        sys.exit("make_readme: a cell of nbs/index.ipynb has a picture as output: save it under nbs/images/ and link it in a markdown cell")
    note = "<!-- Written by .ci/make_readme.py from nbs/index.ipynb: edit that. -->\n\n"
    body = "\n".join(line.rstrip() for line in outside_code(body, lambda text: LINK.sub(from_top, text)).splitlines())
    return note + re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"


def missing(text: str) -> list:
    "Local files that the text points to and that do not exist."
    targets = []
    outside_code(text, lambda part: targets.extend(m.group(2) or m.group(4) for m in LINK.finditer(part)) or part)
    return sorted({t for t in targets if is_local(t) and not (ROOT / t.split("#")[0]).exists()})


def main() -> int:
    parser = argparse.ArgumentParser(description="README.md from nbs/index.ipynb")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when README.md is not what the notebook says")
    check, text = parser.parse_args().check, make()
    for target in (lost := missing(text)):
        print(f"make_readme: README.md points to {target}, which does not exist: add it or mend the link in nbs/index.ipynb", file=sys.stderr)
    if not check:
        README.write_text(text, encoding="utf-8")
        print(f"wrote {README.name}, {len(text.splitlines())} lines")
        return 0
    old = README.read_text(encoding="utf-8") if README.exists() else ""
    if old != text:
        print("".join(difflib.unified_diff(old.splitlines(True), text.splitlines(True), "README.md", "nbs/index.ipynb")), end="")
        print(f"make_readme: README.md is not what nbs/index.ipynb says: {REMEDY}", file=sys.stderr)
    return int(old != text or bool(lost))


if __name__ == "__main__":
    sys.exit(main())
