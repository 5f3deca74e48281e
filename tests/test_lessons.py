"""What every lesson keeps: figures in prose that a saved output shows, folded drawing code, no tests of widgets, one kind of header.

`python tests/test_lessons.py nbs/05_attention.ipynb ...` lists the figures of some notebooks that have no source.
"""
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
COURSE = [path for path in NOTEBOOKS if re.match(r"\d\d", path.name) and path.parent.name == "nbs"]
name = lambda path: path.relative_to(ROOT / "nbs").as_posix()

NUMBER = r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w])|(?<![\w.])\.\d+(?![\w])"
UNIT = r"\s?(?:%|percent\b|ms\b|s\b|sec(?:ond)?s?\b|min(?:ute)?s?\b|hours?\b|h\b|AP\b|MB\b|GB\b|kB\b)"
# a decimal, or any number with a unit of time, size or share
CLAIM = re.compile(rf"({NUMBER})({UNIT})?")
# prose that quotes somebody: the paper, a page it links to, or a command that anybody can run again
QUOTES = re.compile(r"\]\(https?://|\bpaper(?:'s)?\b|\bofficial\b|arXiv|`nanodetr [a-z]|`python (?:-m )?[\w./]", re.I)


def cells(path: Path, kind: str) -> list:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def source(cell: dict) -> str: return "".join(cell["source"])


TIME = {"ms": 1e-3, "s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1, "min": 60, "mins": 60, "minute": 60, "minutes": 60, "h": 3600, "hour": 3600, "hours": 3600}
SIZE = {"kB": 1e3, "MB": 1e6, "GB": 1e9}


def shown(path: Path) -> list:
    "[(number, unit)] of everything in the code and the saved text outputs of a notebook; the unit is that of a time or a size, or empty."
    parts = []
    for cell in cells(path, "code"):
        parts.append(source(cell))
        for output in cell.get("outputs", []):
            parts += ["".join(output.get("text", [])), "".join(output.get("data", {}).get("text/plain", [])), "".join(output.get("data", {}).get("text/markdown", []))]
    found = re.findall(r"(?<![A-Za-z_\d.])(\d[\d,_]*(?:\.\d+)?(?:e[+-]?\d+)?|\.\d+)(?:[ -]?(ms|s|sec|seconds?|min|minutes?|h|hours?|kB|MB|GB|%)\b)?", "\n".join(parts))
    return sorted({(float(number.strip(",_").replace(",", "").replace("_", "")), unit) for number, unit in found})


def claims(text: str) -> list:
    "[(number as written, unit)] of prose: decimals, and numbers of time, size and share; outside code, mathematics, links and quotations."
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.M | re.S)
    text = re.sub(r"\$\$.*?\$\$", " ", text, flags=re.S)
    said = []
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*|]|\d+\.)\s)", text):
        if QUOTES.search(paragraph) or paragraph.lstrip().startswith("**Needs"): continue
        paragraph = re.sub(r"\$[^$]+\$|`[^`\n]+`|Python 3\.\d+", " ", re.sub(r"\]\([^)]*\)", "]", paragraph))
        said += [(number, (unit or "").strip()) for number, unit in CLAIM.findall(paragraph) if unit or "." in number]
    return said


def is_shown(number: str, unit: str, numbers: list) -> bool:
    "Whether one of the (number, unit) pairs rounds to what was written. A share may be shown as a fraction, a time in another unit."
    value, digits = float(number.replace(",", "")), len(number.partition(".")[2])
    rounds = lambda x: abs(x - value) <= 0.5 * 10 ** -digits * (1 + 1e-6)
    for x, other in numbers:
        if unit in TIME: fits = rounds(x * TIME[other] / TIME[unit]) if other in TIME else bool(digits) and rounds(x)
        elif unit in SIZE: fits = rounds(x * SIZE[other] / SIZE[unit]) if other in SIZE else rounds(x) or rounds(x / SIZE[unit])
        elif unit in ("%", "percent", "AP"): fits = rounds(x) or (x <= 1 and rounds(100 * x))
        else: fits = rounds(x)
        if fits: return True
    return False


def unsourced(path: Path) -> list:
    numbers = shown(path)
    return [f"{number} {unit}".strip() for cell in cells(path, "markdown") for number, unit in claims(source(cell)) if not is_shown(number, unit, numbers)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_figures_in_prose_come_from_somewhere(path):
    assert unsourced(path) == []


def test_a_figure_from_nowhere_is_seen():
    assert claims("It takes 12 s and 3.5 GB; AP 0.84 (`0.9`, $0.7$), 62 %.\n\nThe paper has 42.0.") == [("12", "s"), ("3.5", "GB"), ("0.84", ""), ("62", "%")]
    assert is_shown("0.84", "", [(0.8404, "")]) and is_shown("62", "%", [(0.618, "")]) and is_shown("6", "min", [(355.0, "s")])
    assert not is_shown("0.84", "", [(0.85, ""), (84.0, "")]) and not is_shown("12", "s", [(13.0, "s"), (12.0, "")])


# --- lesson code is lesson

DRAWS = re.compile(r"\b(?:axes?|ax\w*|figure|fig)(?:\[[^\]]*\])?\.(?:plot|add_patch|text|annotate|bar|barh|imshow|scatter|set|set_title|hist|axhline|axvline|legend|fill_between|grid|set_\w+)\(")


def folded(cell: dict) -> bool: return bool(cell["metadata"].get("jupyter", {}).get("source_hidden"))


@pytest.mark.parametrize("path", COURSE, ids=name)
def test_drawing_is_folded(path):
    for cell in cells(path, "code"):
        if folded(cell):
            assert cell["metadata"].get("cellView") == "form" and source(cell).startswith("#@title "), f"a folded cell needs a title and Colab's mark: {source(cell)[:80]}"
            assert "#| export" not in source(cell), "an exported cell is never folded"
        else: assert len(DRAWS.findall(source(cell))) < 4, f"fold this cell, or move its drawing to nanodetr.plots:\n{source(cell)[:200]}"


@pytest.mark.parametrize("path", COURSE, ids=name)
def test_no_tests_of_widgets_in_lessons(path):
    for cell in cells(path, "code"):
        assert not re.search(r"\.controls\[|\.children\[|(?<!self)\.value\s*=[^=]", source(cell)), f"this belongs in the explorer's own notebook:\n{source(cell)[:200]}"


@pytest.mark.parametrize("path", COURSE, ids=name)
def test_every_lesson_has_its_head_and_its_foot(path):
    head = "\n".join(source(cell) for cell in cells(path, "markdown")[:2])
    for words in ("# ", "> ", "colab-badge.svg", "**Needs:**", "**Before this:**", "](glossary.ipynb)"): assert words in head, f"the head has no {words}"
    foot = "\n".join(source(cell) for cell in cells(path, "markdown")[-6:])
    for words in ("## To remember", "urther reading"): assert words in foot, f"the foot has no {words}"


def test_the_course_is_short():
    # two thirds of what 00 to 16 were; 14b, 15 and 17 came after that limit was set, and nobody needs them to understand DETR
    assert sum(len(cells(path, "code")) for path in COURSE if path.name[:3] not in ("14b", "15_", "17_")) <= 693


if __name__ == "__main__":
    for argument in sys.argv[1:]: print(argument, *unsourced(Path(argument).resolve()), sep="\n    ")
