"""The house: a notebook's place is its module's place, arrows go one way, and the core needs no more than a bare GPU image has.

Everything is read from the sources: nothing is imported.
"""
import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "nanodetr"
# what stands below everything
BASE = {"errors", "dropout", "linear"}
# what stands beside the numbered modules, and what each may import besides BASE and itself
FOLDERS = {"metrics": set(), "datasets": {"course"}, "checkpoints": {"course"}, "plots": {"course"}, "runs": {"course", "datasets", "checkpoints", "plots"},
           "commands": {"course", "datasets", "checkpoints", "metrics", "plots", "runs"}, "explorers": {"course", "datasets", "checkpoints", "plots"}, "checks": {"course", "datasets", "checkpoints", "runs", "plots", "explorers"}}
BELOW_COURSE = {"datasets", "checkpoints", "metrics"}
TOOLS = {"cli", "follow", "coach", "benchmark"}
CORE = {"torch", "torchvision", "numpy", "scipy", "safetensors", "PIL", "tqdm"}  # PIL comes with torchvision


def modules() -> dict:
    "{dotted name below nanodetr: path} of every module, packages left out."
    paths = (path for path in sorted(LIBRARY.rglob("*.py")) if path.stem not in ("__init__", "__main__", "_modidx"))
    return {".".join(path.relative_to(LIBRARY).with_suffix("").parts): path for path in paths}


def homes() -> dict:
    "{module: notebook} from each notebook's `default_exp`."
    found = {}
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        name = re.search(r'"#\| default_exp ([\w.]+)', path.read_text(encoding="utf-8"))
        if name and ".ipynb_checkpoints" not in path.parts: found[name[1]] = path.relative_to(ROOT / "nbs")
    return found


def course() -> list:
    "The modules of the numbered notebooks, in order."
    return [name for name, path in sorted(homes().items(), key=lambda item: item[1].as_posix()) if len(path.parts) == 1]


def imports(path: Path, here: str, known: dict) -> tuple:
    "({modules of ours}, {top-level names of others at module level}) that a file imports; ours inside functions too."
    ours, others = set(), set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import): targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(["nanodetr", *here.split(".")[:-1]][:len(here.split(".")) + 1 - node.level]) if node.level else ""
            base = ".".join(filter(None, [package, node.module]))
            targets = [f"{base}.{alias.name}" for alias in node.names] if base.split(".")[0] == "nanodetr" else [base]
        else: continue
        for target in targets:
            top, *rest = target.split(".")
            if top != "nanodetr":
                if node in tree.body: others.add(top)
                continue
            while rest and ".".join(rest) not in known and rest[0] != "plots" and rest[0] != "explorers": rest = rest[:-1]
            if rest and ".".join(rest) in known: ours.add(".".join(rest))
            elif rest: ours.add(rest[0])  # a name out of a package
    return ours - {here}, others


GRAPH = {name: imports(path, name, modules()) for name, path in modules().items()}


def kind(name: str) -> str:
    top = name.split(".")[0]
    return top if top in FOLDERS or top in BASE else "tool" if top in TOOLS else "course"


def circle(graph: dict) -> list:
    "The modules of one circle, or an empty list."
    done, way = set(), []

    def visit(name):
        if name in way: return way[way.index(name):] + [name]
        if name in done: return []
        way.append(name)
        found = next(filter(None, map(visit, sorted(graph.get(name, ())))), [])
        way.pop()
        done.add(name)
        return found

    return next(filter(None, map(visit, sorted(graph))), [])


def test_no_circle_of_imports():
    assert circle({name: ours for name, (ours, _) in GRAPH.items()}) == []


def test_a_circle_would_be_seen():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"] and circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_a_notebook_stands_where_its_module_stands():
    for name, path in homes().items():
        folder = path.parts[0] if len(path.parts) > 1 else ""
        package = {"tools": "", "solutions": "checks"}.get(folder, folder)
        assert package == ".".join(name.split(".")[:-1]), f"nbs/{path} exports nanodetr.{name}"
    assert set(modules()) == set(homes()), "a module without a notebook, or the other way round"


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_arrows_go_one_way(name):
    order, mine = course(), kind(name)
    for other in GRAPH[name][0]:
        theirs = kind(other)
        if theirs == mine != "course" or mine == "tool" or theirs in BASE: continue
        if mine == "course":
            assert theirs in BELOW_COURSE or theirs == "course" and order.index(other) < order.index(name), f"{name} imports {other}"
        else: assert theirs in FOLDERS[mine], f"{name} imports {other}"


def test_the_core_needs_little():
    for name in course():
        if name not in GRAPH: continue
        assert GRAPH[name][1] <= CORE | set(sys.stdlib_module_names), f"{name} imports {GRAPH[name][1] - CORE - set(sys.stdlib_module_names)}"
    reached, todo = set(), [name for name in course() if name in GRAPH]
    while todo:
        name = todo.pop()
        reached.add(name)
        todo += GRAPH.get(name, (set(),))[0] - reached
    foreign = {name for name in reached if kind(name) not in ("course", *BASE, *BELOW_COURSE)}
    assert not foreign, f"the core reaches {sorted(foreign)}"


def test_the_plain_core_stays_small():
    "Boxes to loss, in lines of code: without blank lines, comments and docstrings."
    lines = 0
    names = course()
    for name in names[:names.index("loss") + 1]:
        if name == "data": continue
        text = modules()[name].read_text(encoding="utf-8")
        strings = {k for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                   for k in range(node.lineno, node.end_lineno + 1)}
        lines += sum(bool(line.strip()) and not line.strip().startswith("#") and k not in strings for k, line in enumerate(text.split("\n"), 1))
    assert lines < 900


def test_saved_figures_are_small_and_not_reduced_twice():
    "Few colours become a palette, once; a picture that needs all of its colours keeps every one."
    import importlib.util
    import io

    import numpy as np
    from PIL import Image

    root = Path(__file__).parent.parent
    spec = importlib.util.spec_from_file_location("execute", root / ".ci" / "execute.py")
    execute = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(execute)

    def png(pixels):
        out = io.BytesIO()
        Image.fromarray(pixels).convert("RGBA").save(out, "PNG")
        return out.getvalue()
    opened = lambda data: Image.open(io.BytesIO(data))
    noise = png(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    whole = execute.smaller(noise)
    assert len(whole) < len(noise) and np.array_equal(np.asarray(opened(whole).convert("RGB")), np.asarray(opened(noise).convert("RGB")))
    plain = np.zeros((64, 64, 3), dtype=np.uint8)
    plain[8:20, 8:40] = 200, 80, 20
    few = execute.smaller(png(np.kron(plain, np.ones((4, 4, 1), dtype=np.uint8))))
    assert opened(few).mode == "P" and execute.smaller(few) == few
    ours = [path for path in (root / "nbs").rglob("*.ipynb") if not {".ipynb_checkpoints", "work"} & set(path.relative_to(root).parts)]
    assert sum(path.stat().st_size for path in ours) < 10_000_000, "the notebooks have over 10 MB: fewer or smaller figures, or `python .ci/execute.py --figures`"
