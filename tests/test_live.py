"""The live explorers without a browser: what the browser computes by itself is compared with Python, in Node.

Needs Node; without it the tests are skipped.
"""
import ast
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

import nanodetr.explorers
from nanodetr.boxes import cxcywh_to_xyxy, paired_giou, paired_iou, pairwise_giou, pairwise_iou
from nanodetr.data import ShapesDataset
from nanodetr.errors import NanodetrError
from nanodetr.evaluation import detection_kinds
from nanodetr.explorers import explore_boxes, explore_matching, explore_positions, explore_precision_recall, forced_total, greedy_pairs, load_snapshots
from nanodetr.explorers.boxes import overlap_slope
from nanodetr.explorers.core import live_module, packed, picture_address
from nanodetr.matching import HungarianMatcher
from nanodetr.plots.pictures import cells_in
from nanodetr.position import sinusoidal_pos_encode_2d

MODULES = Path(nanodetr.explorers.__file__).parent
NAMES = sorted(path.stem for path in MODULES.glob("*.js") if path.stem != "core")
NODE = shutil.which("node")


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    "node(program, argument) -> what the program returns: the body of a function of `argument`, in which all modules are imported."
    if NODE is None: pytest.skip("no Node: apt-get install nodejs")
    folder = tmp_path_factory.mktemp("modules")
    (folder / "package.json").write_text('{"type": "module"}')
    for path in MODULES.glob("*.js"): shutil.copy(path, folder)
    imports = "".join(f'import * as {name} from "./{name}.js";\n' for name in ["core", *NAMES])

    def run(program, argument):
        (folder / "argument.json").write_text(json.dumps(argument))
        (folder / "run.js").write_text(f"""{imports}import {{readFileSync}} from "node:fs";
const argument = JSON.parse(readFileSync("argument.json"));
console.log(JSON.stringify((() => {{ {program} }})()));""")
        done = subprocess.run([NODE, "run.js"], cwd=folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)
    return run


def test_the_assignment_is_scipys_and_greedy_is_greedy(node):
    generator = np.random.default_rng(0)
    tables = []
    for case in range(300):
        queries = int(generator.integers(1, 31))
        table = generator.normal(size=(queries, int(generator.integers(1, queries + 1)))) * 10
        tables.append((table.round() if case % 3 == 0 else table).tolist())  # whole numbers: ties
    told = node("return argument.map(t => [core.assign(t), core.greedyPairs(t), core.forcedTotal(t, 0, 0)])", tables)
    for table, (answer, pairs, forced) in zip(map(np.array, tables), told):
        assert len(set(answer)) == table.shape[1], "two objects have one query"
        assert table[answer, range(table.shape[1])].sum() == pytest.approx(table[linear_sum_assignment(table)].sum())
        values = [table[q, t] for q, t in pairs]
        assert values == pytest.approx([table[cell] for cell in greedy_pairs(table)]) and values == sorted(values)
        assert forced == pytest.approx(forced_total(table, 0, 0))
    assert node("return [core.assign([[], []]), core.greedy([])]", None) == [[], []]


def test_boxes_and_costs_are_nanodetrs(node):
    generator = torch.Generator().manual_seed(0)
    boxes, objects = (0.1 + 0.8 * torch.rand(n, 4, generator=generator) for n in (40, 7))
    boxes[0] = objects[0]
    boxes[1, 2:] = 0  # empty
    probs, labels = torch.randn(40, 5, generator=generator).softmax(-1), torch.randint(4, (7,), generator=generator)
    program = """const [boxes, objects, probs, labels] = argument, pairs = f => boxes.map(a => objects.map(b => f(core.corners(a), core.corners(b))));
        return [pairs(core.iou), pairs(core.giou), core.costParts(probs, boxes, labels, objects)]"""
    iou, giou, parts = map(np.array, node(program, [x.tolist() for x in (boxes, objects, probs, labels)]))
    there = cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(objects)
    assert np.allclose(iou, pairwise_iou(*there), atol=1e-5) and np.allclose(giou, pairwise_giou(*there), atol=1e-5)
    wanted = HungarianMatcher(1, 1, 1).cost_parts(probs.log(), boxes, labels, objects)
    assert np.allclose(parts.transpose(2, 0, 1), np.stack([part.numpy() for part in wanted.values()]), atol=1e-5)


def test_the_slopes_and_sentences_of_two_boxes_are_autograds(node):
    generator = np.random.default_rng(0)
    draw = lambda: (np.concatenate([generator.integers(0, 101, 2), generator.integers(2, 101, 2)]) / 100).tolist()  # as the sliders give them
    pairs = [(draw(), draw()) for _ in range(300)]
    pairs += [(box, [0.5, 0.5, 0.5, 0.5]) for box in ([0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.25, 0.25], [0.125, 0.5, 0.25, 0.25], [0.125, 0.125, 0.25, 0.25], [0.5, 0.25, 1, 0.5])]  # ties
    told, still = node("return argument.map(pair => { const found = boxes.measured(...pair); return [found, boxes.boxesWords(found)] })", pairs), explore_boxes(live=False).still
    for (pred, target), (found, words) in zip(pairs, told):
        for name, measure in (("IoU", paired_iou), ("GIoU", paired_giou)):
            value, slope = overlap_slope(measure, *torch.tensor([pred, target], dtype=torch.float64))
            assert found[name][0] == pytest.approx(value, abs=1e-9) and np.allclose(found[name][1], slope, atol=1e-9), (pred, target, name)
    for (pred, target), (_, words) in list(zip(pairs, told))[-25:]:
        asked = {f"{whose}_{name}": x for whose, box in (("predicted", pred), ("target", target)) for name, x in zip(("cx", "cy", "w", "h"), box)}
        assert words.replace("\u2212", "-") == still(**asked).sentence
    moves = [[[0.4, 0.4, 0.2, 0.3], None, None, [0.1, -0.03]], [[0.4, 0.4, 0.2, 0.3], [1, -1], [0.7, 0.2], None], [[0.4, 0.4, 0.2, 0.3], [-1, 1], [0.9, 0.1], None]]
    moved, pulled, turned = node("return argument.map(move => boxes.dragged(...move))", moves)
    assert moved == [0.5, 0.37, 0.2, 0.3]
    assert pulled == pytest.approx([0.5, 0.38, 0.4, 0.34], abs=0.011) and pulled[0] - pulled[2] / 2 == pytest.approx(0.3) and pulled[1] + pulled[3] / 2 == pytest.approx(0.55)
    assert turned[2:] == [0.02, 0.02]  # drawn past the other corner: it stays a box
    for corner, point in (([1, 1], [1.5, 1.4]), ([-1, -1], [-0.6, -0.2]), ([-1, 1], [0.95, 0.9])):  # past the rim, and on the far side of a box that sticks out
        for box in ([0.9, 0.8, 0.2, 0.3], [0.1, 0.2, 0.3, 0.2], [0.02, 0.98, 0.5, 0.5]):
            x, y, w, h = node("return boxes.dragged(...argument)", [box, corner, point, None])
            assert 0 <= x <= 1 and 0 <= y <= 1 and 0.01 <= min(w, h) and max(w, h) <= 1.01
            still = [box[k] - corner[k] * box[2 + k] / 2 for k in (0, 1)]
            assert [x - corner[0] * w / 2, y - corner[1] * h / 2] == pytest.approx(still, abs=1e-9), (box, corner)


def test_the_note_of_precision_and_recall_hides_no_curve():
    "It stands above a low curve and below a high one."
    val = ShapesDataset("val", n=30)
    images, targets = [val[i][0] for i in range(30)], [val.get_target(i) for i in range(30)]
    explorer = explore_precision_recall(dict(load_snapshots())[4].detect(images, threshold=0), targets, images, val.classes, live=False)
    for iou, above in ((0.5, False), (0.9, True)):
        axes = explorer.still(threshold=0.4, iou=iou, label=3).figure.axes
        [height] = [text.get_position()[1] for ax in axes for text in ax.texts if text.get_text().startswith("kept")]
        assert (height > 0.5) == above


def test_a_threshold_keeps_the_detections_that_python_keeps(node):
    val = ShapesDataset("val", n=30)
    images, targets = [val[i][0] for i in range(30)], [val.get_target(i) for i in range(30)]
    targets = [{**t, "iscrowd": torch.arange(len(t["labels"])) == 1, "difficult": torch.arange(len(t["labels"])) == 0} for t in targets]
    detections = dict(load_snapshots())[4].detect(images, threshold=0)
    asked = detections, targets, images, val.classes
    still, told = explore_precision_recall(*asked, live=False), explore_precision_recall(*asked, live="numbers").data
    labels = {shown["label"]: k for k, shown in enumerate(told["classes"])}
    moves = [(threshold, at, k) for threshold in (0, 0.25, 0.29, 0.5, 0.58, told["highest"]) for at in (0, 6) for k in labels.values()]
    program = """const {told, moves} = argument, P = precision_recall;
        return moves.map(([threshold, at, k]) => { const found = P.working(told.classes[k], threshold, at);
            return [P.workingWords(told.names[told.classes[k].label], found, threshold, told.ious[at]), told.classes[k].scenes.map(scene => P.judged(scene, threshold, at)), P.curve(told.classes[k], at), P.envelope(P.curve(told.classes[k], at))] })"""
    numbers = lambda text: [float(x) for x in re.findall(r"\d+(?:\.\d+)?", text)]
    judged = 0
    for (threshold, at, k), (words, scenes, curve, high) in zip(moves, node(program, {"told": told, "moves": moves})):
        iou, label = told["ious"][at], told["classes"][k]["label"]
        python = still.still(threshold=threshold, iou=iou, label=label).sentence
        assert re.sub(r"[\d.]+", "#", words) == re.sub(r"[\d.]+", "#", python) and numbers(words) == pytest.approx(numbers(python), abs=0.0101), (words, python)
        assert [n for n in numbers(words) if n > 1] == [n for n in numbers(python) if n > 1]
        assert (np.diff([p for _, p in high]) <= 0).all() and (np.array(high) >= np.array(curve)).all()
        for shown, mine in zip(told["classes"][k]["scenes"], scenes):
            i = next(i for i in range(30) if told["images"][shown["image"]]["image"] == picture_address(images[i], 240))
            kinds, missed = detection_kinds(detections[i], {key: value for key, value in targets[i].items() if key != "difficult"}, threshold, iou)
            right = [kinds[d] == "correct" for d in detections[i]["scores"].argsort(descending=True, stable=True).tolist()
                     if detections[i]["labels"][d] == label and kinds[d] not in ("dropped", "ignored")]
            assert [good for _, good in mine["kept"]] == right
            assert len(mine["missed"]) == (torch.as_tensor(missed) & (targets[i]["labels"] == label)).sum()
            judged += 1
    assert judged == 6 * len(moves)
    generator = torch.Generator().manual_seed(0)  # 300 detections in an image: judged once, not once for each that comes before
    crowded = [{"boxes": 48 * torch.rand(300, 2, generator=generator).repeat(1, 2) + torch.tensor([0, 0, 9, 9]), "labels": torch.arange(300) % len(val.classes),
                "scores": torch.rand(300, generator=generator)} for _ in images[:12]]
    spent = []
    for live in (False, "numbers"):
        start = time.process_time()
        explore_precision_recall(crowded, targets[:12], images[:12], val.classes, live=live)
        spent.append(time.process_time() - start)
    assert spent[1] < 5 * spent[0] + 1, spent


def test_position_codes_are_nanodetrs(node):
    told, python = explore_positions(live="numbers"), explore_positions(live=False)
    moves = [(size, temperature, normalize) for size in told.data["sizes"] for temperature in told.data["temperatures"] for normalize in (True, False)]
    program = """const P = positions, {data, moves} = argument;
        return moves.map(([size, temperature, normalize]) => { const codes = P.mapCodes(data.sizes[size], data.dim, temperature, normalize), last = codes[0].length - 1;
            return [codes, ...[5, last].flatMap(column => { const alike = P.alikeTo(codes, 2, column); return [alike, P.neighbourWords(codes, alike, 2, column)] })] })"""
    numbers = lambda text: [float(x) for x in re.findall(r"-?\d+(?:\.\d+)?", text)]
    for (size, temperature, normalize), (codes, *found) in zip(moves, node(program, {"data": told.data, "moves": moves})):
        wanted = sinusoidal_pos_encode_2d(torch.zeros(1, *told.data["sizes"][size], dtype=torch.bool), told.data["dim"], float(temperature), normalize)[0]
        assert np.allclose(codes, wanted, atol=1e-4), (size, temperature, normalize)
        for column, alike, words in ((5, *found[:2]), (len(codes[0]) - 1, *found[2:])):  # the last one has its neighbour on the left
            still = python.still(size=size, temperature=temperature, normalize=normalize, row=2, column=column)
            assert np.allclose(alike, python.view.alike, atol=1e-4)
            assert numbers(words.replace("\u2212", "-")) == pytest.approx(numbers(still.sentence), abs=0.0101), (words, still.sentence)
    assert told.state == python.values


@pytest.mark.parametrize("letters, error", [(1, 1 / 63), (2, 1 / 4095)])
def test_packed_weights_come_back(node, letters, error):
    weights = torch.randn(2, 3, 8, 33, generator=torch.Generator().manual_seed(0)).mul(3).softmax(-1)
    weights[0, 0, 0] = 0  # as where a query is left out
    told = packed(weights, letters)
    back = np.array(node("return [...core.unpacked(argument)]", told)).reshape(weights.shape)
    assert (np.abs(back - weights.numpy()) <= error * weights.amax(-1, keepdim=True).numpy() * 0.51 + 1e-5).all()
    whole = np.array(node("return [...core.unpacked(argument, true)]", told)).reshape(weights.shape).sum(-1)
    assert whole[0, 0, 0] == 0 and np.allclose(np.delete(whole.ravel(), 0), 1, atol=1e-5)


def test_the_cells_of_a_box_are_nanodetrs(node):
    boxes = [[3, 4, 30, 31], [10.5, 10.5, 11, 11], [0, 0, 96, 64], [-5, 50, 200, 70]]
    told = node("return argument.map(box => core.cellsIn(box, {rows: 8, columns: 12, height: 64, width: 96}))", boxes)
    for box, cells in zip(boxes, told): assert torch.tensor(cells).view(8, 12).equal(cells_in(box, (8, 12), (64, 96))), box


def test_the_sentences_of_the_matching_are_pythons(node):
    val = ShapesDataset("val", n=280)
    asked = load_snapshots()[:4], *zip(*(val[i] for i in (213, 278)))
    still, told = explore_matching(*asked, live=False), explore_matching(*asked, live="numbers")
    program = """const {data, moves} = argument;
        return moves.map(({image, stage, layer, way, query: q, object: t}) => {
            const {probs, boxes} = data.said[stage][layer - 1][image], scene = data.scenes[image];
            const m = matching.matched(probs, boxes, scene.labels, scene.boxes, [1, 5, 2]);
            return q === "-" && t === "-" ? matching.matchingWords(m) : q !== "-" && t !== "-" ? matching.pairWords(m, q, t, way)
                : matching.halfWords(m, q, t, way, probs.map(row => row[row.length - 1])) })"""
    moves = [dict(image=image, stage=stage, layer=2, way=way, query=q, object=t)
             for image in (0, 1) for stage in (1, 3) for way in ("Hungarian", "greedy") for q, t in (("-", "-"), (2, 1), (8, 0), (5, "-"), ("-", 2))]
    said = node(program, {"data": told.data, "moves": moves})
    same = [mine.replace("\u2212", "-") == still.still(**move).sentence for mine, move in zip(said, moves)]
    wrong = [(mine, still.still(**move).sentence) for mine, move, fits in zip(said, moves, same) if not fits]
    numbers = lambda text: re.sub(r"-?\d+\.\d+", "#", text)  # rounded inputs may move a last digit
    assert all(numbers(a.replace("\u2212", "-")) == numbers(b) for a, b in wrong) and len(wrong) <= 0.2 * len(moves), wrong


@pytest.mark.parametrize("name", NAMES)
def test_a_module_is_one_piece_for_anywidget(name, tmp_path):
    text = live_module(name)
    assert not re.search(r"^import |^export (?!default)", text, re.M)
    if NODE is None: pytest.skip("no Node: apt-get install nodejs")
    (tmp_path / "one.mjs").write_text(text)
    done = subprocess.run([NODE, "--check", "one.mjs"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_state_goes_both_ways_and_is_checked():
    pytest.importorskip("anywidget", reason="no anywidget: pip install anywidget")
    val = ShapesDataset("val", n=4)
    explorer = explore_matching(load_snapshots()[:2], *zip(*(val[i] for i in range(4))), classes=val.classes)
    seen = []
    explorer.observe(lambda change: seen.append((change["name"], change["new"])), "query")
    explorer.query = 3
    assert explorer.values["query"] == 3 and seen == [("query", 3)] and explorer.sentence.startswith("q3 ")
    before = explorer.values
    assert explorer.still(query="-").sentence != explorer.sentence and explorer.values == before  # a still moves nothing
    for wrong in (dict(query=99), dict(way="best"), dict(l1=11), dict(l1="5"), dict(quest=1)):
        with pytest.raises(NanodetrError, match="quer|way|l1|quest"): explorer.set(**wrong)
    assert explorer.values == before
    explorer.set_state({"query": 5, "l1": 7})  # as a message of the browser does it
    assert (explorer.query, explorer.l1) == (5, 7)
    assert len(json.dumps(explorer.data)) < 100_000


@pytest.mark.weekly
def test_without_anywidget_and_for_large_models_python_draws(monkeypatch):
    val = ShapesDataset("val", n=2)
    args = load_snapshots()[:1], *zip(*(val[i] for i in range(2)))
    monkeypatch.setattr("nanodetr.explorers.core.can_be_live", lambda: False)
    assert isinstance(explore_matching(*args), nanodetr.explorers.Explorer)
    monkeypatch.setattr("nanodetr.explorers.core.can_be_live", lambda: True)
    many = (args[1] * 1500, args[2] * 1500)
    assert isinstance(explore_matching(args[0], *many), nanodetr.explorers.Explorer)  # too many numbers to travel


def moves_of(notebook):
    "(variables that the notebook shows as explorers, [(variable, line) of code in other cells that moves one of them])."
    shown, moved = {}, []
    cells = ["".join(cell["source"]) for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    trees = [ast.parse("\n".join(line for line in cell.splitlines() if not line.lstrip().startswith(("%", "!")))) for cell in cells]
    for k, tree in enumerate(trees):
        last = tree.body[-1] if tree.body else None
        if isinstance(last, ast.Expr) and isinstance(last.value, ast.Name) and re.search(rf"^{last.value.id} = explore_\w+\(", cells[k], re.M): shown[last.value.id] = k
    for k, tree in enumerate(trees):
        for node in (node for part in tree.body if not isinstance(part, (ast.FunctionDef, ast.ClassDef)) for node in ast.walk(part)):
            told = node.func if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "set" else None
            targets = node.targets if isinstance(node, ast.Assign) else []
            for place in [told, *targets]:
                while isinstance(place, (ast.Attribute, ast.Subscript)): place, inner = place.value, place
                if isinstance(place, ast.Name) and shown.get(place.id, k) != k and place is not (targets and targets[0]): moved.append((place.id, ast.unparse(inner)))
    return shown, moved


@pytest.mark.parametrize("notebook", sorted(path for path in (Path(__file__).parent.parent / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts), ids=lambda path: path.stem)
def test_run_all_leaves_explorers_where_they_opened(notebook):
    "What a notebook shows and proves below an explorer is drawn by `still`, or by an explorer of its own."
    assert not (moved := moves_of(notebook)[1]), f"these lines move an explorer that the reader sees: {moved}"


def test_moves_are_found(tmp_path):
    cells = ["explorer = explore_boxes()\nexplorer", "explorer.set(x=1)", "explorer.controls['x'].value = 2", "explorer.query = 3", "explorer.still(x=1).figure"]
    (tmp_path / "toy.ipynb").write_text(json.dumps({"cells": [{"cell_type": "code", "source": cell} for cell in cells]}))
    shown, moved = moves_of(tmp_path / "toy.ipynb")
    assert shown == {"explorer": 0} and len(moved) == 3
