"Data: what cannot be shown in the notebook. Bad input, round trips, properties, and real folders where they exist."
import hashlib
import json
import math
import os
import pickle
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from nanodetr.boxes import cxcywh_to_xyxy, pairwise_iou, xyxy_to_cxcywh
from nanodetr.data import (LEVELS, SPLITS, VOC_CLASSES, Augment, CocoDataset, DataError, Dihedral, PhotoDataset, RandomSizeCrop, ShapesDataset,
                           Stream, VOCDataset, box_fault, check_dataset, collate, drop_objects, image_size, light_augment,
                           open_dataset, paper_augment, read_image)
from nanodetr.datasets.coco import coco_annotations, read_coco_results
from nanodetr.datasets.voc import write_voc

REAL = Path(os.environ.get("NANODETR_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


# ---------------------------------------------------------------- shapes

FINGERPRINTS = {("easy", 64): "af2b15b567115c66", ("hard", 64): "55fd0203419c47c4"}


@pytest.mark.parametrize("level, size", FINGERPRINTS)
def test_the_first_pictures_are_the_same_on_every_machine(level, size):
    data = ShapesDataset(level=level, size=size)
    pixels = b"".join(data._draw(i)[0].numpy().tobytes() for i in range(16))
    assert hashlib.sha256(pixels).hexdigest()[:16] == FINGERPRINTS[level, size]


PRINTS_OF_ALL = {("easy", "train"): "e0b37ee714d57ef9", ("easy", "val"): "cb732ba830a3cfa4", ("easy", "test"): "37c5f845716964c7",
                 ("hard", "train"): "23c5715bfad574b5", ("hard", "val"): "c5e5f0a31c4322eb", ("hard", "test"): "8034d318e35e46cc"}


@pytest.mark.parametrize("level, split", PRINTS_OF_ALL)
def test_pixels_labels_and_boxes_of_all_splits(level, split):
    data, found = ShapesDataset(split, level=level, n=100), hashlib.sha256()
    for i in range(100):
        image, target, boxes = data._draw(i)
        for part in (image, target["labels"], target["boxes"], boxes): found.update(part.numpy().tobytes())
    assert found.hexdigest()[:16] == PRINTS_OF_ALL[level, split]


def test_pictures_do_not_depend_on_the_number_or_the_order():
    one, other = ShapesDataset(n=5), ShapesDataset(n=4000)
    other[17]
    for i in (4, 0, 2):
        (a, ta), (b, tb) = one[i], other[i]
        assert torch.equal(a, b) and all(torch.equal(torch.as_tensor(ta[k]), torch.as_tensor(tb[k])) for k in ta)


def test_seeds_splits_levels_and_sizes_give_different_pictures():
    sets = [ShapesDataset(s, seed=k, level=level) for s in SPLITS for k in (0, 1) for level in LEVELS]
    prints = {data[i][0].numpy().tobytes() for data in sets for i in range(20)}
    assert len(prints) == 20 * len(sets)
    assert [len(ShapesDataset(s)) for s in SPLITS] == [6000, 500, 500]


def test_another_process_draws_the_same():
    code = "from nanodetr.data import *; import hashlib; print(hashlib.sha256(ShapesDataset('val', 96, level='hard')[3][0].numpy()).hexdigest())"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert there == hashlib.sha256(ShapesDataset("val", 96, level="hard")[3][0].numpy()).hexdigest()


@pytest.mark.parametrize("level", LEVELS)
def test_targets_are_well_formed(level):
    data = ShapesDataset("val", level=level)
    counts = torch.zeros(len(data.classes))
    sizes = []
    for i in range(len(data)):
        image, t = data[i]
        n = len(t["labels"])
        assert image.shape == (3, 64, 64) and image.dtype == torch.float32 and 0 <= image.min() and image.max() <= 1
        assert t["boxes"].shape == (n, 4) and t["boxes"].dtype == torch.float32 and t["labels"].dtype == torch.int64
        assert t["area"].shape == t["iscrowd"].shape == (n,) and t["image_id"] == i and t["orig_size"].tolist() == [64, 64]
        corners = cxcywh_to_xyxy(t["boxes"])
        assert (corners >= -1e-6).all() and (corners <= 1 + 1e-6).all() and (t["boxes"][:, 2:] > 0.05).all()
        truth = data.get_target(i)
        assert torch.allclose(truth["boxes"], corners * 64, atol=1e-4) and torch.equal(truth["labels"], t["labels"])
        counts += t["labels"].bincount(minlength=len(data.classes))
        sizes.append(n)
    assert counts.min() > 0.7 * counts.mean()
    assert max(sizes) == LEVELS[level]["most"] and 0.005 < sizes.count(0) / len(sizes) < 0.08


@pytest.mark.parametrize("level", LEVELS)
def test_boxes_overlap_by_a_third_at_most(level):
    data = ShapesDataset("val", level=level)
    for i in range(500):
        boxes = data.get_target(i)["boxes"]
        for a in range(len(boxes)):
            for b in range(a):
                inter = (torch.minimum(boxes[a, 2:], boxes[b, 2:]) - torch.maximum(boxes[a, :2], boxes[b, :2])).clamp(min=0).prod()
                smaller = min((x[2:] - x[:2]).prod() for x in (boxes[a], boxes[b]))
                assert inter <= 0.351 * smaller  # a third, give or take a quarter of a pixel


def test_drawn_boxes_are_tight_and_objects_stay_visible(monkeypatch):
    "Recorded while drawing: the tight box is that of the covered pixels, and no object loses more than a third of them."
    import nanodetr.datasets.shapes as module
    for level in LEVELS:
        drawn, claimed = [], []
        cover, claim = module.shape_coverage, module.claim_pixels

        def record_cover(*arguments):
            drawn.append(cover(*arguments))
            return drawn[-1]

        def record_claim(owner, solid, near, number):
            done = claim(owner, solid, near, number)
            if done: claimed.append((drawn[-1], number))
            return done
        monkeypatch.setattr(module, "shape_coverage", record_cover)
        monkeypatch.setattr(module, "claim_pixels", record_claim)
        for i in range(150):
            claimed.clear()
            _, labels, boxes = module.draw_shapes(Stream(5, 0, 0, 64, i), 64, level)
            assert len(claimed) == len(boxes)
            owner = np.zeros((64, 64), int)
            for (count, x0, y0, _), number in claimed:
                owner[y0:y0 + count.shape[0], x0:x0 + count.shape[1]][2 * count >= 16] = number
            for ((count, x0, y0, _), number), (left, top, right, bottom) in zip(claimed, boxes):
                assert (owner == number).sum() >= 2 / 3 * (2 * count >= 16).sum()
                rows, columns = count.nonzero()
                assert int(left) == x0 + columns.min() and int(np.ceil(right)) == x0 + columns.max() + 1
                assert int(top) == y0 + rows.min() and int(np.ceil(bottom)) == y0 + rows.max() + 1
        monkeypatch.undo()


@pytest.mark.parametrize("level", LEVELS)
def test_objects_stand_out(level):
    "In the middle half of a box, the commonest colour differs from that of the frame round the picture."
    data, weak, all_boxes = ShapesDataset("val", size=128, level=level), 0, 0
    for i in range(120):
        image, t = data[i]
        corners = torch.stack([image[:, y, x] for x in (1, -2) for y in (1, -2)])
        for (cx, cy, w, h), label in zip((t["boxes"] * 128).tolist(), t["labels"].tolist()):
            if data.classes[label] == "ring": continue  # its middle is the background
            centre = image[:, int(cy - 2):int(cy + 3), int(cx - 2):int(cx + 3)].flatten(1).median(1).values
            weak += int((corners - centre).norm(dim=1).min() < 0.2)
            all_boxes += 1
    assert weak / all_boxes < 0.05


def test_drawing_is_fast():
    data = ShapesDataset(level="hard")
    start = time.process_time()
    for i in range(200): data[i]
    assert (time.process_time() - start) / 200 < 0.006  # 0.6 ms on an idle core; generous for a busy one


def test_items_may_be_changed_without_harm():
    data = ShapesDataset(n=3)
    image, target = data[1]
    before = target["boxes"].clone()
    image.zero_(), target["boxes"].zero_(), data.get_target(1)["boxes"].zero_()
    assert torch.equal(data[1][1]["boxes"], before) and data[1][0].sum() > 0 and data.get_target(1)["boxes"].sum() > 0


def test_a_loader_with_workers_and_pickling():
    data = ShapesDataset(n=8, transforms=Dihedral())
    assert len(pickle.loads(pickle.dumps(data))) == 8
    images, mask, targets = next(iter(torch.utils.data.DataLoader(data, 8, collate_fn=collate, num_workers=1)))
    assert images.shape == (8, 3, 64, 64) and mask is None and len(targets) == 8
    with pytest.raises(IndexError): data[8]
    assert torch.equal(ShapesDataset(n=8)[-1][0], ShapesDataset(n=8)[7][0])


@pytest.mark.parametrize("wrong", [dict(split="trial"), dict(level="medium"), dict(size=8), dict(n=0), dict(seed=-1)])
def test_shapes_refuse_nonsense(wrong):
    with pytest.raises(DataError, match=str(list(wrong.values())[0])): ShapesDataset(**wrong)


# ---------------------------------------------------------------- transforms and collate

@st.composite
def scenes(draw):
    "An image of random size whose objects are filled rectangles, one grey a label, none touching another; labels in order."
    height, width, n = draw(st.integers(24, 90)), draw(st.integers(24, 90)), draw(st.integers(0, 3))
    image, corners = torch.zeros(3, height, width), []
    for k in range(n):  # one to a vertical strip
        low, high = k * width // n, (k + 1) * width // n - 1
        x0 = draw(st.integers(low, high - 1)); x1 = draw(st.integers(x0 + 1, high))
        y0 = draw(st.integers(0, height - 1)); y1 = draw(st.integers(y0 + 1, height))
        image[:, y0:y1, x0:x1] = (k + 1) / 4
        corners.append([x0, y0, x1, y1])
    boxes = xyxy_to_cxcywh(torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)) / torch.tensor([width, height, width, height])
    area = (torch.tensor(corners).reshape(-1, 4)[:, 2:] - torch.tensor(corners).reshape(-1, 4)[:, :2]).prod(1).float()
    return image, {"labels": torch.arange(n), "boxes": boxes, "image_id": 4, "orig_size": torch.tensor([height, width]),
                   "area": area, "iscrowd": torch.arange(n) % 2, "difficult": torch.arange(n) == 1}


def found(image, label):
    "The xyxy box of a label's grey, or None."
    rows, columns = ((image[0] - (label + 1) / 4).abs() < 0.02).nonzero().T
    return None if len(rows) == 0 else torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()


@given(scenes(), st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_dihedral_moves_boxes_with_pixels(scene, seed):
    image, target = scene
    torch.manual_seed(seed)
    out, moved = Dihedral()(image, target)
    h, w = out.shape[-2:]
    assert torch.equal(moved["labels"], target["labels"]) and moved["boxes"].shape == target["boxes"].shape
    assert torch.allclose(moved["boxes"][:, 2:].prod(1), target["boxes"][:, 2:].prod(1), atol=1e-6)
    for box, label in zip(cxcywh_to_xyxy(moved["boxes"]) * torch.tensor([w, h, w, h]), moved["labels"]):
        assert torch.allclose(box, found(out, label), atol=1e-3)


def test_dihedral_reaches_all_eight():
    image, target = torch.rand(3, 8, 8), {"boxes": torch.rand(2, 4)}
    assert len({Dihedral()(image, target)[0].contiguous().numpy().tobytes() for _ in range(200)}) == 8


@given(scenes(), st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_crops_keep_everything_aligned(scene, seed):
    image, target = scene
    torch.manual_seed(seed)
    out, moved = Augment(v2.RandomHorizontalFlip(), RandomSizeCrop(10, 60))(image, target)
    h, w = out.shape[-2:]
    left = moved["labels"].tolist()
    assert moved["size"].tolist() == [h, w] and moved["image_id"] == 4 and torch.equal(moved["orig_size"], target["orig_size"])
    for name in ("area", "iscrowd", "difficult"): assert torch.equal(moved[name], target[name][left])
    for label in range(len(target["labels"])): assert (label in left) == (found(out, label) is not None)
    for box, label in zip(cxcywh_to_xyxy(moved["boxes"]) * torch.tensor([w, h, w, h]), left):
        assert torch.allclose(box, found(out, label), atol=1e-3)


def test_a_cut_along_an_edge_leaves_no_sliver():
    "Box edges are fractions, so that a cut at a box's last row leaves 1e-6 pixels of it: not an object."
    for height in (38, 61, 375):
        rows = torch.arange(height - 1.0)
        boxes = torch.stack([torch.full_like(rows, 0.5), (rows + 0.5) / height, torch.full_like(rows, 0.2), torch.full_like(rows, 1 / height)], dim=1)
        for k in range(0, height - 1, 7):
            target = {"labels": torch.arange(height - 1), "boxes": boxes}
            cut = Augment(lambda image, corners: (F.crop(image, k, 0, height - k, 20), F.crop(corners, k, 0, height - k, 20)))
            assert cut(torch.rand(3, height, 20), target)[1]["labels"].tolist() == list(range(k, height - 1))


@given(scenes(), st.integers(0, 10**6), st.sampled_from([light_augment(40), light_augment(48, 48), light_augment(40, train=False)]))
@settings(max_examples=60, deadline=None)
def test_light_augment_gives_valid_targets(scene, seed, augment):
    torch.manual_seed(seed)
    out, moved = augment(*scene)
    n = len(moved["labels"])
    assert type(out) is torch.Tensor and type(moved["boxes"]) is torch.Tensor and out.dtype == torch.float32
    assert moved["boxes"].shape == (n, 4) and len(moved["area"]) == len(moved["iscrowd"]) == n
    corners = cxcywh_to_xyxy(moved["boxes"])
    assert (corners > -1e-5).all() and (corners < 1 + 1e-5).all() and (moved["boxes"][:, 2:] > 0).all()


def test_paper_sizes():
    example = torch.rand(3, 300, 500), {"labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 1.0, 1.0]]),
                                        "area": torch.tensor([1.0]), "iscrowd": torch.tensor([0])}
    image, target = paper_augment(train=False)(*example)
    assert image.shape == (3, 800, 1333)
    assert torch.allclose(target["boxes"], example[1]["boxes"])
    torch.manual_seed(0)
    shapes = [paper_augment()(*example)[0].shape[-2:] for _ in range(12)]
    assert all(max(s) <= 1333 and min(s) <= 800 for s in shapes) and len(set(shapes)) > 4
    wide = paper_augment(train=False)(torch.rand(3, 100, 400), example[1])[0]
    assert wide.shape == (3, 333, 1332)  # the short side is rounded first, and the long one follows: the official code's 1332


def test_a_square_limit_for_the_light_one():
    empty = {"labels": torch.zeros(0).long(), "boxes": torch.zeros(0, 4), "area": torch.zeros(0), "iscrowd": torch.zeros(0).long()}
    for train in (True, False):
        image, target = light_augment(64, 64, train)(torch.rand(3, 50, 80), empty)
        assert max(image.shape) <= 65 and len(target["labels"]) == 0
    with pytest.raises(DataError, match="max_size 32"): light_augment(64, 32)


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=5))
@settings(max_examples=80, deadline=None)
def test_collate_pads_bottom_right(sizes):
    images, mask, targets = collate([(torch.rand(3, h, w) + 0.1, {"labels": i}) for i, (h, w) in enumerate(sizes)])
    assert images.shape[-2:] == (max(h for h, _ in sizes), max(w for _, w in sizes)) and (mask is None) == (len(set(sizes)) == 1)
    if mask is None: mask = torch.zeros(len(sizes), *images.shape[-2:], dtype=torch.bool)  # one size: nothing is padded
    for i, (h, w) in enumerate(sizes):
        assert not mask[i, :h, :w].any() and (~mask[i]).sum() == h * w and (images[i][:, mask[i]] == 0).all()
        assert (images[i, :, :h, :w] > 0).all() and targets[i]["labels"] == i


def test_drop_objects_leaves_the_rest():
    target = {"labels": torch.arange(3), "boxes": torch.rand(3, 4), "orig_size": torch.tensor([4, 5]), "image_id": 3}
    kept = drop_objects(target, torch.tensor([True, False, True]))
    assert kept["labels"].tolist() == [0, 2] and kept["orig_size"].tolist() == [4, 5] and kept["image_id"] == 3


# ---------------------------------------------------------------- VOC and COCO folders made here

def voc_xml(objects, size=(40, 60)):
    "objects: (name, (xmin, ymin, xmax, ymax), difficult)."
    text = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>" if size else ""
    for name, (x0, y0, x1, y1), difficult in objects:
        text += (f"<object><name>{name}</name><difficult>{int(difficult)}</difficult><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
                 f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox><part><name>head</name></part></object>")
    return f"<annotation>{text}</annotation>"


@pytest.fixture
def voc(tmp_path):
    "Three pictures 40 high and 60 wide; two for training."
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"): (tmp_path / part).mkdir(parents=True)
    objects = {"a": [("cup", (11, 6, 30, 25), False), ("spoon", (1, 1, 60, 40), True)], "b": [], "c": [("cup", (5, 5, 9, 9), False)]}
    for name, rows in objects.items():
        Image.new("RGB", (60, 40), {"a": "navy", "b": "blue", "c": "teal"}[name]).save(tmp_path / f"JPEGImages/{name}.jpg")
        (tmp_path / f"Annotations/{name}.xml").write_text(voc_xml(rows))
    (tmp_path / "ImageSets/Main/train.txt").write_text("a\nb\n")
    (tmp_path / "ImageSets/Main/val.txt").write_text("c -1\n")
    return tmp_path


def coco_data():
    images = [{"id": 7, "file_name": "a.jpg", "height": 40, "width": 60}, {"id": 3, "file_name": "b.jpg", "height": 40, "width": 60}]
    rows = [{"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 5, 20, 20], "area": 111.0, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 60, 40], "iscrowd": 1}]
    return {"images": images, "annotations": rows, "categories": [{"id": 90, "name": "cup"}, {"id": 2, "name": "spoon"}]}


@pytest.fixture
def coco(tmp_path):
    (tmp_path / "annotations").mkdir(), (tmp_path / "train2017").mkdir()
    for name in "ab": Image.new("RGB", (60, 40)).save(tmp_path / f"train2017/{name}.jpg")
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(coco_data()))
    return tmp_path


def test_voc_items(voc):
    data = VOCDataset(voc, "train")
    assert data.classes == ["cup", "spoon"] and len(data) == 2 and data.name(0) == "a" and data.path(0).name == "a.jpg"
    truth = data.get_target(0)
    assert truth["boxes"].tolist() == [[10, 5, 30, 25], [0, 0, 60, 40]] and truth["area"].tolist() == [400, 2400]
    assert truth["difficult"].tolist() == [False, True] and truth["orig_size"].tolist() == [40, 60] and truth["image_id"] == 0
    image, target = data[0]
    assert image.shape == (3, 40, 60) and torch.allclose(target["boxes"][1], torch.tensor([0.5, 0.5, 1.0, 1.0]))
    image, target = data[1]
    assert target["boxes"].shape == (0, 4) and target["labels"].shape == (0,) and target["labels"].dtype == torch.int64
    assert VOCDataset(voc, "val").get_target(0)["labels"].tolist() == [0]  # same numbers in both splits
    assert pickle.loads(pickle.dumps(data)).classes == data.classes


def test_voc_devkit_layout_and_voc_classes(voc):
    for path in voc.glob("Annotations/*.xml"): path.write_text(path.read_text().replace("cup", "cat").replace("spoon", "person"))
    kit = voc / "VOCdevkit" / "VOC2012"
    kit.mkdir(parents=True)
    for part in ("JPEGImages", "Annotations", "ImageSets"): (voc / part).rename(kit / part)
    data = open_dataset(voc, "train")
    assert data.classes == VOC_CLASSES and data.get_target(0)["labels"].tolist() == [VOC_CLASSES.index("cat"), VOC_CLASSES.index("person")]


def test_voc_given_classes(voc):
    assert VOCDataset(voc, classes=["spoon", "cup"]).get_target(0)["labels"].tolist() == [1, 0]
    with pytest.raises(DataError, match=r"a\.xml: class 'spoon'"): VOCDataset(voc, classes=["cup"])
    (voc / "classes.txt").write_text("spoon\ncup\nfork\n")
    assert VOCDataset(voc).classes == ["spoon", "cup", "fork"]


def test_voc_boxes_without_area_are_dropped_with_one_warning(voc):
    rows = [("cup", (5, 5, 4, 9), False), ("cup", (5, 5, 9, 9), False), ("cup", (62, 3, 70, 9), False), ("spoon", (9, 9, 5, 12), True)]
    (voc / "Annotations/b.xml").write_text(voc_xml(rows))
    with pytest.warns(UserWarning) as seen: data = VOCDataset(voc)
    assert len(seen) == 1 and "dropped 3" in str(seen[0].message) and "b.xml" in str(seen[0].message)
    assert data.get_target(1)["boxes"].tolist() == [[4, 4, 9, 9]] and len(data.get_target(1)["difficult"]) == 1


def test_voc_boxes_of_one_pixel_are_boxes(voc):
    (voc / "Annotations/b.xml").write_text(voc_xml([("cup", (5, 5, 5, 5), False), ("cup", (60, 40, 60, 40), False)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert VOCDataset(voc).get_target(1)["boxes"].tolist() == [[4, 4, 5, 5], [59, 39, 60, 40]]


@pytest.mark.parametrize("left, right", [((-9, 6, 30, 25), (31, 6, 70, 25)), ((-0.6, 6, 30, 25), (31, 6, 60.6, 25))])
def test_all_sides_are_alike(voc, left, right):
    "A box that leaves its picture a little is cut, on the left as on the right; get_target has it as annotated."
    (voc / "Annotations/b.xml").write_text(voc_xml([("cup", left, False), ("cup", right, False)]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = VOCDataset(voc)
    assert [box[0] < 0 or box[2] > 60 for box in data.get_target(1)["boxes"].tolist()] == [True, True]
    corners = cxcywh_to_xyxy(data[1][1]["boxes"])
    assert corners.min() >= 0 and corners.max() <= 1 and check_dataset(voc).ok


def test_voc_boxes_reaching_outside_are_cut_for_training_only(voc):
    (voc / "Annotations/b.xml").write_text(voc_xml([("cup", (31, 21, 90, 40), False), ("cup", (0, 0, 10, 10), False)]))
    data = VOCDataset(voc)
    assert data.get_target(1)["boxes"].tolist() == [[30, 20, 90, 40], [0, 0, 10, 10]]
    assert torch.allclose(data[1][1]["boxes"][0], torch.tensor([0.75, 0.75, 0.5, 0.5]))


BAD_XML = {
    "broken": ("<annotation><object>", "broken XML"),
    "empty": ("", "broken XML"),
    "bomb": ('<!DOCTYPE x [<!ENTITY a "1"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>', "DOCTYPE"),
    "external": ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><annotation/>', "DOCTYPE"),
    "nan": (voc_xml([("cup", ("nan", 5, 9, 9), False)]), "not a number"),
    "infinite": (voc_xml([("cup", (1, 5, "inf", 9), False)]), "not a number"),
    "words": (voc_xml([("cup", ("left", 5, 9, 9), False)]), "'left', not a number"),
    "no box": ("<annotation><object><name>cup</name></object></annotation>", "without <bndbox>"),
    "no name": ("<annotation><object><bndbox/></object></annotation>", "no <name>"),
    "half a box": ("<annotation><object><name>cup</name><bndbox><xmin>1</xmin></bndbox></object></annotation>", "missing, not a number"),
}


@pytest.mark.parametrize("case", BAD_XML)
def test_bad_xml_is_named_by_loader_and_checker(voc, case):
    text, words = BAD_XML[case]
    (voc / "Annotations/b.xml").write_text(text)
    with pytest.raises(DataError) as error: VOCDataset(voc)
    assert "b.xml" in str(error.value) and words in str(error.value) and "\n" not in str(error.value) and "; " in str(error.value)
    report = check_dataset(voc)
    assert any("b.xml" in file and words in what for file, what in report.problems), report


def test_a_utf16_bomb_is_refused_too(voc):
    text = '<?xml version="1.0" encoding="utf-16"?>' + BAD_XML["bomb"][0]
    (voc / "Annotations/b.xml").write_bytes(text.encode("utf-16"))
    with pytest.raises(DataError, match="DOCTYPE"): VOCDataset(voc)


def test_missing_things_are_named(voc, tmp_path):
    with pytest.raises(DataError, match="no such folder"): VOCDataset(tmp_path / "nowhere")
    with pytest.raises(DataError, match="there are train, val"): VOCDataset(voc, "test")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="no Annotations/"): VOCDataset(tmp_path / "bare")
    (voc / "ImageSets/Main/test.txt").write_text("\n\n")
    with pytest.raises(DataError, match="empty"): VOCDataset(voc, "test")
    (voc / "ImageSets/Main/test.txt").write_text("ghost\n")
    with pytest.raises(DataError, match=r"test\.txt: ghost has neither picture nor annotation"): VOCDataset(voc, "test")
    (voc / "JPEGImages/a.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.xml: no picture a\.\*"): VOCDataset(voc)


def test_truncated_pictures_and_other_sizes(voc):
    Image.effect_noise((60, 40), 90).convert("RGB").save(voc / "JPEGImages/a.jpg")
    data = (voc / "JPEGImages/a.jpg").read_bytes()
    for part in (data[:len(data) // 2], data[:10], b"", b"<html>404</html>"):
        (voc / "JPEGImages/a.jpg").write_bytes(part)
        with pytest.raises(DataError, match=r"a\.jpg: cannot be read as a picture") as error: VOCDataset(voc)[0]
        assert "\n" not in str(error.value)
    Image.new("RGB", (50, 50)).save(voc / "JPEGImages/a.jpg")
    with pytest.raises(DataError, match="is 50 x 50 pixels, its annotation says 60 x 40"): VOCDataset(voc)[0]


def test_the_size_may_be_missing(voc):
    (voc / "Annotations/a.xml").write_text(voc_xml([("cup", (11, 6, 30, 25), False)], size=None))
    assert VOCDataset(voc)[0][1]["orig_size"].tolist() == [40, 60]


def test_modes_and_exif(tmp_path):
    path = tmp_path / "x.png"
    for mode, colour in (("L", 255), ("1", 1), ("P", 0), ("RGBA", (255, 0, 0, 0)), ("LA", (0, 0)), ("I;16", 65535), ("CMYK", (0, 0, 0, 0))):
        file = path.with_suffix(".jpg") if mode == "CMYK" else path
        Image.new(mode, (6, 4), colour).save(file)
        image = read_image(file)
        assert image.shape == (3, 4, 6) and image.dtype == torch.float32
        if mode not in ("P",): assert torch.allclose(image, torch.ones(3, 4, 6), atol=0.01), mode
    picture = Image.new("RGB", (6, 4))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(path.with_suffix(".jpg"), exif=exif)
    assert read_image(path.with_suffix(".jpg")).shape == (3, 6, 4) and image_size(path.with_suffix(".jpg")) == (6, 4)
    assert read_image(path.with_suffix(".jpg"), (6, 4)).shape == (3, 6, 4)
    assert read_image(path.with_suffix(".jpg"), (4, 6)).shape == (3, 4, 6)


def test_coco_items(coco):
    data = open_dataset(coco, "train")
    full = CocoDataset(coco / "train2017", coco / "annotations/instances_train2017.json")
    assert full.classes == ["spoon", "cup"] and full.category_ids == [2, 90] and len(full) == 2
    truth = full.get_target(0)
    assert truth["image_id"] == 7 and truth["labels"].tolist() == [1, 0] and truth["iscrowd"].tolist() == [0, 1]
    assert truth["boxes"].tolist() == [[10, 5, 30, 25], [0, 0, 60, 40]] and truth["area"].tolist() == [111, 2400]
    assert full[0][1]["iscrowd"].tolist() == [0, 1] and full[1][1]["boxes"].shape == (0, 4)
    assert data[0][1]["labels"].tolist() == [1] and len(data.get_target(0)["labels"]) == 2  # crowds are not for training


@pytest.mark.parametrize("layout", ["train.json images", "train/_annotations.coco.json train", "annotations/train.json images/train"])
def test_coco_layouts(tmp_path, layout):
    file, images = (tmp_path / part for part in layout.split())
    images.mkdir(parents=True, exist_ok=True), file.parent.mkdir(parents=True, exist_ok=True)
    for name in "ab": Image.new("RGB", (60, 40), {"a": "navy", "b": "teal"}[name]).save(images / f"{name}.jpg")
    file.write_text(json.dumps(coco_data()))
    assert len(open_dataset(tmp_path, "train")) == 2 and check_dataset(tmp_path, val_share=0.5).ok
    assert check_dataset(tmp_path).problems[0][1] == "has no val split (there is train)"
    with pytest.raises(DataError, match="split 'val'"): open_dataset(tmp_path, "val")


def change(**steps):
    def apply(data):
        for where, value in steps.items():
            table, _, key = where.partition("__")
            if key: data[table][0][key] = value
            else: data[table] = value
        return data
    return apply


BAD_COCO = {
    "no images": (change(images=[]), "no images"),
    "no list": (change(categories=None), "no list 'categories'"),
    "label out of range": (change(annotations__category_id=91), "has category_id 91, which"),
    "unknown image": (change(annotations__image_id=99), "has image_id 99, which"),
    "unhashable": (change(annotations__category_id=[1]), "does not list"),
    "nan": (change(annotations__bbox=[float("nan"), 5, 20, 20]), "not four finite numbers"),
    "three numbers": (change(annotations__bbox=[1, 5, 20]), "not four finite numbers"),
    "no bbox": (change(annotations__bbox=None), "not four finite numbers"),
    "missing picture": (change(images__file_name="ghost.jpg"), "ghost.jpg"),
    "no file name": (change(images__file_name=None), "file_name"),
    "words": (change(annotations__bbox=["10", 5, 20, 20]), "not four finite numbers"),
    "no image id": (change(images__id=None), "entry 0 of 'images' has no integer 'id'"),
    "an id in words": (change(categories__id="ninety"), "entry 0 of 'categories' has no integer 'id'"),
    "true is no id": (change(annotations__category_id=True), "category_id True"),
    "an id twice": (change(images__id=3), "'images' has id 3 twice"),
    "a category twice": (change(categories__id=2), "'categories' has id 2 twice"),
    "namesakes": (change(categories__name="spoon"), "two categories have the same name 'spoon'"),
    "a row that is none": (change(annotations=[7]), "entry 0 of 'annotations' is 7, not an object"),
    "a crowd of maybe": (change(annotations__iscrowd="maybe"), "has iscrowd 'maybe'"),
    "no categories": (change(categories=[], annotations=[]), "lists no categories"),
}


@pytest.mark.parametrize("case", BAD_COCO)
def test_bad_coco_is_named(coco, case):
    alter, words = BAD_COCO[case]
    path = coco / "annotations/instances_train2017.json"
    path.write_text(json.dumps(alter(coco_data())))
    with pytest.raises(DataError) as error: CocoDataset(coco / "train2017", path)
    assert words in str(error.value) and "\n" not in str(error.value) and "; " in str(error.value)
    assert not check_dataset(coco).ok


def test_the_entry_is_named_by_position_and_id(coco):
    path = coco / "annotations/instances_train2017.json"
    data = coco_data()
    data["annotations"][1]["image_id"] = 4
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"annotation 1 \(id 2\) has image_id 4, which .*instances_train2017.json does not list"):
        CocoDataset(coco / "train2017", path)


def test_every_fault_of_a_coco_file_is_listed(coco):
    data = coco_data()
    data["annotations"][0] |= {"image_id": 9, "category_id": 9, "bbox": [1]}
    data["annotations"][1] |= {"bbox": [50, 30, 20, 20]}
    data["images"].append({"id": [1], "file_name": "a.jpg"})
    (coco / "annotations/instances_train2017.json").write_text(json.dumps(data))
    text = str(check_dataset(coco))
    for words in ("image_id 9", "category_id 9", "bbox [1]", "annotation 1 (id 2) box (50, 30, 20, 20): mostly outside", "entry 2 of 'images' has no integer", "6 errors"):
        assert words in text, (words, text)


RESULT = {"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 1}
BROKEN_RESULTS = {
    "[1, 2": "broken JSON at line 1", "{}": "is not a list", "[3]": "detection 0 has no 'image_id'", "[" * 100_000: "not a JSON text file",
    **{json.dumps([{k: v for k, v in RESULT.items() if k != key}]): f"detection 0 has no {key!r}" for key in RESULT},
    **{json.dumps([RESULT, RESULT | change]): words for change, words in [
        ({"image_id": 9}, "detection 1 has image_id 9, which"), ({"image_id": "seven"}, "image_id 'seven'"), ({"category_id": []}, "category_id []"),
        ({"category_id": 8}, "category_id 8"), ({"bbox": [1, 2, 3]}, "not four finite numbers"), ({"bbox": [1, 2, -3, 4]}, "negative size"),
        ({"bbox": [1, 2, float("nan"), 4]}, "not four finite numbers"), ({"bbox": [1, 2, True, 4]}, "not four finite numbers"),
        ({"score": float("nan")}, "score nan"), ({"score": "high"}, "score 'high'"), ({"score": None}, "score None")]}}


@pytest.mark.parametrize("number", range(len(BROKEN_RESULTS)))
def test_broken_detections_are_named(coco, number):
    text, words = list(BROKEN_RESULTS.items())[number]
    (coco / "results.json").write_text(text)
    with pytest.raises(DataError) as error: read_coco_results(coco / "annotations/instances_train2017.json", coco / "results.json")
    assert words in str(error.value) and "results.json: " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("change_it, words", [
    (change(images=None), "no list 'images'"), (change(annotations__iscrowd=2), "iscrowd 2"),
    (change(categories__name="spoon"), "same name"), (change(annotations=[{}]), "annotation 0 has no 'image_id'")])
def test_a_judge_is_as_strict_with_the_truth(coco, change_it, words):
    truth, results = coco / "annotations/instances_train2017.json", coco / "results.json"
    results.write_text("[]")
    truth.write_text(json.dumps(change_it(coco_data())))
    with pytest.raises(DataError, match=words) as error: read_coco_results(truth, results)
    assert str(truth) in str(error.value)


def test_files_that_are_no_json(coco):
    truth = coco / "annotations/instances_train2017.json"
    with pytest.raises(DataError, match="cannot be read"): read_coco_results(truth, coco / "absent.json")
    for content in (b"\xff\xfe\x00\x80", b"\x89PNG", b""):
        (coco / "results.json").write_bytes(content)
        with pytest.raises(DataError, match="results.json: not a JSON text file"): read_coco_results(truth, coco / "results.json")


def test_detections_image_by_image(coco):
    "Images in the order of their ids, boxes as corners, an image without detections keeps its place; a byte-order mark does no harm."
    rows = [RESULT, RESULT | {"category_id": 90, "score": 0.25, "bbox": [0, 0, 0, 2]}]
    (coco / "results.json").write_text(json.dumps(rows), encoding="utf-8-sig")
    detections, targets, classes = read_coco_results(coco / "annotations/instances_train2017.json", coco / "results.json")
    assert classes == ["spoon", "cup"] and [len(d["labels"]) for d in detections] == [0, 2]
    assert detections[1]["boxes"].tolist() == [[1, 2, 4, 6], [0, 0, 0, 2]] and detections[1]["labels"].tolist() == [0, 1]
    assert detections[1]["scores"].tolist() == [1, 0.25] and detections[1]["area"].tolist() == [12, 0]
    assert targets[1]["area"].tolist() == [111, 2400] and targets[1]["iscrowd"].tolist() == [0, 1] and targets[0]["boxes"].shape == (0, 4)


def test_detections_of_the_fixture():
    "Two thousand lines of a real detector: each row lands with its image, in the order of the file."
    folder = real("eval-fixtures") / "coco100"
    files = folder / "instances_val2014_100.json", folder / "instances_val2014_fakebbox100_results.json"
    detections, targets, classes = read_coco_results(*files)
    truth, found = (json.loads(file.read_text()) for file in files)
    ids, numbers = sorted(row["id"] for row in truth["images"]), sorted(row["id"] for row in truth["categories"])
    assert len(classes) == 80 and sum(int(t["iscrowd"].sum()) for t in targets) == 9 and sum(len(t["labels"]) for t in targets) == 839
    for i, number in enumerate(ids):
        rows = [row for row in found if row["image_id"] == number]
        assert detections[i]["scores"].tolist() == [row["score"] for row in rows]
        assert [numbers[label] for label in detections[i]["labels"]] == [row["category_id"] for row in rows]


def test_writing_and_reading_a_folder(tmp_path):
    "Shapes as VOC, VOC as COCO: the same boxes and names each time, and nothing to complain about."
    write_voc(tmp_path, ShapesDataset(size=64, n=9), {"train": range(6), "val": range(6, 9)}, (48, 96))
    for split in ("train", "val"):
        voc = VOCDataset(tmp_path, split)
        path = tmp_path / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(coco_annotations(voc)))
        coco = CocoDataset(tmp_path / "JPEGImages", path)
        assert coco.classes == voc.classes and len(coco) == len(voc)
        for i in range(len(voc)):
            a, b = voc.get_target(i), coco.get_target(i)
            assert all(torch.equal(a[key], b[key]) for key in ("labels", "boxes", "area", "iscrowd", "orig_size"))
    assert check_dataset(tmp_path).ok


def test_broken_json(coco):
    path = coco / "annotations/instances_train2017.json"
    for text in ('{"images": [', "", "[1, 2]", "[" * 100000):
        path.write_text(text)
        with pytest.raises(DataError, match="instances_train2017.json"): CocoDataset(coco / "train2017", path)
        assert not check_dataset(coco).ok


def test_coco_boxes_without_area(coco):
    path = coco / "annotations/instances_train2017.json"
    path.write_text(json.dumps(change(annotations__bbox=[5, 5, 0, 7])(coco_data())))
    with pytest.warns(UserWarning, match="dropped 1 box"): data = CocoDataset(coco / "train2017", path)
    assert len(data.get_target(0)["labels"]) == 1


def test_voc_and_coco_agree(voc):
    data = VOCDataset(voc)
    images, rows = [], []
    for i in range(len(data)):
        truth = data.get_target(i)
        images.append({"id": i, "file_name": data.path(i).name, "height": 40, "width": 60})
        for (x0, y0, x1, y1), label in zip(truth["boxes"].tolist(), truth["labels"].tolist()):
            rows.append({"id": len(rows), "image_id": i, "category_id": 10 * label, "bbox": [x0, y0, x1 - x0, y1 - y0]})
    path = voc / "all.json"
    path.write_text(json.dumps({"images": images, "annotations": rows,
                                "categories": [{"id": 10 * k, "name": name} for k, name in enumerate(data.classes)]}))
    other = CocoDataset(voc / "JPEGImages", path)
    for i in range(len(data)):
        (a, ta), (b, tb) = data[i], other[i]
        assert torch.equal(a, b) and all(torch.equal(ta[k], tb[k]) for k in ("labels", "boxes", "area", "orig_size"))


# ---------------------------------------------------------------- the checker and the door

def test_a_sound_folder_is_sound(voc):
    report = check_dataset(voc)
    assert report.images == 3 and report.objects == 3 and report.counts == {"cup": 2, "spoon": 1}
    assert report.ok and report.problems == [] and "no problems" in str(report)


def test_the_checker_finds_each_fault(voc):
    (voc / "Annotations/b.xml").write_text(voc_xml([("cup", (5, 5, 4, 9), False), ("cup", (50, 5, 90, 9), False), ("fork", (2, 2, 9, 9), False)]))
    (voc / "classes.txt").write_text("cup\nspoon\n")
    Image.new("RGB", (30, 30)).save(voc / "JPEGImages/a.jpg")
    (voc / "JPEGImages/c.jpg").write_bytes(b"no picture")
    Image.new("RGB", (30, 30)).save(voc / "JPEGImages/lonely.jpg")
    (voc / "Annotations/d.xml").write_text(voc_xml([]))
    (voc / "ImageSets/Main/val.txt").write_text("c\nghost\n")
    text = str(check_dataset(voc))
    for words in ("b.xml: cup box (5, 5, 4, 9): no area", "(50, 5, 90, 9): mostly outside", "unknown class 'fork'", "a.jpg: is 30 x 30",
                  "c.jpg: cannot be read", "without annotation are in no list: lonely.jpg", "d.xml: no picture", "val.txt: ghost has neither", "4 errors and "):
        assert words in text, (words, text)


def test_own_sets_that_share_names_with_voc(voc):
    "Dogs of one's own do not make Pascal VOC of a folder: its classes are its own, and none is unknown."
    for name in "ac": (voc / f"Annotations/{name}.xml").write_text(voc_xml([("dog", (2, 2, 9, 9), False)]))
    assert VOCDataset(voc).classes == ["dog"] and open_dataset(voc, "val").classes == ["dog"]
    (voc / "Annotations/b.xml").write_text(voc_xml([("dragon", (2, 2, 9, 9), False)]))
    assert VOCDataset(voc).classes == ["dog", "dragon"] and "unknown" not in str(check_dataset(voc))


def test_a_class_outside_the_training_split(voc):
    (voc / "Annotations/c.xml").write_text(voc_xml([("ladle", (2, 2, 9, 9), False)]))
    report = check_dataset(voc)
    assert "class 'ladle' has 1 object(s) in val, and never occurs in the training split" in str(report) and report.ok


def test_the_door(voc, tmp_path):
    assert open_dataset("shapes", size=96, n=3).size == 96 and open_dataset("shapes-hard", "val").level == "hard"
    assert open_dataset(str(voc)).layout == "Pascal VOC" and isinstance(open_dataset(str(voc)), PhotoDataset)
    for wrong in (-1, 0, 1, 2):
        with pytest.raises(DataError, match="is no share between 0 and 1"): open_dataset(str(voc), "val", val_share=wrong)
    for empty in ("", " "):
        with pytest.raises(DataError, match="the name of the data set is empty"): open_dataset(empty)
    for given in ({"n": 5}, {"size": 64}):
        with pytest.raises(DataError, match=f"{next(iter(given))}=.* is for drawn sets"): open_dataset(voc, "val", **given)
    (tmp_path / "other").mkdir()
    for name in ("y" * 300, "y" * 5000, "a\0b"):
        for call in (open_dataset, check_dataset):
            with pytest.raises(DataError, match="no such folder"): call(name)
    for call in (open_dataset, check_dataset):
        with pytest.raises(DataError, match="no such folder"): call(tmp_path / "nowhere")
        with pytest.raises(DataError, match=r"not a data set of a known layout \(found nothing\); known are Pascal VOC: .*COCO: .*YOLO"): call(tmp_path / "other")


@pytest.mark.parametrize("option, value, words", [("val_share", ".25", "is no share between 0 and 1"), ("val_share", "a", "is no share"), ("val_share", float("nan"), "is no share"), ("seed", "x", "is no whole number from 0"),
                                                  ("seed", 1.5, "is no whole number"), ("seed", -1, "is no whole number"), ("backgrounds", "no", "is neither True nor False"), ("allow_outside", 7, "is neither True nor False")])
def test_options_that_make_no_sense(option, value, words, voc):
    for call in (lambda **given: open_dataset(voc, "val", **given), lambda **given: check_dataset(voc, **given)):
        with pytest.raises(DataError, match=words) as error: call(**{option: value})
        assert "\n" not in str(error.value) and f"{option} {value!r}: " in str(error.value)


def test_options_of_the_other_kind_of_set(voc):
    for given in ({"val_share": 0.3}, {"backgrounds": True}, {"foo": 3}):
        with pytest.raises(DataError, match=f"shapes: {next(iter(given))} counts for folders alone; leave"): open_dataset("shapes", **given)
    for kind in ("shapes", "shapes-wild"):
        for given in ({"n": "3"}, {"size": "64"}, {"seed": "a"}, {"n": 1.5}):
            with pytest.raises(DataError, match=f"shapes: {next(iter(given))} is .*, not a whole number"): open_dataset(kind, **given)
    assert len(open_dataset("shapes", n=np.int64(3), seed=np.int64(1))) == 3
    for spec in ("shapes", voc):
        with pytest.raises(DataError, match=r"\['train'\] is no name of a split"): open_dataset(spec, ["train"])


def test_splits_that_a_division_does_not_make(voc):
    for path in (voc / "ImageSets/Main").iterdir(): path.unlink()
    for split in ("valid", "validation", "Train"):
        with pytest.raises(DataError, match=f"no annotations of split '{split}'; there are train, val"): open_dataset(voc, split, val_share=0.5)


def test_faults_of_boxes():
    assert box_fault((0, 0, 60, 40), (40, 60)) == "" and box_fault((-0.2, 0, 60.3, 40), (40, 60)) == ""
    assert box_fault((0, 0, 61, 40), (40, 60)) == box_fault((-1, 0, 60, 40), (40, 60)) == "reaches outside the image"
    assert box_fault((-29, 0, 20, 40), (40, 60)) == box_fault((40, 0, 89, 40), (40, 60)) == "mostly outside the image"
    assert box_fault((-9, 0, 0, 4), (40, 60)) == "outside the image" and box_fault((-0.6, 0, 1, 1), (1, 1)).startswith("reaches")
    assert box_fault((60, 0, 61, 40), (40, 60)) == "outside the image"
    assert box_fault((0, 0, 61, 40), (40, 60)).startswith("reaches") and box_fault((60, 0, 61, 40), (40, 60)) == "outside the image"


def test_nothing_heavy_is_imported():
    code = ("import sys, nanodetr.data; "
            "print([m for m in ('matplotlib', 'ipywidgets', 'fastcore', 'nbdev', 'pycocotools') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("module, later", [("nanodetr.cli", ("torch", "numpy")), ("nanodetr.model", ("torchvision", "scipy", "torch._dynamo"))])
def test_what_takes_seconds_is_imported_when_it_is_needed(module, later):
    "--help without torch; a model without torchvision, which only ResNets and augmentation ask for."
    code = f"import sys, {module}; print([m for m in {later} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_names_that_come_late_are_there_and_others_are_not():
    import nanodetr.cli, nanodetr.data
    from nanodetr.commands.train import train_config
    from nanodetr.datasets.augment import light_augment
    assert nanodetr.data.light_augment is light_augment and nanodetr.cli.train_config is train_config
    for module in (nanodetr.data, nanodetr.cli):
        with pytest.raises(AttributeError, match="no attribute 'dark_augment'"): module.dark_augment


def test_data_sets_stand_below_the_course():
    "The modules of nanodetr.datasets bring neither a lesson but the boxes nor anything heavy."
    code = ("import sys; from nanodetr.datasets import augment, check, coco, folders, judge, layouts, page, photos, records, shapes, splits, text, voc, yolo; "
            "print(sorted(m for m in sys.modules if m.startswith('nanodetr.') and not m.startswith('nanodetr.datasets')), "
            "[m for m in ('matplotlib', 'ipywidgets', 'fastcore', 'pycocotools') if m in sys.modules])")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert said == "['nanodetr.boxes', 'nanodetr.errors'] []"


def test_the_names_of_the_course_stay():
    "What README, the command line and earlier notebooks import from nanodetr.data."
    import nanodetr.data
    for name in ("ShapesDataset", "VOCDataset", "CocoDataset", "open_dataset", "check_dataset", "CheckReport", "light_augment", "paper_augment",
                 "Augment", "RandomResize", "RandomSizeCrop", "resized_shape", "VOC_CLASSES", "LEVELS", "SPLITS", "Stream", "Photo", "PhotoDataset",
                 "read_image", "image_size", "box_fault", "drop_objects", "collate", "Dihedral", "DataError"):
        assert name in nanodetr.data.__all__ and hasattr(nanodetr.data, name)


# ---------------------------------------------------------------- real folders

def real(name):
    if not (REAL / name).is_dir(): pytest.skip(f"{name}: real data not on this machine")
    return REAL / name


@pytest.mark.parametrize("name, counts, dropped, problems", [
    ("bccd", {"Platelets": 361, "RBC": 4155, "WBC": 372}, 0, 0), ("cards", None, 0, 0), ("voc100", None, 0, 0)])
def test_real_folders(name, counts, dropped, problems):
    folder = real(name)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        sets = [VOCDataset(folder, split) for split in ("train", "val", "test")]
    report = check_dataset(folder)
    assert len(report.problems) == problems and all("no area" in what for _, what in report.problems)
    assert report.images == sum(len(data) for data in sets) and counts in (None, report.counts)
    assert sum(len(data.get_target(i)["labels"]) for data in sets for i in range(len(data))) == report.objects - dropped
    assert len(seen) == dropped
    for data in sets:
        image, target = data[0]
        assert tuple(image.shape[-2:]) == tuple(target["orig_size"].tolist())
        assert pairwise_iou(data.get_target(0)["boxes"], data.get_target(0)["boxes"]).diagonal().min() > 0.99
    if name == "voc100":
        assert sets[0].classes == VOC_CLASSES
        assert sum(int(data.get_target(i)["difficult"].sum()) for data in sets for i in range(len(data))) == 38


def test_voc_download_is_by_split(tmp_path, monkeypatch):
    "VOC 2007 comes in two archives: having trainval does not mean having test."
    import torchvision.datasets

    asked = []
    monkeypatch.setattr(torchvision.datasets, "VOCDetection", lambda root, **wanted: asked.append(wanted))
    main = tmp_path / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "trainval.txt").write_text("000001\n")
    for split in ("trainval", "test"):
        with pytest.raises(DataError): VOCDataset(tmp_path, split, year="2007", download=True)
    assert asked == [{"year": "2007", "image_set": "test", "download": True}]


def test_polygons_without_a_box_get_one(tmp_path):
    "Tools for outlines leave `bbox` away: the box is the one around the corners. Run lengths have no corners, and are refused."
    from nanodetr.datasets.coco import box_around

    ring = [[10, 20, 30.5, 20, 30.5, 44, 10, 44], [8, 30, 9, 30, 9, 31]]
    assert box_around(ring) == [8, 20, 22.5, 24]
    assert all(box_around(wrong) is None for wrong in (None, [], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, "6"]], {"counts": [1], "size": [2, 2]}, [[1, 2, 3, 4, 5, math.nan]]))
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    data = {"images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}], "categories": [{"id": 1, "name": "cup"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": ring}]}
    (tmp_path / "labels.json").write_text(json.dumps(data))
    found = CocoDataset(tmp_path, tmp_path / "labels.json").get_target(0)["boxes"]
    assert found.tolist() == [[8, 20, 30.5, 44]]
    data["annotations"][0]["segmentation"] = {"counts": [1], "size": [2, 2]}
    (tmp_path / "labels.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match="has no 'bbox'"): CocoDataset(tmp_path, tmp_path / "labels.json")


def test_warnings_of_pil_about_other_things_stay():
    "Only what PIL says of damaged EXIF and the like is silenced."
    code = ("import warnings; import nanodetr.datasets.photos; from PIL import Image; image = Image.new('P', (4, 4)); image.info['transparency'] = bytes(2); image.convert('RGB')\n"
            "for text in ('Corrupt EXIF data.  Expecting', 'Image appears to be a malformed MPO file'): warnings.warn_explicit(text, UserWarning, 'TiffImagePlugin.py', 1, 'PIL.TiffImagePlugin')")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert "Palette images with Transparency" in said and "EXIF" not in said and "MPO" not in said
