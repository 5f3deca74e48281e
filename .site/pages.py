"""Notebooks as pages: each cell, with the outputs and figures that were saved in it, as Markdown for MkDocs. Nothing is executed."""
import base64
import functools
import logging
import posixpath
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / ".ci"))
from make_readme import LINK, is_local, outside_code  # noqa: E402

UNLINKED = ("checks", "commands", "explorers", "plots")  # their names are words of their own notebooks only
LESSONS = {path.stem[3:].replace("positional_encoding", "position") for path in (ROOT / "nbs").glob("[0-9]*.ipynb")}
WIDGET = "application/vnd.jupyter.widget-view+json"
BADGE = re.compile(r"\[!\[[^\]]*\]\([^)]*colab-badge\.svg\)\]\((\S+?)\)")


class SiteError(SystemExit):
    "What keeps the site from being built, with the remedy."


@functools.cache
def library() -> dict:
    """{a name as prose has it: where the API pages have it}, such as `attend`: nanodetr.attention.attend.

    Only names that mean one thing; a name in lower case only if a lesson builds it and no method has it too.
    """
    scope = {}
    exec((ROOT / "nanodetr" / "_modidx.py").read_text(encoding="utf-8"), scope)
    found = {}
    for module, names in scope["d"]["syms"].items():
        if module.split(".")[1] in UNLINKED: continue
        for full in names:
            short = full[len(module) + 1:]
            if not any(part.startswith("_") for part in short.split(".")): found.setdefault(short, set()).add(full)
    methods = {short.split(".")[1] for short in found if "." in short}
    plain = lambda short, full: short.islower() and "." not in short and (short in methods or full.split(".")[1] not in LESSONS)
    return {short: full.pop() for short, full in found.items() if len(full) == 1 and not plain(short, min(full))}


def slug(text: str) -> str:
    "A heading as its anchor, as GitHub makes it."
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]|\$", "", text)).strip().lower().replace(" ", "-")


def fence(text: str, attributes: str) -> str:
    "A fenced block, with more backticks than the text has in a row."
    ticks = "`" * max([3, *(len(run) + 1 for run in re.findall(r"`{3,}", text))])
    return f"{ticks} {{ {attributes} }}\n{text}\n{ticks}"


def set_off(text: str) -> str:
    "Blank lines before lists and displayed equations, where CommonMark needs none and Python-Markdown does."
    lines, item, fenced = [], re.compile(r" *([-*]|\d+\.) "), False
    for line in text.split("\n"):
        before = lines[-1] if lines else ""
        starts = item.match(line) and not item.match(before) and not before.startswith("  ")
        if before.strip() and not fenced and (starts or line.startswith("$$")): lines.append("")
        if line.startswith(("```", "~~~")): fenced = not fenced
        lines.append(line)
    return "\n".join(lines)


def heading(pattern: str, text: str):
    "The first heading in which the pattern is found."
    return re.search(rf"^##+ [^\n]*({pattern})", text, re.M)


def is_folded(cell) -> bool:
    "Whether JupyterLab and Colab show the cell's output only, with its code a click away."
    return bool(cell.metadata.get("jupyter", {}).get("source_hidden"))


class Page:
    "One notebook on its way to a page of the site."

    def __init__(self, path: Path, blob: str):
        "path: below nbs/; blob: the address of a file in the repository on GitHub, up to its path."
        self.path, self.blob, self.nbs = path, blob, ROOT / "nbs"
        self.colab = blob.replace("https://github.com", "https://colab.research.google.com/github") + path.relative_to(ROOT).as_posix()
        self.name = path.relative_to(self.nbs).with_suffix("").as_posix()  # 05_attention, solutions/05_attention
        self.notebook = nbformat.read(path, as_version=4)
        self.module, self.figures, self.named = "", {}, set()
        for cell in self.notebook.cells:
            if found := re.search(r"^#\|\s*default_exp\s+(\S+)", cell.source, re.M): self.module = found[1].replace(".", "/")

    @property
    def title(self) -> str:
        heading = next(line for cell in self.notebook.cells for line in cell.source.split("\n") if line.startswith("# "))[2:]
        number = re.match(r"\d\d[a-z]?", Path(self.name).name)
        return f"{number[0]} {heading}" if number else heading

    def link(self, match) -> str:
        "The same link on the site: notebooks become pages, other files of the repository lead to GitHub."
        before, target = match[1] or match[3], match[2] or match[4]
        if target.startswith("#"): return before + "#" + slug(target[1:].replace("-", " "))
        if not is_local(target): return before + target
        file, _, anchor = target.partition("#")
        there = (self.path.parent / file).resolve()
        if not there.exists(): logging.getLogger("mkdocs").warning("%s links to %s, which does not exist", self.path.relative_to(ROOT), target)
        anchor = "#" + slug(anchor.replace("-", " ")) if anchor else ""
        if there.is_dir() and there == self.nbs / "solutions": return before + posixpath.join(file, "index.md")
        if there.is_relative_to(self.nbs) and not there.is_dir():
            return before + (file[:-len(".ipynb")] + ".md" + anchor if there.suffix == ".ipynb" else file)
        return before + self.blob + there.relative_to(ROOT).as_posix() + anchor

    def words(self, source: str) -> str:
        "A Markdown cell."
        here = self.path.relative_to(ROOT).as_posix()
        raw = f"{self.blob.replace('/blob/', '/raw/')}{here}"
        source = BADGE.sub(lambda m: f"[Open in Colab]({m[1]}){{ .colab }} [View on GitHub]({self.blob}{here}){{ .colab }} [Download notebook]({raw}){{ .colab }}", source)
        return self.to_the_library(outside_code(set_off(source), lambda text: LINK.sub(self.link, text)))

    def to_the_library(self, text: str) -> str:
        "The first time a page names a function or class of the library in its prose, the name leads to the API."
        def name(match):
            short = match[1].removesuffix("()")
            if short in self.named or short not in library(): return match[0]
            self.named.add(short)
            return f"[{match[0]}][{library()[short]}]"

        parts = re.split(r"(^(?:```|~~~).*?^(?:```|~~~)[^\n]*$|^#+ .*$|!?\[[^\]\n]*\]\([^)\n]*\)|<[^>\n]+>)", text, flags=re.M | re.S)
        return "".join(part if k % 2 else re.sub(r"(?<![`\[])`([A-Za-z_][\w.]*(?:\(\))?)`(?!`)", name, part) for k, part in enumerate(parts))

    def code(self, source: str, folded: bool = False) -> str:
        "A code cell without its directives; one that is exported says where to, one that is folded is a line to click on."
        exported = re.search(r"^#\|\s*exports?\b", source, re.M)
        source = "\n".join(line for line in source.split("\n") if not line.startswith("#|")).strip("\n")
        title = f' title="nanodetr/{self.module}.py"' if exported and self.module else ""
        if not source.strip(): return ""
        if not folded: return fence(source, f".python{title}")
        name = re.match(r"#\s*@title\s+(.*)", source)
        source = source[name.end():].strip("\n") if name else source
        block = "\n".join(f"    {line}" if line else "" for line in fence(source, f".python{title}").split("\n"))
        return f'??? code "{name[1] if name else "The code of the figure"}"\n\n{block}'

    def alt(self, source: str, above: str) -> str:
        "What a figure is called where it is not seen: the title of its cell, or what was said last before it."
        title = re.search(r"^#\s*@title\s+(?:What the figure shows:? *)?(.*)", source, re.M)
        if title and title[1]: return title[1]
        lines = [line for line in above.split("\n") if line.strip() and not line.startswith(("#", "|", "$", "`", "!", "["))]
        said = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", lines[-1]).strip("-* ") if lines else ""
        sentences = [sentence for sentence in re.split(r"(?<=[.?!])\s+", said)[::-1] if len(sentence) > 12]
        about = [sentence for sentence in sentences if re.search(r"figure|picture|panel|drawing|map|curve|bar|look|shows", sentence, re.I)]
        return [*about, *sentences, self.title][0][:160]

    def output(self, output, source: str, above: str = "") -> str:
        "A figure, or printed text. above: the Markdown cell before it."
        data = output.get("data", {})
        if WIDGET in data: return ""
        if "image/png" in data:
            file = f"{Path(self.name).name}_{len(self.figures) + 1:02}.png"
            self.figures[file] = base64.b64decode(data["image/png"])
            alt = re.sub(r"[^\w ,.:=()-]", "", self.alt(source, above))
            return f"[![Figure: {alt}](figures/{file}){{ .figure loading=lazy }}](figures/{file}){{ .enlarge title=\"the figure alone\" }}"
        if "text/markdown" in data: return data["text/markdown"]
        text = output.get("text") or data.get("text/plain") or "\n".join(output.get("traceback", []))
        text = re.sub(r"\x1b\[[0-9;]*m", "", "".join(text)).rstrip()
        return fence(text, ".text .output") if text else ""

    def shown(self, cell) -> bool:
        "Neither hidden nor the cell that installs the library on Colab."
        hidden = re.match(r"#\|\s*(hide|include:\s*false)\s*$", cell.source.lstrip().split("\n")[0])
        installs = cell.cell_type == "code" and "google.colab" in cell.source and "pip" in cell.source and "install" in cell.source
        return not hidden and not installs

    def markdown(self, explorers=()) -> str:
        """The page.

        explorers: (patterns, HTML) pairs; the HTML of each follows the first code cell, or stands before the first
        heading, in which the first pattern is found that is found at all. SiteError where none is.
        """
        cells = [cell for cell in self.notebook.cells if cell.cell_type in ("markdown", "code") and self.shown(cell)]
        after, before = {}, {}
        for patterns, html in explorers:
            k, pattern = self.place(cells, patterns)
            if cells[k].cell_type == "code": after.setdefault(k, []).append(html)
            else: before.setdefault(k, []).append((pattern, html))
        parts, places, above = [], re.findall(r'id="([\w-]+)-explorer"', "".join(html for _, html in explorers)), ""
        for k, cell in enumerate(cells):
            if cell.cell_type == "markdown":
                above, text = cell.source, self.words(cell.source)
                if k == 1 and places and "/" not in self.name:  # below the header; raw links, as the frames are raw HTML
                    text += "\n\nTo play with at once: " + ", ".join(f'<a href="#{kind}-explorer">{kind.replace("_", " ")}</a>' for kind in places) + "."
                for pattern, html in before.get(k, ()):
                    at = heading(pattern, text).start()
                    text = f"{text[:at]}{html}\n\n{text[at:]}"
                parts.append(text)
                continue
            parts += [self.code(cell.source, is_folded(cell)), *(self.output(output, cell.source, above) for output in cell.outputs), *after.get(k, ())]
            if self.name == "explorers/playground" and "explore_live()" in cell.source: parts.append('<p class="needs-kernel">It runs on the <a href="../../#play">home page</a>, too.</p>')
            elif k not in after and not places and re.search(r"^[^#\n]*\bexplore_\w+\(", cell.source, re.M) and not re.search(r"^\s*def explore_", cell.source, re.M):
                parts.append(f'<p class="needs-kernel">With a kernel, an explorer with controls stands here: '
                             f'<a href="{self.colab}">open this notebook in Colab</a>.</p>')
        return "\n\n".join(part for part in parts if part.strip()) + "\n"

    def place(self, cells, patterns) -> tuple:
        "(index of the cell, pattern) for an explorer."
        for pattern in patterns:
            for k, cell in enumerate(cells):
                if heading(pattern, cell.source) if cell.cell_type == "markdown" else re.search(pattern, cell.source): return k, pattern
        raise SiteError(f"{self.name}: no cell or heading has any of {patterns}: mend EXPLORERS in .site/build.py")
