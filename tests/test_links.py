"Links inside the repository: files and headings exist, badges open their own notebook, and one setting moves them all."
import functools
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_readme, set_owner = load("make_readme"), load("set_owner")
NOTEBOOKS = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
PAGES = [ROOT / "README.md", *sorted((ROOT / ".github").glob("*.md")), *NOTEBOOKS]
name = lambda path: path.relative_to(ROOT).as_posix()


@functools.cache
def texts(path) -> list:
    "The Markdown of a page: of the one file, or of every Markdown cell."
    if path.suffix != ".ipynb": return [path.read_text(encoding="utf-8")]
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]


def links(path) -> list:
    "Every target that a page links to or shows, outside code."
    found = []
    for text in texts(path):
        make_readme.outside_code(text, lambda part: found.extend(m[2] or m[4] for m in make_readme.LINK.finditer(part)) or part)
    return found


def anchors(path) -> set:
    "The anchors of a page's headings: in lower case on GitHub's Markdown pages, as written in notebooks."
    found, seen = set(), {}
    for text in texts(path):
        text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.M | re.S)
        for heading in re.findall(r"^#{1,6} +(.+?) *$", text, re.M):
            words = re.sub(r"[`*$]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading))
            anchor = words.replace(" ", "-") if path.suffix == ".ipynb" else re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            seen[anchor] = seen.get(anchor, -1) + 1
            found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
    return found


def broken(path) -> list:
    "What is wrong with the links of a page, in words."
    said = []
    for target in links(path):
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:", target): continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        if not there.exists() or not there.is_relative_to(ROOT): said.append(f"{target}: there is no such file")
        elif anchor and there.suffix in (".md", ".ipynb") and anchor not in anchors(there):
            said.append(f"{target}: no such heading; {there.name} has {', '.join(sorted(anchors(there)))}")
    return said


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path):
    assert broken(path) == []


def test_the_checker_sees_broken_links(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "there.md").write_text("# One heading\n## Twice\n## Twice\n```\n## no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text("# Here\n[a](there.md#one-heading) [b](there.md#twice-1) [c](#here) [d](https://example.org/x) `[no](link.md)`\n"
                    "[e](gone.md) [f](there.md#no-heading) ![g](gone.png) [h](#there)\n```\n[no](link2.md)\n```\n")
    assert [line.split(":")[0] for line in broken(page)] == ["gone.md", "there.md#no-heading", "gone.png", "#there"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_badge_opens_its_own_notebook(path):
    user, repo, branch = set_owner.settings(ROOT)
    place = f"https://colab.research.google.com/github/{user}/{repo}/blob/{branch}/"
    badges = [target for target in links(path) if target.startswith("https://colab.research.google.com/github/")]
    if path.name == "index.ipynb":
        assert badges and all((ROOT / badge.removeprefix(place)).is_file() for badge in badges)
        rows = [line for text in texts(path) for line in text.split("\n") if "colab-badge" in line]
        for row in rows:  # the badge of a row opens the notebook that the row names
            notebook = re.search(r"\]\(([\w/]+\.ipynb)", row)[1]
            assert re.search(r"blob/[^/]+/(\S+?)\)", row)[1] == f"nbs/{notebook}"
    elif path.parent.name != "solutions": assert badges == [place + name(path)]
    else: assert set(badges) <= {place + name(path)}


def test_the_index_lists_every_notebook_behind_the_scenes():
    "And no name that is not there."
    folders = [folder for folder in sorted((ROOT / "nbs").iterdir()) if folder.is_dir() and folder.name not in ("solutions", ".ipynb_checkpoints") and any(folder.glob("*.ipynb"))]
    listed = set(re.findall(r"\(((?:%s)/\w+\.ipynb)\)" % "|".join(folder.name for folder in folders), (ROOT / "nbs/index.ipynb").read_text(encoding="utf-8")))
    assert listed == {f"{folder.name}/{path.name}" for folder in folders for path in folder.glob("*.ipynb")}


def test_install_cells_name_the_repository_of_the_settings():
    user, repo, _ = set_owner.settings(ROOT)
    for path in NOTEBOOKS:
        for found in re.findall(r"git\+https://github\.com/([\w./-]+)", path.read_text(encoding="utf-8")): assert found == f"{user}/{repo}", name(path)


def run(*args) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, ROOT / ".ci" / "set_owner.py", *args], capture_output=True, text=True)


def test_everything_names_the_repository_of_the_settings():
    done = run("--check")
    assert done.returncode == 0, done.stderr


def test_one_setting_moves_the_repository_and_back(tmp_path):
    files = [path for pattern in set_owner.PLACES for path in ROOT.glob(pattern)] + [ROOT / "settings.ini"]
    for path in files:
        (tmp_path / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    old, new = "/".join(set_owner.settings(ROOT)[:2]), ("some-one", "her.detr", "trunk")

    def settle(place):
        text = (tmp_path / "settings.ini").read_text(encoding="utf-8")
        for key, value in zip(("user", "repo", "branch"), place): text = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.M)
        (tmp_path / "settings.ini").write_text(text, encoding="utf-8")

    settle(new)
    checked = run("--check", "--root", str(tmp_path))
    assert checked.returncode == 1 and "README.md: names another repository" in checked.stderr
    assert run("--root", str(tmp_path)).returncode == 0 and run("--check", "--root", str(tmp_path)).returncode == 0
    everything = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file())
    assert f"github.com/{old}" not in everything and "github/some-one/her.detr/blob/trunk/nbs/01_boxes.ipynb" in everything
    assert "git clone https://github.com/some-one/her.detr && cd her.detr" in everything
    settle(set_owner.settings(ROOT))
    assert run("--root", str(tmp_path)).returncode == 0
    assert all((tmp_path / path.relative_to(ROOT)).read_bytes() == path.read_bytes() for path in files if path.name != "settings.ini")
