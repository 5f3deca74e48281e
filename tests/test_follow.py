"""Typing along: every notebook survives being blanked and filled again, and a planted mistake is found where it was planted.

One of the notebooks is run whole, in a kernel; NANODETR_SLOW=1 runs all, and plants mistakes (several minutes).
"""
import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nanodetr import coach, follow
from nanodetr.cli import main

CLONE = Path(__file__).resolve().parents[1]
COURSES = follow.courses(CLONE)
QUICK = ("05_attention",)  # a ladder of each kind, in seconds
WHOLE = [name for name in COURSES if name < "13" and (name in QUICK or "NANODETR_SLOW" in os.environ)]


def course(name: str) -> dict:
    return follow.read_notebook(COURSES[name])


@pytest.fixture()
def clone(tmp_path):
    "A clone with the notebooks of this one, and nothing in work/."
    (tmp_path / "nbs").mkdir()
    shutil.copy(CLONE / "settings.ini", tmp_path)
    for path in COURSES.values(): shutil.copy(path, tmp_path / "nbs")
    return tmp_path


def nanodetr(clone: Path, capsys, *arguments) -> tuple:
    "(exit status, standard output, last line of standard error) of `nanodetr follow` in a clone."
    before = Path.cwd()
    os.chdir(clone)
    try: status = main(["follow", *map(str, arguments)])
    finally: os.chdir(before)
    out, err = capsys.readouterr()
    return status, out, (err.strip().splitlines() or [""])[-1]


def filled(original: dict, copy: dict, changes: dict) -> dict:
    "A copy of a notebook with some things, {key: text}, written into the cells where they belong."
    found, cells = follow.pieces(original), {cell["id"]: dict(cell) for cell in copy["cells"]}
    for key, text in changes.items():
        cell = cells[original["cells"][found[key].cell]["id"]]
        there, name = follow.source(cell), found[key].name
        cell["source"] = there.replace(follow.written(cell, found[key].line)[name], text, 1)
    return {**copy, "cells": [cells[cell["id"]] for cell in copy["cells"]]}


def edit(path: Path, changes: dict) -> None:
    "Write some things, {key: text}, into a copy."
    original = follow.read_notebook(COURSES.get(path.stem, path.parents[1] / "nbs" / path.name))
    path.write_text(json.dumps(filled(original, json.loads(path.read_text()), changes)))


def test_all_twelve_can_be_followed():
    assert [name[:2] for name in COURSES if name[2] == "_"][:12] == [f"{k:02}" for k in range(1, 13)]


def all_functions(text: str) -> dict:
    return {name: node for name, node, _ in follow.functions(text)}


@pytest.mark.parametrize("name", COURSES)
def test_round_trip(name):
    "Blank, every function keeps its signature, docstring and decorators, and no more; with the bodies back, it is the course's text again."
    original, copy = course(name), follow.blank_notebook(course(name), name)
    wanted, cells = follow.definitions(original), {cell["id"]: cell for cell in copy["cells"]}
    full = filled(original, copy, wanted)
    assert wanted
    for cell in original["cells"]:
        text, marks = follow.source(cell), r"(?m)^#\|\s*(export|default_exp).*\n?"
        plain = re.sub(marks, "", text)
        if cell["cell_type"] != "code" or not plain: continue
        blank = cells[cell["id"]]
        assert blank["outputs"] == [] and blank["execution_count"] is None
        new = follow.source(blank)
        if not follow.is_exported(cell) and not follow.is_rung(cell):
            assert new == text
            continue
        assert not follow.functions(new)  # nothing of a body is left
        assert all(line.split(" = ")[1].startswith("...") for line in follow.written({**cell, "source": new}, True).values() if "your turn, rung" in line)
        back = follow.source(next(c for c in full["cells"] if c["id"] == cell["id"]))
        assert back == plain and ast.dump(ast.parse(back)) == ast.dump(ast.parse(text))
        before = {n.name: n for n in ast.walk(ast.parse(text)) if isinstance(n, follow.FUNCTION)}
        for node in ast.walk(ast.parse(new)):
            if not isinstance(node, follow.FUNCTION): continue
            whole = before[node.name]
            assert ast.get_docstring(node) == ast.get_docstring(whole) and ast.dump(node.args) == ast.dump(whole.args)
            assert [ast.dump(d) for d in node.decorator_list] == [ast.dump(d) for d in whole.decorator_list]
        lines = follow.new_lines(text) if follow.is_rung(cell) else {}
        assert new.count("# your turn") == len(follow.functions(text)) + len(lines) and all(len(line) <= 160 for line in new.splitlines() if "# your turn" in line)
        kept = [line.strip() for line in text.splitlines() if re.match(r"\s*#(?!\|)", line) and line not in "".join(
            "\n".join(text.splitlines()[node.body[0].lineno - 1:node.end_lineno]) for node in all_functions(text).values())]
        assert all(line in new for line in kept if line.startswith("# ("))  # the shapes in the signatures


def links(cell: dict) -> list:
    "The targets of the links and images of a markdown cell, without those in code."
    return [m.group(2) or m.group(4) for part in follow.CODE.split(follow.source(cell))[::2] for m in follow.LINK.finditer(part)]


@pytest.mark.parametrize("name", COURSES)
def test_links_lead_to_the_same_place_from_the_copy(name):
    original = [target for cell in course(name)["cells"] if cell["cell_type"] == "markdown" for target in links(cell)]
    copied = [target for cell in follow.blank_notebook(course(name), name)["cells"] if cell["cell_type"] == "markdown" for target in links(cell)]
    assert len(original) == len(copied) > 1
    for old, new in zip(original, copied):
        if re.match(r"[a-z]+:|#", old): assert new == old
        else: assert (CLONE / "work" / new).resolve() == (CLONE / "nbs" / old).resolve()


def noted(text: str) -> str:
    "A cell in which every function that there was to write notes that it was called."
    tree = ast.parse(text)
    wanted = {(node.lineno, node.name): name for name, node, _ in follow.functions(text)}
    for node in ast.walk(tree):
        if isinstance(node, follow.FUNCTION) and (node.lineno, node.name) in wanted:
            place = int(ast.get_docstring(node, clean=False) is not None)
            node.body.insert(place, ast.parse(f"CALLED.add({wanted[node.lineno, node.name]!r})").body[0])
    return ast.unparse(ast.fix_missing_locations(tree))


# runs before the notebook: what a rung looks like when its result is a little off, and whether the cells after it notice
SPOILING = '''
import copy as _copy, functools as _functools, types as _types
CALLED, UNNOTICED = set(), []


def spoiled(x):
    "The same value, a little off."
    import torch
    if isinstance(x, bool): return not x
    if isinstance(x, (int, float)): return x + 1
    if isinstance(x, str): return x + "?"
    if isinstance(x, torch.Tensor): return ~x if x.dtype == torch.bool else x + 1 if not x.is_floating_point() else x * 1.25 + 0.25
    if isinstance(x, dict): return {key: spoiled(value) for key, value in x.items()}
    if isinstance(x, tuple) and hasattr(x, "_fields"): return type(x)(*map(spoiled, x))
    if isinstance(x, (tuple, list)): return type(x)(map(spoiled, x))
    raise ArithmeticError("nothing that can be a little off")


def _off(function):
    @_functools.wraps(function)
    def wrong(*args, **kwargs): return spoiled(function(*args, **kwargs))
    return wrong


def spoil(thing, methods):
    "A function that is a little off; a class in which one written method is, forward before others."
    if not isinstance(thing, type): return _off(thing)
    name = next((m for m in ("forward", "__call__") if m in methods), next((m for m in methods if m != "__init__"), None))
    if name is None:
        def wrong(self, *args, **kwargs): raise ArithmeticError("not built")
        setattr(thing, "__init__", wrong)
    else: setattr(thing, name, _off(getattr(thing, name)))
    return thing


def try_wrong(key, definition, name, methods, rest):
    "Define it wrongly in a copy of the names, and go on until something fails."
    import torch
    names, state = dict(globals()), torch.get_rng_state()
    try:
        exec(definition, names)
        names[name] = spoil(names[name], methods)
        for text in rest: exec(text, names)
        UNNOTICED.append(key)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt): raise
    finally: torch.set_rng_state(state)
'''


def with_wrong_tries(original: dict) -> list:
    "The cells of a notebook, and before each rung the same rung done wrongly, with the cells after it up to the first that fails."
    pieces, cells = follow.pieces(original), follow.compose(original, {})
    code = []
    for k, text in enumerate(cells):
        if text is None: continue
        for key, piece in pieces.items():
            if piece.cell != k or piece.line or ", rung " not in key: continue
            methods = [name.split(".")[1] for name, _, owner in follow.functions(piece.text) if owner is not None]
            body = text[text.index(piece.text) + len(piece.text):] if piece.text in text else text
            others = "\n\n".join(other for name, other in follow.parts(follow.source(original["cells"][k])).items() if name != piece.name)
            after = re.sub(r"(?ms)^(?:@.*?\n)*(?:def|class) .*?(?=^\S|\Z)", "", body)
            rest = [after, *(text for text in cells[k + 1:k + 9] if text)]
            code.append(f"try_wrong({key!r}, {others + chr(10) + piece.text!r}, {piece.name!r}, {methods!r}, {rest!r})")
        code.append(noted(text) if follow.is_exported(original["cells"][k]) else text)
    return code


@pytest.mark.parametrize("name", WHOLE)
def test_filled_again_it_runs_and_every_rung_counts(name, tmp_path):
    """The copies with the real bodies back, run in work/: all checks pass, and every function that there was to write is called.

    A function on a rung that is a little off is noticed by the cells after it. (Plain lines are compared by value: test_every_rung_...)
    """
    (tmp_path / "work").mkdir()
    for part in ("nbs", "nanodetr"): (tmp_path / part).symlink_to(CLONE / part)

    original = course(name)
    full = {**original, "cells": [{**cell, "metadata": {}} for cell in filled(original, follow.blank_notebook(original, name), follow.definitions(original))["cells"][1:]]}
    back = {cell["id"]: follow.source(cell) for cell in full["cells"]}
    again = {**original, "cells": [{**cell, "source": ("#| export\n" if follow.is_exported(cell) else "") + back[cell["id"]]} if cell["id"] in back and cell["cell_type"] == "code"
                                   else cell for cell in original["cells"]]}
    everything = sorted(part for key, text in follow.definitions(original).items() if ", rung " not in key for part in all_functions(text))
    end = f"not_called = [name for name in {everything} if name not in CALLED]\nassert not not_called, not_called\nassert not UNNOTICED, UNNOTICED"
    assert follow.play([SPOILING, *with_wrong_tries(again), end], tmp_path / "work", 600) is None


@pytest.mark.parametrize("name", COURSES)
def test_blank_fails_naming_every_definition(name, clone, capsys):
    assert nanodetr(clone, capsys, name)[0] == 0
    status, out, _ = nanodetr(clone, capsys, name, "--check")
    lines, wanted = out.splitlines(), follow.definitions(course(name))
    assert status == 1 and lines[-1] == f"0 of {len(wanted)} right"
    assert [re.split(r"  +", line.removeprefix("not yet  "))[0] for line in lines[:-1]] == list(wanted) and all(line.startswith("not yet ") for line in lines[:-1])


def another_way(text: str) -> str:
    "The same definition, told from the course's: a statement that does nothing at the start of each function."
    for _, node, _ in reversed(follow.functions(text)):
        lines = text.splitlines()
        first = follow.to_write(node)[0]
        before = lines[first.lineno - 1][:first.col_offset]
        if before.strip(): continue
        text = "\n".join([*lines[:first.lineno - 1], before + "another_way = True", *lines[first.lineno - 1:]])
    return text


PLANTED = {  # notebook, definition, right, wrong, what the verdict says; are all the others written in another way?
    "transposed key": ("05_attention", "attend", "key.transpose(-2, -1)", "key", "shapes cannot be multiplied", False),
    "missing scale": ("05_attention", "attend", " / math.sqrt(query.shape[-1])", "", "largest difference", True),
    "label off by one": ("10_loss", "SetCriterion", "query] = labels", "query] = labels + 1", "", False),
    "wrong box format": ("09_matching", "HungarianMatcher", "pairwise_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes))",
                         "pairwise_giou(boxes, target_boxes)", "", False),
    "a corner for a centre": ("01_boxes", "xyxy_to_cxcywh", "(x0 + x1) / 2", "x0", "", True),
}


@pytest.mark.weekly  # a minute for each; test_the_coach_says asks about two of them
@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_blamed_on_its_definition_alone(clone, mistake):
    (clone / "nanodetr").symlink_to(CLONE / "nanodetr")
    (clone / "work").mkdir()

    def judged(mistake):
        name, definition, right, wrong, says, others = PLANTED[mistake]
        wanted = follow.definitions(course(name))
        assert wanted[definition].count(right) == 1
        mine = {other: another_way(text) if others and ", rung " not in other else text for other, text in wanted.items()}
        copy = filled(course(name), follow.blank_notebook(course(name), name), {**mine, definition: wanted[definition].replace(right, wrong)})
        return follow.judge(course(name), copy, clone / "work")

    verdicts = judged(mistake)
    _, definition, _, _, says, others = PLANTED[mistake]
    blamed = [verdict for verdict in verdicts if verdict.state != "right"]
    assert [(verdict.state, verdict.name) for verdict in blamed] == [("wrong", definition)] and says in blamed[0].says, verdicts


def another_line(text: str) -> str:
    "The same plain line, told from the course's."
    return f"another_way = True\n{text}"


@pytest.mark.weekly
@pytest.mark.parametrize("name", COURSES)
def test_the_coach_takes_every_right_answer(name):
    typed = []
    check = coach.Coach(name, CLONE, lambda: typed)
    for key, piece in check.pieces.items():
        typed[:] = [another_line(piece.text) if piece.line else another_way(piece.text)]
        text = check.attempt(key).text
        failure, count = check.failure(key, text)
        assert failure is None and count >= min(2, len(coach.proofs(check.course, key))), (key, failure)  # itself, and what proves it


@pytest.mark.parametrize("mistake", [name for name in PLANTED if PLANTED[name][0] == "05_attention" or "NANODETR_SLOW" in os.environ])
def test_the_coach_says_what_is_wrong_and_helps(mistake, capsys):
    name, definition, right, wrong, says, _ = PLANTED[mistake]
    typed = []
    check = coach.Coach(name, CLONE, lambda: typed)
    typed.append(check.pieces[definition].text.replace(right, wrong))
    check(definition)
    said = capsys.readouterr().out
    assert "not yet right" in said and says in said and f"check({definition!r}, hint=1)" in said
    check(definition, hint=2)
    bones = capsys.readouterr().out
    assert "..." in bones and right not in bones
    typed.append(check.pieces[definition].text)
    check(definition)
    assert f"{definition}: right" in capsys.readouterr().out and len(check.right) == 1


@pytest.mark.parametrize("body, says", [("weights = (query @ key.T).softmax(0)", "not yet right"), ("weights = (query @ kex.T).softmax(-1)", "it does not run")])
def test_the_coach_tells_a_wrong_answer_from_one_that_does_not_run(body, says, capsys):
    key = "plain_attention, rung 1"  # its assertion stands in its own cell
    coach.Coach("05_attention", CLONE, lambda: [f"def plain_attention(query, key, value):\n    {body}\n    return weights @ value, weights"])(key)
    assert f"{key}: {says}." in capsys.readouterr().out


def test_the_copy_asks_the_coach_after_every_blank():
    for name in COURSES:
        copy = follow.blank_notebook(course(name), name)
        asked = [key for cell in copy["cells"] if cell["id"].startswith("check-") for key in re.findall(r'check\("(.+)"\)', follow.source(cell))]
        assert asked == [*follow.pieces(course(name))] and f'Coach("{name}")' in follow.source(copy["cells"][1])


def test_all_right(clone, capsys):
    "Word for word the course's: no run is needed to know. One of them blank: the rest is still right."
    path, _ = follow.begin(clone, "04_positional_encoding", folder=clone)
    wanted = follow.definitions(course("04_positional_encoding"))
    edit(path, wanted)
    status, out, err = nanodetr(clone, capsys, "04", "--check")
    assert status == 0 and out.splitlines()[-1] == f"{len(wanted)} of {len(wanted)} right" and "running" not in err
    edit(path, {"LearnedPositions": follow.blank(wanted["LearnedPositions"])})
    status, out, _ = nanodetr(clone, capsys, "04", "--check")
    assert status == 1 and out.count("right    ") == len(wanted) - 1 and "still to write: __init__, forward" in out


def small(clone: Path, *texts) -> Path:
    "A course of a notebook whose exported cells are `texts`, each followed by its proof; the path of its copy."
    cells = [{"id": f"c{k}", "cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": text} for k, text in enumerate(texts)]
    notebook = {"cells": [{**cells[0], "id": "name", "source": "#| default_exp small"}, *cells], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (clone / "nbs/20_small.ipynb").write_text(json.dumps(notebook))
    return follow.begin(clone, "20_small", folder=clone)[0]


def test_what_does_not_come_to_an_end(clone, capsys):
    path = small(clone, "#| export\ndef one(x):\n    return 1", "assert one(0) == 1", "#| export\ndef two(x):\n    return 2", "assert two(0) == 2")
    edit(path, {"one": "def one(x):\n    while True: pass", "two": "def two(x):\n    return 1 + 1"})
    status, out, _ = nanodetr(clone, capsys, "small", "--check", "--timeout", 3)
    assert status == 1 and "wrong    one  no end after 3 s" in out and "right    two" in out
    edit(path, {"one": "def one(x):\n    import os\n    os._exit(1)"})
    status, out, _ = nanodetr(clone, capsys, "small", "--check", "--timeout", 60)
    assert status == 1 and "wrong    one  the kernel died" in out and "right    two" in out


def test_when_the_course_itself_fails(clone, capsys):
    path = small(clone, "#| export\ndef one(x):\n    return 1", "assert one(0) == 2")
    edit(path, {"one": "def one(x):\n    return 1 + 0"})
    status, _, err = nanodetr(clone, capsys, "small", "--check")
    assert status == 2 and "the course's own notebook fails" in err


def test_names(clone, capsys):
    assert "did you mean 05_attention?" in nanodetr(clone, capsys, "atention")[2]
    assert "did you mean HungarianMatcher?" in nanodetr(clone, capsys, "--reveal", "HungarianMacher")[2]
    for name in ("5", "nothing_like_it"):
        status, _, line = nanodetr(clone, capsys, name)
        assert status == 2 and line.startswith("nanodetr: error: no notebook ")
    for name in ("05", "attention", "05_attention", "nbs/05_attention.ipynb"): assert follow.find_course(clone, name) == "05_attention"
    status, out, _ = nanodetr(clone, capsys, "--reveal", "MultiHeadAttention.split")
    assert status == 0 and out.startswith("def split(self") and "unflatten" in out
    assert nanodetr(clone, capsys, "09", "--reveal", "HungarianMatcher")[1].startswith("class HungarianMatcher(nn.Module):")
    assert "which notebook" in nanodetr(clone, capsys, "--check")[2]
    assert "nanodetr follow 05_attention" in nanodetr(clone, capsys, "05", "--check")[2]


def test_never_overwrites(clone, capsys):
    path = clone / "work/05_attention.ipynb"
    assert nanodetr(clone, capsys, "05")[0] == 0
    edit(path, {"attend": follow.definitions(course("05_attention"))["attend"]})
    mine = path.read_bytes()
    status, _, line = nanodetr(clone, capsys, "05")
    assert status == 2 and str(path) in line and "--force" in line and path.read_bytes() == mine
    assert re.search(r"05_attention +\d+ to write +work/05_attention.ipynb: 1 written", nanodetr(clone, capsys)[1])
    for k in (1, 2):
        assert nanodetr(clone, capsys, "05", "--force")[0] == 0
        kept = path.with_name(f"05_attention.old{k}.ipynb")
        assert kept.exists() and (kept.read_bytes() == mine) == (k == 1) and path.read_bytes() != mine
    path.write_text("{")
    assert "is not a notebook" in nanodetr(clone, capsys, "05", "--check")[2]


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_the_copy_as_it_was(there, clone, capsys, monkeypatch):
    "Half of the new copy is written, then the disk is full: the old one is whole and in its place, and the message names the file."
    import errno

    path = clone / "work/05_attention.ipynb"
    if there: assert nanodetr(clone, capsys, "05")[0] == 0
    before = path.read_bytes() if there else None
    whole = Path.write_text

    def half(self, text, **how):
        whole(self, text[:len(text) // 2], **how)
        raise OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", half)
        status, _, line = nanodetr(clone, capsys, "05", *["--force"] * there)
    assert status == 2 and "05_attention.ipynb: No space left on device: make room" in line
    assert [file.name for file in path.parent.iterdir()] == [path.name] * there and (not there or path.read_bytes() == before)
    assert nanodetr(clone, capsys, "05", *["--force"] * there)[0] == 0


def test_what_was_made_in_the_meantime_stays(clone, capsys, monkeypatch):
    "Between the look and the writing someone else makes the copy, or a link that leads nowhere stands in its place: neither is written over."
    path = clone / "work/05_attention.ipynb"
    write = follow.write_beside

    def slowly(place, how):
        beside = write(place, how)
        path.symlink_to(clone / "nowhere.ipynb")
        return beside

    monkeypatch.setattr(follow, "write_beside", slowly)
    status, _, line = nanodetr(clone, capsys, "05")
    assert status == 2 and "was made by someone else in the meantime, or leads nowhere: look at it, and start again" in line
    assert os.listdir(path.parent) == [path.name] and path.is_symlink() and not (clone / "nowhere.ipynb").exists()


def test_the_copy_lies_in_work_of_the_folder_one_is_in(clone, capsys):
    place = clone / "some where" / "deep"
    place.mkdir(parents=True)
    before = Path.cwd()
    os.chdir(place)
    try: assert main(["follow", "05"]) == 0 and main(["follow", "05", "--check"]) == 1
    finally: os.chdir(before)
    capsys.readouterr()
    copy = follow.read_notebook(place / "work/05_attention.ipynb")
    targets = [target for cell in copy["cells"] if cell["cell_type"] == "markdown" for target in links(cell) if "notebook" not in target]
    local = [target for target in targets if target.startswith("../")]
    assert local and all((place / "work" / target.split("#")[0].replace("%20", " ")).resolve().is_relative_to(clone.resolve()) for target in local)
    assert not (clone / "work").exists()


LADDER = ("import torch\nx = torch.arange(3.0)", "def square(x):\n    return x * x  # new\nprint(square(x))", "assert square(3) == 9",
          "y = square(x)\nz = y / y.sum()  # new\nprint(z)", "drop = torch.nn.functional.dropout(z, 0.5)  # new", "#| export\ndef share(x):\n    return x * x / (x * x).sum()",
          "assert torch.equal(share(x), z)")


def test_every_rung_is_blank_and_judged(clone, capsys):
    "A function on a rung by the proofs after it, a plain line by what it gives; random numbers are drawn alike."
    path = small(clone, *LADDER)
    copy = "\n".join(follow.source(cell) for cell in follow.read_notebook(path)["cells"])
    assert "x * x" not in copy and "y.sum" not in copy and "z = ...  # your turn, rung 2" in copy
    wrong = {"square, rung 1": "def square(x):\n    return x + x", "z, rung 2": "z = y / y.max()", "drop, rung 3": "drop = z * 3"}
    right = {"square, rung 1": "def square(x):\n    return x ** 2", "z, rung 2": "z = y / torch.sum(y)", "drop, rung 3": "drop = torch.nn.Dropout(0.5)(z)",
             "share": "def share(x):\n    return square(x) / square(x).sum()"}
    edit(path, right)
    status, out, _ = nanodetr(clone, capsys, "small", "--check")
    assert status == 0 and out.splitlines()[-1] == "4 of 4 right"
    for key in wrong if "NANODETR_SLOW" in os.environ else ["z, rung 2"]:
        path.unlink()
        follow.begin(clone, "20_small", folder=clone)
        edit(path, {**right, key: wrong[key]})
        status, out, _ = nanodetr(clone, capsys, "small", "--check")
        blamed = [line for line in out.splitlines() if line.startswith("wrong")]
        assert status == 1 and len(blamed) == 1 and key in blamed[0], (key, out)


@pytest.mark.parametrize("name", COURSES)
def test_the_answer_does_not_stand_above(name):
    "No cell of a copy holds the body of anything that is to be written further down in it."
    original, copy = course(name), follow.blank_notebook(course(name), name)
    seen = "\n".join(re.sub(r"\s+", " ", follow.source(cell)) for cell in copy["cells"] if cell["cell_type"] == "code")
    for key, piece in follow.pieces(original).items():
        for _, node, _ in () if piece.line else follow.functions(piece.text):
            body = " ".join(re.sub(r"\s+", " ", line) for line in piece.text.splitlines()[follow.to_write(node)[0].lineno - 1:node.end_lineno]).strip()
            assert len(body) < 60 or body not in seen, f"{key}: its body stands in the copy"


def test_found_from_below_and_without_notebooks(clone, capsys, tmp_path_factory, monkeypatch):
    (clone / "a/b").mkdir(parents=True)
    assert follow.find_clone(clone / "a/b") == clone.resolve()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert follow.find_clone(elsewhere) == CLONE  # where the package comes from
    shutil.copytree(CLONE / "nanodetr", elsewhere / "site/nanodetr", ignore=shutil.ignore_patterns("weights", "__pycache__"))  # as from a wheel
    code = "import sys; from nanodetr.cli import main; sys.exit(main(['follow', '05']))"
    found = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, env={**os.environ, "PYTHONPATH": str(elsewhere / "site")}, capture_output=True, text=True)
    assert found.returncode == 2 and "git clone " in found.stderr and "Traceback" not in found.stderr and len(found.stderr.strip().splitlines()) == 1


def test_nbdev_never_takes_from_work(clone):
    "It looks into nbs/ only; and a copy, even half filled, exports nothing if nbdev is pointed at it."
    follow.begin(clone, "05_attention", folder=clone)
    edit(clone / "work/05_attention.ipynb", follow.definitions(course("05_attention")))
    (clone / "nanodetr").mkdir()
    code = "from nbdev.doclinks import nbglob; from nbdev.export import nb_export; print(*nbglob()); nb_export('work/05_attention.ipynb', lib_path='nanodetr')"
    found = subprocess.run([sys.executable, "-c", code], cwd=clone, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "05_attention.ipynb" in found.stdout and "work/" not in found.stdout.replace(str(clone), "")
    assert not list((clone / "nanodetr").glob("*.py"))
    ignored = subprocess.run(["git", "check-ignore", "work/05_attention.ipynb"], cwd=CLONE, capture_output=True, text=True)
    assert ignored.returncode in (0, 128)  # 128: not a git repository
