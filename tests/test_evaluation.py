"Evaluation against pycocotools, against a VOC evaluator written line by line, and on fixtures (skipped where absent)."
import contextlib
import gc
import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanodetr.cli import main
from nanodetr.data import ShapesDataset
from nanodetr.errors import DataError, NanodetrError
from nanodetr.evaluation import (EvaluationError, average_precision, detection_kinds, error_breakdown, evaluate,
                                 evaluate_detections, load_coco_results, precision_recall)

NUMBERS = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()
FIXTURES = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "eval-fixtures"
fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"no fixtures in {FIXTURES}")


def scene(seed, images=7, classes=4, most=14, grid=True, crowds=0.15, score_steps=8):
    "Random detections and targets; on a grid, with equal scores and equal overlaps, or continuous."
    random = np.random.default_rng(seed)

    def boxes(n):
        corner = random.integers(0, 70, (n, 2)) if grid else random.uniform(0, 70, (n, 2))
        size = random.choice([0, 4, 16, 32, 40, 96, 130], (n, 2)) if grid else np.exp(random.uniform(1, 5, (n, 2)))
        return torch.tensor(np.concatenate([corner, corner + size], axis=1)).double().reshape(-1, 4)

    detections, targets = [], []
    for _ in range(images):
        n, m = random.integers(0, most // 2 + 1), random.integers(0, most + 1)
        truth = boxes(n)
        side = truth[:, 2:] - truth[:, :2]
        targets.append({"labels": torch.tensor(random.integers(0, classes, n)), "boxes": truth,
                        "area": side.prod(1) * torch.tensor(random.uniform(0.5, 1, n)),
                        "iscrowd": torch.tensor((random.random(n) < crowds).astype(int)),
                        "difficult": torch.tensor(random.random(n) < 0.2)})
        shift = random.integers(-4, 5, (m, 4)) if grid else random.normal(size=(m, 4)) * 4
        near = torch.cat([truth, boxes(3)])[random.integers(0, n + 3, m)] + torch.tensor(shift)
        near = torch.cat([near[:, :2], torch.maximum(near[:, :2], near[:, 2:])], dim=1)
        score = torch.tensor(random.integers(0, score_steps, m) / score_steps if grid else random.random(m))
        detections.append({"labels": torch.tensor(random.integers(0, classes, m)), "boxes": near, "scores": score})
    return detections, targets


def rows(items, **extra):
    "COCO's entries, one a box; extra: {their key: ours}."
    entries = []
    for i, item in enumerate(items):
        for k, (label, (x0, y0, x1, y1)) in enumerate(zip(item["labels"], item["boxes"].tolist())):
            more = {theirs: float(item[ours][k]) for theirs, ours in extra.items()}
            entries.append({"image_id": i, "category_id": int(label), "bbox": [x0, y0, x1 - x0, y1 - y0], **more})
    return entries


def write(folder, detections, targets, classes):
    truth = rows(targets, area="area", iscrowd="iscrowd")
    truth = [{**row, "id": i + 1, "iscrowd": int(row["iscrowd"])} for i, row in enumerate(truth)]
    categories = [{"id": k, "name": f"class {k}"} for k in range(classes)]
    images = [{"id": i} for i in range(len(targets))]
    (folder / "gt.json").write_text(json.dumps({"images": images, "annotations": truth, "categories": categories}))
    (folder / "dt.json").write_text(json.dumps(rows(detections, score="scores")))
    return folder / "gt.json", folder / "dt.json"


def pycocotools_numbers(gt_file, dt_file):
    coco, cocoeval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        gt = coco.COCO(str(gt_file))
        gt.dataset.setdefault("info", {})
        judge = cocoeval.COCOeval(gt, gt.loadRes(str(dt_file)), "bbox")
        judge.evaluate(), judge.accumulate(), judge.summarize()
    return judge


def check_equal(mine, judge, classes):
    for name, number in zip(NUMBERS, judge.stats): assert abs(mine[name] - number) < 1e-6, (name, mine[name], number)
    for k, name in enumerate(classes):
        precision = judge.eval["precision"][:, :, k, 0, 2]
        assert abs(mine["per_class"][name]["AP"] - (precision.mean() if (precision > -1).any() else -1)) < 1e-6
        assert abs(mine["per_class"][name]["AP50"] - (precision[0].mean() if (precision > -1).any() else -1)) < 1e-6


@pytest.mark.parametrize("grid", [True, False])
@pytest.mark.parametrize("block", range(10))
def test_equal_to_pycocotools_on_random_cases(block, grid, tmp_path):
    "Crowds, ties in scores and overlaps, empty images, missing classes, all areas: 20 cases a block, 400 in all."
    for seed in range(20 * block, 20 * block + 20):
        detections, targets = scene(seed, images=1 + seed % 9, classes=1 + seed % 5, grid=grid)
        classes = [str(k) for k in range(7)]
        if not sum(len(d["labels"]) for d in detections): continue  # pycocotools cannot load an empty list
        judge = pycocotools_numbers(*write(tmp_path, detections, targets, 7))
        check_equal(evaluate_detections(detections, targets, classes=classes), judge, classes)
        loaded, truth, names = load_coco_results(tmp_path / "gt.json", tmp_path / "dt.json")
        check_equal(evaluate_detections(loaded, truth, classes=names), judge, names)


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools_beyond_100_detections(seed, tmp_path):
    detections, targets = scene(seed, images=3, classes=2, most=700, score_steps=300, crowds=0.02)
    assert max(len(d["labels"]) for d in detections) > 250
    judge = pycocotools_numbers(*write(tmp_path, detections, targets, 2))
    check_equal(evaluate_detections(detections, targets, classes=["a", "b"]), judge, ["a", "b"])


@fixtures
def test_coco_fixture():
    folder = FIXTURES / "coco100"
    expected = json.loads((folder / "expected.json").read_text())
    files = folder / "instances_val2014_100.json", folder / "instances_val2014_fakebbox100_results.json"
    detections, targets, classes = load_coco_results(*files)
    mine = evaluate_detections(detections, targets, classes=classes)
    for name, number, official in zip(expected["order"], expected["pycocotools_2_0_11"], expected["official_3dp"]):
        assert abs(mine[name] - number) < 1e-6 and abs(mine[name] - official) < 6e-4
    check_equal(mine, pycocotools_numbers(*files), classes)


def voc_reference(detections, targets, label, iou, inclusive):
    "VOC's evaluator, one detection at a time: (recall, precision, objects that count)."
    listed = sorted((-float(d["scores"][k]), i, k) for i, d in enumerate(detections) for k in range(len(d["scores"]))
                    if d["labels"][k] == label)
    taken, hits, misses, curve = set(), 0, 0, []
    count = sum(int(((t["labels"] == label) & ~t["difficult"]).sum()) for t in targets)
    for _, i, k in listed:
        a, best, owner = detections[i]["boxes"][k].tolist(), -1.0, None
        for j, b in enumerate(targets[i]["boxes"].tolist()):
            if targets[i]["labels"][j] != label: continue
            w = min(a[2], b[2]) - max(a[0], b[0]) + inclusive
            h = min(a[3], b[3]) - max(a[1], b[1]) + inclusive
            if w <= 0 or h <= 0: continue
            area = lambda box: (box[2] - box[0] + inclusive) * (box[3] - box[1] + inclusive)
            value = w * h / (area(a) + area(b) - w * h)
            if value > best: best, owner = value, (i, j)
        if best >= iou and targets[i]["difficult"][owner[1]]: continue
        if best >= iou and owner not in taken: hits += 1; taken.add(owner)
        else: misses += 1
        curve.append((hits / count if count else 0, hits / (hits + misses)))
    return np.array(curve).reshape(-1, 2).T, count


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_voc_protocols(seed, inclusive):
    detections, targets = scene(seed, classes=3, crowds=0, grid=seed % 2 == 0)
    classes = ["a", "b", "c", "never"]
    for iou in (0.3, 0.5):
        old, new = (evaluate_detections(detections, targets, protocol, classes, [iou], inclusive=inclusive)
                    for protocol in ("voc2007", "voc2012"))
        curves, name = precision_recall(detections, targets, iou, "voc2012", classes, inclusive), f"AP{100 * iou:g}"
        for label, title in enumerate(classes):
            (recall, precision), count = voc_reference(detections, targets, label, iou, inclusive)
            if count == 0:
                assert old["per_class"][title][name] == new["per_class"][title][name] == -1 and title not in curves
                continue
            eleven = sum(max(precision[recall >= k / 10], default=0) for k in range(11)) / 11
            edges, heights = np.concatenate([[0], recall, [1]]), np.concatenate([precision, [0]])
            area = sum((b - a) * max(heights[k:]) for k, (a, b) in enumerate(zip(edges, edges[1:])))
            assert abs(old["per_class"][title][name] - eleven) < 1e-9
            assert abs(new["per_class"][title][name] - area) < 1e-9
            assert new["per_class"][title]["objects"] == count
            assert np.allclose(curves[title][0], recall) and np.allclose(curves[title][1], precision)
        defined = [row[name] for row in new["per_class"].values() if row[name] > -1]
        assert math.isclose(new[name], np.mean(defined) if defined else -1)


@fixtures
def test_voc_fixture():
    "Seven images, boxes with inclusive pixels; its eleven points are those of np.linspace."
    folder, detections, targets = FIXTURES / "voc-padilla", [], []
    for file in sorted((folder / "gts").iterdir()):
        truth, found = (torch.tensor([[float(x) for x in line.split()[1:]] for line in path.read_text().splitlines()])
                        for path in (file, folder / "dets" / file.name))
        corners = lambda xywh: torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)
        targets.append({"labels": torch.zeros(len(truth)), "boxes": corners(truth)})
        detections.append({"labels": torch.zeros(len(found)), "boxes": corners(found[:, 1:]), "scores": found[:, 0]})
    expected, ious = json.loads((folder / "expected.json").read_text()), [0.1, 0.3, 0.5, 0.75]
    area = evaluate_detections(detections, targets, "voc2012", ["object"], ious, inclusive=True)
    loose = evaluate_detections(detections, targets, "voc2007", ["object"], ious, np.linspace(0, 1, 11), inclusive=True)
    for iou in ious:
        assert abs(area[f"AP{100 * iou:g}"] - expected["all-point"][str(iou)]) < 1e-9
        assert abs(loose[f"AP{100 * iou:g}"] - expected["11-point"][str(iou)]) < 1e-9
    exact = evaluate_detections(detections, targets, "voc2007", ["object"], ious, inclusive=True)
    assert abs(exact["AP10"] - 0.3689064559) < 1e-9  # 9/15 does reach 0.6


def test_nothing_at_all():
    empty = {"labels": torch.zeros(0, dtype=torch.int64), "boxes": torch.zeros(0, 4)}
    found = {**empty, "scores": torch.zeros(0)}
    for protocol in ("coco", "voc2007", "voc2012"):
        for detections, targets in (([], []), ([found], [empty])):
            result = evaluate_detections(detections, targets, protocol, classes=["a"])
            assert result.pop("per_class")["a"]["AP50"] == -1 and set(result.values()) == {-1}
    box = torch.tensor([[0.0, 0, 9, 9]])
    wanted = {"labels": torch.zeros(1, dtype=torch.int64), "boxes": box}
    assert evaluate_detections([found], [wanted])["AP"] == 0
    assert evaluate_detections([{**wanted, "scores": torch.ones(1)}], [empty])["AP"] == -1
    assert average_precision([], [], "all-point") == 0


def test_numpy_lists_and_float32_work_too():
    detections, targets = scene(3)
    expected = evaluate_detections(detections, targets)
    lists = lambda items: [{key: value.tolist() for key, value in item.items()} for item in items]
    arrays = lambda items: [{key: value.numpy() for key, value in item.items()} for item in items]
    for change in (lists, arrays): assert evaluate_detections(change(detections), change(targets)) == expected


@pytest.mark.parametrize("change, message", [
    ({"scores": torch.tensor([float("nan")])}, "score that is not finite"),
    ({"boxes": torch.tensor([[0, 0, float("nan"), 1]])}, "box that is not finite"),
    ({"boxes": torch.tensor([[5.0, 5, 2, 2]])}, "xyxy"), ({"labels": torch.tensor([3])}, "label outside 0..1"),
    ({"labels": torch.tensor([-1])}, "label outside"), ({"scores": torch.ones(2)}, "1 labels but 2 scores")])
def test_bad_detections_are_named(change, message):
    good = {"labels": torch.tensor([0]), "boxes": torch.tensor([[0.0, 0, 1, 1]]), "scores": torch.ones(1)}
    with pytest.raises(EvaluationError, match=message) as error:
        evaluate_detections([good, {**good, **change}], [good, good], classes=["a", "b"])
    assert "detections 1" in str(error.value) and "\n" not in str(error.value)


def test_other_misuse():
    good = {"labels": torch.tensor([0]), "boxes": torch.tensor([[0.0, 0, 1, 1]]), "scores": torch.ones(1)}
    with pytest.raises(NanodetrError, match="one dict per image"): evaluate_detections([good], [good, good])
    with pytest.raises(NanodetrError, match="one dict per image"): error_breakdown([good], [good, good])
    with pytest.raises(EvaluationError, match="unknown protocol 'voc'"): evaluate_detections([good], [good], "voc")
    without = {key: value for key, value in good.items() if key != "scores"}
    with pytest.raises(EvaluationError, match="no 'scores'"): evaluate_detections([without], [good])


BROKEN = {"[1, 2": "broken JSON", "{}": "not a list", "[3]": "has no 'image_id'",
          '[{"image_id": 1}]': "has no 'category_id'",
          '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]': "has no 'score'",
          '[{"image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]': "image_id 9",
          '[{"image_id": 1, "category_id": [], "bbox": [1, 2, 3, 4], "score": 1}]': "category_id",
          '[{"image_id": 1, "category_id": 8, "bbox": [1, 2, 3, 4], "score": 1}]': "category_id 8",
          '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3], "score": 1}]': "bbox",
          '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, -3, 4], "score": 1}]': "bbox",
          '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, NaN, 4], "score": 1}]': "bbox",
          '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": NaN}]': "score nan",
          '[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": "high"}]': "score 'high'",
          "[" * 100_000: "JSON"}


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_broken_results_files(number, tmp_path):
    text, message = list(BROKEN.items())[number]
    gt, dt = tmp_path / "gt.json", tmp_path / "dt.json"
    gt.write_text(json.dumps({"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}))
    dt.write_text(text)
    with pytest.raises(DataError) as error: load_coco_results(gt, dt)
    assert message in str(error.value) and str(dt) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("odd", [None, {"iscrowd": True}, {"iscrowd": None}, {"area": None}, {"bbox": None}])
def test_columns_and_entries_are_read_alike(odd, tmp_path, monkeypatch):
    "Files of plain numbers are read a column at a time, others an entry at a time: the same numbers, or the same complaint."
    from nanodetr.datasets import coco
    from nanodetr.errors import DataError
    truth = {"images": [{"id": 9}, {"id": 4}, {"id": 7}], "categories": [{"id": 3, "name": "b"}, {"id": 1, "name": "a"}],
             "annotations": [{"id": k, "image_id": (9, 4)[k % 2], "category_id": (1, 3)[k % 2], "bbox": [k, 2.5, 3, 4], "iscrowd": k % 2} for k in range(5)]}
    truth["annotations"][3].update(odd or {"area": 7})
    found = [{"image_id": 7, "category_id": 3, "bbox": [1, 2, 0, 4], "score": 1}, {"image_id": 4, "category_id": 1, "bbox": [1.5, 2, 3, 4], "score": 0.25}]
    for name, content in (("gt.json", truth), ("dt.json", found)): (tmp_path / name).write_text(json.dumps(content))

    def read():
        try: return coco.read_coco_results(tmp_path / "gt.json", tmp_path / "dt.json")
        except DataError as error: return str(error)

    def refuse(*_): raise ValueError

    first = read()
    monkeypatch.setattr(coco, "plain_columns", refuse)
    second = read()
    assert type(first) is type(second) and (type(first) is str) == (odd == {"bbox": None})
    if type(first) is str: assert first == second and "annotation 3" in first
    else:
        assert first[2] == second[2] == ["a", "b"]
        for a, b in zip([*first[0], *first[1]], [*second[0], *second[1]], strict=True):
            assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)


@pytest.mark.parametrize("change, says", [({"area": None}, ""), ({"area": "12"}, ""), ({"bbox": [9, 2, -3, 4]}, "dropped 1 box(es) of a negative size, the first is annotation 1 (id 8)")], ids=str)
def test_annotations_that_training_takes_are_evaluated(change, says, tmp_path, recwarn):
    "What is no area is the box's, and a box of a negative size is dropped, as `check` and `train` say."
    truth = {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}],
             "annotations": [{"id": 7 + k, "image_id": 1, "category_id": 1, "bbox": [9 * k, 2, 3, 4], "area": 11} for k in range(2)]}
    truth["annotations"][1].update(change)
    (tmp_path / "gt.json").write_text(json.dumps(truth)), (tmp_path / "dt.json").write_text("[]")
    target = load_coco_results(tmp_path / "gt.json", tmp_path / "dt.json")[1][0]
    assert target["area"].tolist() == ([11] if says else [11, 12]) and target["boxes"].tolist() == [[0, 2, 3, 6], [9, 2, 12, 6]][:len(target["area"])]
    assert [says in str(warning.message) for warning in recwarn] == [True] * bool(says)


@pytest.mark.parametrize("text", ["[]", "[{]", "[1, 2]"])
@pytest.mark.parametrize("was_on", [True, False])
def test_the_garbage_collector_is_left_as_it_was(text, was_on, tmp_path):
    "Reading rests the collector, and gives it back: after a file that was refused, too, and to a caller who had turned it off."
    (tmp_path / "gt.json").write_text(json.dumps({"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}))
    (tmp_path / "dt.json").write_text(text)
    (gc.enable if was_on else gc.disable)()
    try:
        with contextlib.suppress(DataError): load_coco_results(tmp_path / "gt.json", tmp_path / "dt.json")
        assert gc.isenabled() == was_on
    finally: gc.enable()


@pytest.mark.parametrize("change, said", [
    (lambda image, target: ((255 * image).byte(), target), r"uint8 values 0\.\.255: floats in 0\.\.1"), (lambda image, target: (255 * image, target), r"float32 values .*divide bytes by 255"),
    (lambda image, target: (image, {**target, "boxes": 64 * target["boxes"]}), "fractions of the picture .* not pixels")])
def test_evaluate_refuses_what_would_look_like_a_bad_model(change, said):
    "Pictures in 0..255 and boxes in pixels gave a low AP, and not a word."
    from nanodetr.model import DETR
    shapes = ShapesDataset("val", n=3)

    class Changed:
        classes = shapes.classes
        def __len__(self): return 3
        def __getitem__(self, i): return change(*shapes[i])

    with pytest.raises(EvaluationError, match=said): evaluate(DETR.from_pretrained("nano-shapes"), Changed(), progress=False)


def test_evaluate_compares_the_names_of_the_classes():
    from nanodetr.model import DETR
    model, shapes = DETR.from_pretrained("nano-shapes"), ShapesDataset("val", n=3)
    shapes.classes = shapes.classes[::-1]
    with pytest.raises(EvaluationError, match="the model's classes are rectangle, .* and the data set's are cross, "): evaluate(model, shapes, progress=False)


def test_broken_annotation_files(tmp_path):
    gt, dt = tmp_path / "gt.json", tmp_path / "dt.json"
    dt.write_text("[]")
    good = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    namesakes = [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]
    for change, message in (({"images": None}, "'images'"), ({"images": [{"id": 1}, {"id": 1}]}, "twice"),
                            ({"categories": [{}]}, "integer 'id'"), ({"categories": namesakes}, "same name"),
                            ({"annotations": [{}]}, "annotation 0")):
        gt.write_text(json.dumps({**good, **change}))
        with pytest.raises(DataError, match=message): load_coco_results(gt, dt)
    with pytest.raises(DataError, match="cannot be read"): load_coco_results(tmp_path / "absent.json", dt)
    gt.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match="not a JSON text file"): load_coco_results(gt, dt)
    gt.write_text(json.dumps(good))
    detections, targets, classes = load_coco_results(gt, dt)
    assert classes == ["a"] and len(detections) == len(targets) == 1
    assert evaluate_detections(detections, targets, classes=classes)["AP"] == -1


def test_error_breakdown_kinds():
    objects = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 90, 30]])
    target = {"labels": torch.tensor([0, 0, 1, 0]), "boxes": objects, "iscrowd": torch.tensor([0, 0, 0, 1])}
    cases = [((0, 0, 10, 10), 0, 0.9, "correct"), ((0, 1, 10, 11), 0, 0.8, "duplicate"),
             ((26, 0, 36, 10), 0, 0.7, "localisation"), ((40, 0, 50, 10), 0, 0.95, "class"),
             ((70, 70, 80, 80), 1, 0.6, "background"), ((65, 5, 70, 10), 0, 0.99, "ignored"),
             ((20, 0, 30, 10), 0, 0.4, "dropped")]
    boxes, labels, scores, words = zip(*cases)
    detection = {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels), "scores": torch.tensor(scores)}
    kinds, missed = detection_kinds(detection, target, threshold=0.5)
    assert kinds == list(words) and missed.tolist() == [False, True, True, False]
    counts = {"correct": 1, "localisation": 1, "class": 1, "duplicate": 1, "background": 1, "missed": 2}
    assert error_breakdown([detection], [target]) == counts
    assert error_breakdown([detection], [target], threshold=0.3)["missed"] == 1


@pytest.mark.parametrize("seed", range(30))
def test_error_breakdown_adds_up(seed):
    detections, targets = scene(seed, crowds=0)
    for target in targets: target["difficult"][:] = False
    counts = error_breakdown(detections, targets, threshold=0.25)
    kept = sum(int((d["scores"] >= 0.25).sum()) for d in detections)
    assert sum(counts.values()) - counts["missed"] == kept
    assert counts["correct"] + counts["missed"] == sum(len(t["labels"]) for t in targets)


class Answers(torch.nn.Module):
    "Gives prepared answers in order."

    def __init__(self, answers, classes):
        super().__init__()
        self.answers, self.classes, self.modes = iter(answers), classes, []

    def forward(self, images, mask):
        from nanodetr.model import DETROutput
        self.modes.append(self.training)
        logits, boxes = torch.zeros(len(images), 5, self.classes + 1), torch.rand(len(images), 5, 4)
        logits[..., -1] = 9
        for i, target in zip(range(len(images)), self.answers):
            n = len(target["labels"])
            boxes[i, :n], logits[i, :n, -1] = target["boxes"], 0
            logits[i, range(n), target["labels"]] = 9
        return DETROutput(logits, boxes)


class Pictures:
    "A data set of pictures of different sizes, with or without get_target."
    classes = ["a", "b", "c"]

    def __init__(self, crowd=False):
        random = torch.Generator().manual_seed(0)
        self.items = []
        for i, (h, w) in enumerate([(40, 60), (50, 30), (64, 64), (20, 90), (33, 47)]):
            n = i % 4
            boxes = torch.rand(n, 4, generator=random) * 0.3 + torch.tensor([0.3, 0.3, 0.1, 0.1])
            target = {"labels": torch.randint(3, (n,), generator=random), "boxes": boxes, "image_id": i,
                      "orig_size": torch.tensor([h, w]), "area": boxes[:, 2] * boxes[:, 3] * h * w}
            self.items.append((torch.rand(3, 2 * h, 2 * w), target))

    def __len__(self): return len(self.items)
    def __getitem__(self, i): return self.items[i]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_evaluate_a_perfect_model(batch_size):
    data = Pictures()
    model = Answers([target for _, target in data.items], 3)
    assert evaluate(model, data, batch_size=batch_size, progress=False)["AP"] == 1
    assert model.training and not any(model.modes)
    model = Answers([target for _, target in data.items], 3).eval()
    assert evaluate(model, data, "voc2012", batch_size=batch_size, progress=False)["AP50"] == 1 and not model.training


def test_evaluate_prefers_get_target_and_rejects_emptiness():
    data = Pictures()
    data.get_target = lambda i: {"labels": torch.tensor([0]), "boxes": torch.tensor([[0.0, 0, 1, 1]])}
    result = evaluate(Answers([target for _, target in data.items], 3), data, progress=False)
    assert result["per_class"]["a"]["objects"] == len(data) and result["AP"] == 0
    data.items = []
    with pytest.raises(EvaluationError, match="empty"): evaluate(Answers([], 3), data, progress=False)


# --- how sure, what is confused, how much memory

def drawn_set(seed, images=8, classes=3):
    "A scene whose scores are all different."
    detections, targets = scene(seed, images=images, classes=classes, grid=False)
    return detections, targets


@pytest.mark.parametrize("protocol", ["coco", "voc2007", "voc2012"])
def test_intervals_are_those_of_really_drawn_sets(protocol):
    from nanodetr.evaluation import PROTOCOLS, RECALL_POINTS
    from nanodetr.metrics.intervals import bootstrap, draw_images, score_intervals
    from nanodetr.metrics.matches import match_detections

    for seed in range(4):
        detections, targets = drawn_set(seed)
        names = ["a", "b", "c"]
        matches = match_detections(detections, targets, protocol, names)
        fast, slow = bootstrap(matches, RECALL_POINTS.get(PROTOCOLS[protocol]), 30, seed), []
        for b, counts in enumerate(draw_images(len(targets), 30, seed)):
            chosen = np.repeat(np.arange(len(counts)), counts)
            scores = evaluate_detections([detections[i] for i in chosen], [targets[i] for i in chosen], protocol, names)
            slow.append(scores["AP50"])
            for k, name in enumerate(names):
                assert abs(scores["per_class"][name]["AP50"] - (-1 if np.isnan(fast[b, k, 0]) else fast[b, k, 0])) < 1e-12
        low, high = score_intervals(matches, RECALL_POINTS.get(PROTOCOLS[protocol]), 30, seed)["AP50"]
        defined = [score for score in slow if score > -1]
        assert math.isclose(low, np.quantile(defined, 0.025)) and math.isclose(high, np.quantile(defined, 0.975))


def test_intervals_in_blocks_are_the_same(monkeypatch):
    from nanodetr.metrics import intervals
    from nanodetr.metrics.matches import match_detections

    matches = match_detections(*drawn_set(1), classes=["a", "b", "c"])
    whole = intervals.bootstrap(matches, None, 40)
    monkeypatch.setattr(intervals, "NUMBERS_AT_ONCE", 100)
    assert np.array_equal(whole, intervals.bootstrap(matches, None, 40), equal_nan=True)
    assert not np.array_equal(whole, intervals.bootstrap(matches, None, 40, seed=1), equal_nan=True)


@pytest.mark.parametrize("protocol", ["coco", "voc2012"])
def test_blocks_of_pairs_change_nothing(protocol, monkeypatch):
    from nanodetr.metrics import matches

    for seed in range(12):
        detections, targets = scene(seed)
        whole = matches.match_detections(detections, targets, protocol)
        monkeypatch.setattr(matches, "PAIRS_AT_ONCE", 5)
        small = matches.match_detections(detections, targets, protocol)
        monkeypatch.undo()
        assert np.array_equal(whole.status, small.status) and np.array_equal(whole.ignored, small.ignored)


def test_memory_stays_small_in_a_crowd():
    "5,000 detections against 1,000 objects in one image, 5 million pairs (440 MB at once): evaluated, broken down and tabulated in less than 300 MB."
    import tracemalloc

    from nanodetr.metrics.confusion import confusion_matrix
    random = np.random.default_rng(0)

    def crowd(n, **more):
        corner = random.uniform(0, 4000, (n, 2))
        return [{"labels": np.zeros(n, int), "boxes": np.concatenate([corner, corner + random.uniform(10, 60, (n, 2))], 1), **more}]

    detections, targets = crowd(5_000, scores=random.random(5_000)), crowd(1_000)
    tracemalloc.start()
    try:
        for protocol in ("coco", "voc2012"): evaluate_detections(detections, targets, protocol, ["car"])
        error_breakdown(detections, targets, threshold=0.9), confusion_matrix(detections, targets, 1, threshold=0.9)
        assert tracemalloc.get_traced_memory()[1] < 300e6
    finally: tracemalloc.stop()


@settings(max_examples=10_000 if os.environ.get("NANODETR_FUZZ") else 40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(1, 6), classes=st.integers(1, 4), most=st.integers(1, 30), grid=st.booleans(), crowds=st.sampled_from([0, 0.3, 1]),
       steps=st.sampled_from([1, 3, 50]))
def test_any_scene_is_judged_as_by_pycocotools(seed, images, classes, most, grid, crowds, steps, tmp_path):
    "And what is written is read back: the same numbers from the files. NANODETR_FUZZ: 10,000 scenes."
    detections, targets = scene(seed, images, classes, most, grid, crowds, steps)
    if not sum(len(d["labels"]) for d in detections): return
    names = [f"class {k}" for k in range(classes)]
    judge = pycocotools_numbers(*write(tmp_path, detections, targets, classes))
    check_equal(evaluate_detections(detections, targets, classes=names), judge, names)
    check_equal(evaluate_detections(*(loaded := load_coco_results(tmp_path / "gt.json", tmp_path / "dt.json"))[:2], classes=loaded[2]), judge, names)


@settings(max_examples=10_000 if os.environ.get("NANODETR_FUZZ") else 60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 4), threshold=st.sampled_from([0.0, 0.3, 0.9]))
def test_the_table_of_confusions_adds_up(seed, classes, threshold):
    from nanodetr.metrics.confusion import confusion_matrix

    detections, targets = scene(seed, classes=classes, crowds=0)
    for target in targets: target["difficult"][:] = False
    table = confusion_matrix(detections, targets, classes, threshold)
    labels, kept = (torch.cat(parts) for parts in ([t["labels"] for t in targets], [d["labels"][d["scores"] >= threshold] for d in detections]))
    assert table[:classes].sum(1).tolist() == torch.bincount(labels, minlength=classes).tolist()
    assert table[:, :classes].sum(0).tolist() == torch.bincount(kept, minlength=classes).tolist() and table[-1, -1] == 0
    assert np.trace(table) == error_breakdown(detections, targets, threshold)["correct"]


@pytest.mark.parametrize("change, hint", [
    (lambda row, size: {}, ""),
    (lambda row, size: [{}, {"category_id": 3 - row["category_id"], "score": 0.1}], ""),  # every class for each box, the right one first
    (lambda row, size: [{"score": 0.1, "bbox": [x + 150, y + 150, 9, 9]} for x, y in ((0, 0), (30, 9), (60, 20))], ""),  # a weak model at threshold 0
    (lambda row, size: {"bbox": [x / s for x, s in zip(row["bbox"], size * 2)]}, "look like fractions of the picture"),
    (lambda row, size: {"bbox": [*row["bbox"][:2], row["bbox"][0] + row["bbox"][2], row["bbox"][1] + row["bbox"][3]]}, "look like x0, y0, x1, y1"),
    (lambda row, size: {"image_id": 3 - row["image_id"]}, "0 of its boxes meet a true one"),
    (lambda row, size: {"category_id": 3 - row["category_id"]}, "0 one of their category: check that its image ids and category ids"),
])
def test_results_that_mean_something_else(change, hint, tmp_path, capsys):
    "Well-formed files whose scores would be near zero for no fault of the detector: a note says what they look like."
    images = [{"id": k, "file_name": f"{k}.jpg", "width": 640, "height": 480} for k in (1, 2)]
    boxes = [(1, 1, [30, 40, 60, 70]), (1, 2, [300, 200, 80, 90]), (2, 2, [400, 300, 100, 60]), (2, 1, [500, 20, 50, 80])]
    rows = [{"image_id": image, "category_id": category, "bbox": box, "score": 0.9, "area": box[2] * box[3], "iscrowd": 0, "id": k} for k, (image, category, box) in enumerate(boxes)]
    (tmp_path / "gt.json").write_text(json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cup"}, {"id": 2, "name": "spoon"}]}))
    (tmp_path / "dt.json").write_text(json.dumps([{**row, **one} for row in rows for one in np.atleast_1d(change(row, (640, 480)))]))
    assert main(["evaluate", "--detections", str(tmp_path / "dt.json"), "--annotations", str(tmp_path / "gt.json"), "--draws", "0"]) == 0
    said = capsys.readouterr().err
    assert ("dt.json: " in said) == bool(hint) and hint in said
