"Folders as annotation tools write them: recognised, read and judged alike by `check` and by `train`. Each case is drawn here."
import contextlib
import json
import math
import os
import random
import re
import shutil
import struct
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from nanodetr.checkpoints.config import DETRConfig
from nanodetr.cli import main
from nanodetr.commands.detect import find_pictures
from nanodetr.commands.train import prepare_data
from nanodetr.data import CocoDataset, VOCDataset, check_dataset, open_dataset
from nanodetr.datasets import layouts
from nanodetr.datasets.folders import open_sets, read_folder
from nanodetr.datasets.layouts import LAYOUTS, recognise
from nanodetr.datasets.page import check_page
from nanodetr.datasets.records import Annotation, Record
from nanodetr.datasets.splits import share_out
from nanodetr.datasets.text import read_file_bytes, refuse_file
from nanodetr.datasets.yolo import read_yaml
from nanodetr.errors import DataError, NanodetrError

FUZZ = 10_000 if os.environ.get("NANODETR_FUZZ") else 60


# ---------------------------------------------------------------- drawing folders

def picture(path: Path, seed: int = 0, size: tuple = (64, 48), **save) -> None:
    "A grey picture (w, h) with a bright block; another name, another picture."
    pixels = np.random.default_rng([seed, zlib.crc32("/".join(path.parts[-3:]).encode())]).integers(60, 90, (size[1], size[0], 3), dtype=np.uint8)
    pixels[size[1] // 4:size[1] // 2, size[0] // 4:size[0] // 2] = (220, 60 + 40 * (seed % 4), 40)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **save)


def put(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))


def xml(name: str = "cup", box: tuple = (17, 13, 32, 24), size: tuple = (64, 48), filename: str = "x.jpg", extra: str = "") -> str:
    objects = f"<object><name>{name}</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>" if box else ""
    return f"<annotation><filename>{filename}</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>{objects}{extra}</annotation>"


def voc(root: Path, names: str | list = "abcd", val: str | list = "cd", classes: tuple = ("cup", "spoon"), lists: bool = True,
        pictures: str = "JPEGImages", annotations: str = "Annotations", ending: str = ".jpg", box: tuple = (17, 13, 32, 24)) -> Path:
    for k, name in enumerate(names):
        picture(root / pictures / f"{name}{ending}", k)
        put(root / annotations / f"{name}.xml", xml(classes[k % len(classes)], box, filename=f"{name}{ending}"))
    if lists:
        put(root / "ImageSets/Main/train.txt", "".join(f"{name}\n" for name in names if name not in val))
        put(root / "ImageSets/Main/val.txt", "".join(f"{name}\n" for name in val))
    return root


CUP = [{"id": 1, "name": "cup"}]


def coco(names: list, categories: list = CUP, label=lambda k: 1, box: tuple = (16, 12, 16, 12), **row) -> dict:
    return {"images": [{"id": k, "file_name": name, "width": 64, "height": 48} for k, name in enumerate(names)], "categories": categories,
            "annotations": [{"id": k + 1, "image_id": k, "category_id": label(k), "bbox": list(box), "area": 192, "iscrowd": 0, **row} for k in range(len(names))]}


def coco_set(root: Path, train: dict = None, val: dict = None, encoding: str = "utf-8", folder: str = "annotations") -> Path:
    for split, data in (("train", train or coco(["t0.jpg", "t1.jpg"])), ("val", val or coco(["v0.jpg", "v1.jpg"]))):
        for k, row in enumerate(data["images"]): picture(root / "images" / row["file_name"], k)
        put(root / folder / f"instances_{split}.json", json.dumps(data), encoding)
    return root


def yolo(root: Path, place="images/{split}", labels="labels/{split}", yaml: str = "train: images/train\nval: images/val\nnames: [cup, spoon]\n",
         row: str = "{k} 0.375 0.375 0.25 0.25\n", splits: tuple = ("train", "val"), file: str = "data.yaml") -> Path:
    for split in splits:
        for k in range(2):
            picture(root / place.format(split=split) / f"{split}{k}.jpg", k)
            put(root / labels.format(split=split) / f"{split}{k}.txt", row.format(k=k))
    if yaml: put(root / file, yaml)
    return root


def roboflow(root: Path, categories: list, label) -> Path:
    for split in ("train", "valid", "test"):
        names = [f"{split}{k}_jpg.rf.{k:06x}.jpg" for k in range(2)]
        for k, name in enumerate(names): picture(root / split / name, k)
        put(root / split / "_annotations.coco.json", json.dumps(coco(names, categories, label, segmentation=[])))
    put(root / "README.roboflow.txt", "exported")
    return root


# ---------------------------------------------------------------- what tools write

def flat(root, ending=".jpg", where="", names="abcd"):
    for k, name in enumerate(names):
        picture(root / where / f"{name}{ending}", k)
        put(root / where / f"{name}.xml", xml())
    return root


def one_json(root, file, where="", names=tuple("abcd"), prefix=""):
    for k, name in enumerate(names): picture(root / where / f"{name}.jpg", k)
    put(root / file, json.dumps(coco([f"{prefix}{name}.jpg" for name in names])))
    return root


def cvat_voc(root):
    voc(root, lists=False)
    put(root / "ImageSets/Main/default.txt", "a\nb\nc\nd\n")
    put(root / "ImageSets/Main/cup_default.txt", "a  1\nb -1\nc  1\nd -1\n")
    put(root / "labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\nspoon:10,20,30::\ncup:1,2,3::\n")
    return root


def tag_lists(root, form="{name}.jpg {flag}", tags=("cup", "spoon"), join="\r\n"):
    voc(root, lists=False)
    for split, part in (("train", "ab"), ("val", "cd")):
        for tag in tags: put(root / f"ImageSets/Main/{tag}{'_' * bool(tag)}{split}.txt", join.join(form.format(name=n, flag=1 if (n in "ac") == (tag != "spoon") else -1) for n in part))
    return root


def voc2007(root):
    voc(root, lists=False)
    put(root / "ImageSets/Main/trainval.txt", "a\nb\nc\n"), put(root / "ImageSets/Main/test.txt", "d\n")
    return root


def yolo_lists(root):
    yolo(root, yaml="train: train.txt\nval: val.txt\nnames:\n  0: cup\n  1: 'spoon'\n")
    for split in ("train", "val"): put(root / f"{split}.txt", "".join(f"./images/{split}/{split}{k}.jpg\n" for k in range(2)))
    return root


def darknet(root):
    yolo(root, "obj_train_data", "obj_train_data", "cup\nspoon\n", splits=("train", "val"), file="obj.names")
    put(root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")
    return root


# name: (how to draw it, the layout's name, does it have a val split?)
TOOLS = {
    "Pascal VOC": (voc, "Pascal VOC", True),
    "Pascal VOC in its kit": (lambda r: voc(r / "VOCdevkit/VOC2012").parents[1], "Pascal VOC", True),
    "Pascal VOC 2007": (voc2007, "Pascal VOC", False),
    "CVAT VOC": (cvat_voc, "Pascal VOC", False),
    "CVAT VOC in folders": (lambda r: voc(r, ["cam1/a", "cam1/b", "cam2/a", "cam2/b"], ["cam2/a", "cam2/b"]), "Pascal VOC", True),
    "VoTT": (tag_lists, "Pascal VOC", True),
    "names with endings": (lambda r: tag_lists(r, "{name}.jpg", ("",), "\n"), "Pascal VOC", True),
    "names with flags": (lambda r: tag_lists(r, "{name} {flag}", ("",), "\n"), "Pascal VOC", True),
    "Label Studio VOC": (lambda r: voc(r, lists=False, pictures="images"), "Pascal VOC", False),
    "Kaggle": (lambda r: voc(r, lists=False, pictures="images", annotations="annotations", ending=".png"), "Pascal VOC", False),
    "folders of splits in Annotations": (lambda r: voc(r, ["train/a", "train/b", "val/a"], [], lists=False), "Pascal VOC", True),
    "labelImg": (flat, "VOC beside the pictures", False),
    "labelImg in folders": (lambda r: flat(flat(r, where="cam1"), where="cam2"), "VOC beside the pictures", False),
    "Roboflow VOC": (lambda r: flat(flat(r, where="train"), where="valid"), "VOC beside the pictures", True),
    "COCO": (coco_set, "COCO", True),
    "CVAT COCO": (lambda r: one_json(r, "annotations/instances_default.json", "images/default"), "COCO", False),
    "CVAT COCO of a project": (lambda r: one_json(one_json(r, "annotations/instances_Train.json", "images/Train"), "annotations/instances_Validation.json", "images/Validation", "ef"), "COCO", True),
    "Roboflow COCO": (lambda r: roboflow(r, [{"id": 0, "name": "kitchen", "supercategory": "none"}, {"id": 1, "name": "cup", "supercategory": "kitchen"}], lambda k: 1), "COCO", True),
    "Label Studio COCO": (lambda r: one_json(r, "result.json", "images", prefix="images/"), "COCO", False),
    "Label Studio COCO on Windows": (lambda r: one_json(r, "result.json", "images", prefix="images\\"), "COCO", False),
    "FiftyOne": (lambda r: one_json(r, "labels.json", "data"), "COCO", False),
    "FiftyOne with splits": (lambda r: one_json(one_json(r, "train/labels.json", "train/data"), "validation/labels.json", "validation/data", "ef"), "COCO", True),
    "makesense": (lambda r: one_json(r, "labels_my-project-name_2024-01-01-10-00-00.json"), "COCO", False),
    "a file of any name": (lambda r: one_json(r, "my export.json", "photos"), "COCO", False),
    "Ultralytics": (yolo, "YOLO with data.yaml", True),
    "Ultralytics, names by number": (lambda r: yolo(r, yaml="path: ../datasets/coco8  # root\ntrain: images/train\nval: images/val\ntest:\n\nnames:\n  0: cup\n  1: spoon\n\n"
                                                    "download: |\n  import os\n  names: no\n", file="coco8.yaml"), "YOLO with data.yaml", True),
    "Roboflow YOLO": (lambda r: yolo(r, "{split}/images", "{split}/labels", "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cup', 'spoon']\n\n"
                                     "roboflow:\n  workspace: me\n  project: mine\n", splits=("train", "valid")), "YOLO with data.yaml", True),
    "YOLO with lists": (yolo_lists, "YOLO with data.yaml", True),
    "YOLO with several folders": (lambda r: yolo(r, yaml="train: [images/train]\nval:\n- images/val\nnames: {0: cup, 1: spoon}\n"), "YOLO with data.yaml", True),
    "Label Studio YOLO": (lambda r: yolo(r, "images", "labels", "cup\n", "0 0.375 0.375 0.25 0.25\n", ("t",), "classes.txt"), "YOLO without data.yaml", False),
    "labelImg YOLO": (lambda r: yolo(r, "", "", "cup\n", "0 0.375 0.375 0.25 0.25\n", ("t",), "classes.txt"), "YOLO without data.yaml", False),
    "darknet": (darknet, "YOLO without data.yaml", False),
    "Roboflow darknet": (lambda r: yolo(r, "{split}", "{split}", "cup\nspoon\n", splits=("train", "valid"), file="train/_darknet.labels"), "YOLO without data.yaml", True)}


@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_writes_is_recognised_and_read(tool, tmp_path):
    draw, layout, has_val = TOOLS[tool]
    root = draw(tmp_path / "set")
    assert recognise(root)[0].name == layout
    report = check_dataset(root)
    if not has_val:
        assert [what for _, what in report.problems][0].startswith("has no val split") and "--val-share 0.2" in str(report)
        with pytest.raises(DataError, match="--val-share 0.2"): open_sets(root)
        with pytest.raises(DataError, match="--val-share 0.2"): open_dataset(root, "val")
    options = {} if has_val else {"val_share": 0.5}
    report, folder = check_dataset(root, **options), open_sets(root, **options)
    assert report.ok and report.findings.of("warning") == [], str(report)
    for split in ("train", "val"):
        data = folder.dataset(split)
        assert len(data) >= 1 and set(data.classes) <= {"cup", "spoon"} and "cup" in data.classes
        for i in range(len(data)):
            target = data.get_target(i)
            assert target["boxes"].tolist() == [[16, 12, 32, 24]] and data[i][0].shape == (3, 48, 64)
    assert len({data.path(i) for split in ("train", "val") for data in [folder.dataset(split)] for i in range(len(data))}) == len(folder.splits["train"]) + len(folder.splits["val"])


def test_numbers_for_names_are_said(tmp_path):
    five = [{"id": 1, "name": 5}]
    root = coco_set(tmp_path / "coco", coco(["t0.jpg", "t1.jpg"], five), coco(["v0.jpg"], five))
    report = check_dataset(root)
    assert report.ok and "instances_train.json: 1 category name(s) are numbers, 5 first, and are read as texts" in str(report) and open_sets(root).classes == ["5"]


def test_every_layout_is_tried():
    assert {layout for _, layout, _ in TOOLS.values()} == {layout.name for layout in LAYOUTS}


def test_one_message_for_what_is_unknown(tmp_path):
    picture(tmp_path / "photos/a.jpg"), put(tmp_path / "photos/boxes.dat", "a.jpg,1,2,3,4")
    with pytest.raises(DataError) as error: open_dataset(tmp_path)
    said = str(error.value)
    assert "\n" not in said and "found 1 .jpg, 1 .dat, photos/" in said and all(layout.name in said for layout in LAYOUTS)
    for folder in ("one", "two"): voc(tmp_path / folder / "deep")
    with pytest.raises(DataError, match="has 2 folders with annotations, one/deep and two/deep first; give one of them"): open_dataset(tmp_path)


@pytest.mark.parametrize("file, text, what", [
    ("annotations.xml", "<?xml version='1.0'?><annotations><version>1.1</version><image name='a.jpg'/></annotations>", "CVAT's own XML"),
    ("a.json", '{"version": "5", "shapes": [], "imagePath": "a.jpg"}', "labelme's JSON"), ("via.json", '{"a.jpg1": {"filename": "a.jpg", "regions": []}}', "VIA's JSON"),
    ("ds0/ann/a.jpg.json", '{"size": {}, "objects": []}', "Supervisely's JSON"), ("_annotations.createml.json", '[{"image": "a.jpg", "annotations": [{"coordinates": {}}]}]', "CreateML's JSON"),
    ("project.json", '[{"id": 1, "annotations": [], "data": {"image": "a.jpg"}}]', "Label Studio's own JSON"), ("annotations/train.json", '{"categories": {}, "items": [{"annotations": []}]}', "Datumaro's JSON"),
    ("train.csv", "image,x,y\n", "a table"), ("train/metadata.jsonl", '{"file_name": "a.jpg"}', "JSON Lines"), ("train/_annotations.txt", "a b.jpg 92,183,223,348,2\n", "keras-yolo3's list")])
def test_other_formats_are_called_by_name(file, text, what, tmp_path):
    picture(tmp_path / "a.jpg"), put(tmp_path / file, text)
    with pytest.raises(DataError) as error: open_sets(tmp_path)
    assert str(error.value) == f"{tmp_path / file}: is {what}, which is not read; export the set as COCO or YOLO, in the tool or with a converter"


@pytest.mark.parametrize("tool", ["Pascal VOC", "COCO", "Ultralytics", "Roboflow VOC"])
def test_a_folder_too_high_will_do(tool, tmp_path):
    "An archive unpacked into a folder of its own name: the set is found one folder below."
    TOOLS[tool][0](tmp_path / "export")
    assert check_dataset(tmp_path).ok and len(open_sets(tmp_path).splits["train"]) >= 2


# ---------------------------------------------------------------- one verdict

def more_val(root):
    abc = [{"id": k, "name": name} for k, name in enumerate("ABC")]
    return coco_set(root, coco(["t0.jpg", "t1.jpg", "t2.jpg"], abc, lambda k: k), coco(["v0.jpg", "v1.jpg"], abc + [{"id": 3, "name": "D"}], lambda k: 2 * k + 1))


def percent(root, count=4, box=(25, 25, 75, 75)):
    names = "abcdefgh"[:2 * count]
    for k, name in enumerate(names):
        picture(root / f"JPEGImages/{name}.jpg", k, (640, 480)), put(root / f"Annotations/{name}.xml", xml(box=box, size=(640, 480)))
    for split, part in (("train", names[:count]), ("val", names[count:])): put(root / f"ImageSets/Main/{split}.txt", "\n".join(part))
    return root


def with_picture(root, name, **how):
    picture(root / name, **how)
    return root


def with_list(root, text):
    with open(root / "ImageSets/Main/train.txt", "a") as file: file.write(text)
    return root


def with_text(root, name, text):
    put(root / name, text)
    return root


def many(root, count=300):
    data = coco(["t0.jpg", "t1.jpg"])
    data["annotations"] = [{"id": k, "image_id": 0, "category_id": 1, "bbox": [k % 20 * 3, k // 20 * 3, 3, 3]} for k in range(count)]
    return coco_set(root, data)


def doubled(root):
    data = coco(["t0.jpg", "t1.jpg"])
    data["annotations"] += [{**data["annotations"][0], "segmentation": {"counts": [10, 20, 3042], "size": [48, 64]}, "iscrowd": 1}, data["annotations"][1]]
    return coco_set(root, data)


def capital_endings(root):
    for path in list(yolo(root).rglob("labels/*/*.txt")): path.rename(path.with_suffix(".TXT"))
    return root


def deep(root):
    voc(root, ending=".png")
    for name in "abcd": Image.fromarray(np.random.default_rng(0).integers(0, 4000, (48, 64)).astype(np.uint16)).save(root / f"JPEGImages/{name}.png")
    return root


def odd_corner(root):
    data = coco([f"t{k}.jpg" for k in range(12)], box=(30, 20, 60, 44))
    data["annotations"][0]["bbox"] = [40, 30, 5, 5]
    return coco_set(root, data)


def slip_of_many():
    data = coco([f"t{k}.jpg" for k in range(12)], box=(5, 4, 20, 20))
    data["annotations"][0]["bbox"] = [60, 40, 63, 47]
    return data


def slip_of_a_pixel():
    data = coco(["t0.jpg", "t1.jpg"])
    data["annotations"][0]["bbox"] = [9, 9, 0.4, 0.4]
    return data


def signs(root):
    percent(root)
    for k, name in enumerate("abcdefgh"): put(root / f"Annotations/{name}.xml", xml(size=(640, 480), box=(5, 5, 25, 25), extra="<object><name>cup</name><bndbox><xmin>70</xmin><ymin>70</ymin><xmax>90</xmax><ymax>90</ymax></bndbox></object>"))
    return root


def none_left():
    data = coco(["t0.jpg", "t1.jpg"])
    data["annotations"][0]["bbox"], data["annotations"][1]["iscrowd"] = [9, 9, 0, 5], 1
    return data


def dangling(root, *names):
    "Put links that lead nowhere in place of files or folders, as a disk that is not mounted leaves them."
    for path in (root / name for name in names):
        if path.is_dir(): shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to("/nowhere/" + path.name)
    return root


# name: (how to draw it, what check and train say: None when it is accepted without a word, "warning: ..." when with one, else the refusal)
CASES = {
    "01 a root category of another name": (TOOLS["Roboflow COCO"][0], None),
    "01 a root category of the same name": (lambda r: roboflow(r, [{"id": 0, "name": "cup", "supercategory": "none"}, {"id": 1, "name": "cup", "supercategory": "cup"}], lambda k: 1), None),
    "02 val has a class more": (more_val, "unknown class 'D' (1 object(s)), not among A, B, C"),
    "03 names with spaces": (lambda r: voc(r, ["WhatsApp Image 1", "IMG 3 (copy)"], ["IMG 3 (copy)"], ("cup",)), None),
    "03 names in quotes": (lambda r: with_text(with_text(voc(r, ["my photo 1", "my photo 2"], [], ("cup",)), "ImageSets/Main/train.txt", '"my photo 1"\n'), "ImageSets/Main/val.txt", '"my photo 2"\n'), None),
    "04 AppleDouble files": (lambda r: with_text(with_text(voc(r), "Annotations/._a.xml", "\0\5\26\7Mac OS X"), "JPEGImages/._a.jpg", "\0\5\26\7Mac OS X"), None),
    "06 a byte-order mark": (lambda r: coco_set(r, encoding="utf-8-sig"), None),
    "06 UTF-16": (lambda r: coco_set(r, encoding="utf-16"), None),
    "07 the other case": (lambda r: coco_set(r, folder="Annotations"), None),
    "11 two pictures of one stem, one meant": (lambda r: with_picture(voc(r), "JPEGImages/a.png"), "warning: has a namesake (a.png); a.xml says that it means this one"),
    "11 two pictures of one stem": (lambda r: with_picture(with_text(voc(r), "Annotations/a.xml", xml(filename="IMG_7.HEIC")), "JPEGImages/a.png"), "a.jpg and a.png both are its picture"),
    "11 two folders with one name": (lambda r: with_picture(with_picture(one_json(r, "my.json", "cam1"), "cam2/a.jpg"), "cam2/b.jpg"), "its picture a.jpg may be cam1/a.jpg or cam2/a.jpg"),
    "11 two annotations of one picture": (lambda r: with_text(voc(r), "Annotations/a.XML", xml()), "annotates the same picture"),
    "14 a little left": (lambda r: coco_set(r, coco(["t0.jpg", "t1.jpg", "t2.jpg"], box=(-3, 12, 16, 12))), "warning: train: 3 of 3 boxes leave their picture on one side (left)"),
    "14 a little right": (lambda r: coco_set(r, coco(["t0.jpg", "t1.jpg", "t2.jpg"], box=(56, 12, 11, 12))), "warning: train: 3 of 3 boxes leave their picture on one side (right)"),
    "14 a very little left": (lambda r: coco_set(r, coco(["t0.jpg", "t1.jpg"], box=(-0.6, 12, 16, 12))), None),
    "14 two corners": (lambda r: coco_set(r, coco(["t0.jpg", "t1.jpg"], box=(30, 20, 60, 44)), coco(["v0.jpg"], box=(10, 10, 30, 30))), "would fit as two corners x0, y0, x1, y1"),
    "14 far outside": (lambda r: coco_set(r, coco(["t0.jpg", "t1.jpg", "t2.jpg"], box=(60, 12, 16, 12))), "train: 3 of 3 box(es) lie mostly outside their picture"),
    "15 three hundred objects": (many, None),
    "20 persons of one's own": (lambda r: voc(r, classes=("person",)), None),
    "20 persons and helmets": (lambda r: voc(r, classes=("person", "helmet")), None),
    "20 a slip in val": (lambda r: with_text(voc(r), "Annotations/d.xml", xml("dog")), "warning: class 'dog' has 1 object(s) in val, and never occurs in the training split"),
    "21 fractions in COCO": (lambda r: coco_set(r, *(coco([f"{s}.jpg"], box=(0.25, 0.25, 0.5, 0.5)) for s in "tv")), "fractions of the picture, where pixels are meant"),
    "21 fractions in VOC": (lambda r: voc(r, box=(0.25, 0.25, 0.75, 0.75)), "fractions of the picture, where pixels are meant"),
    "21 percent": (percent, "percent, where pixels are meant"),
    "21 percent, one or two boxes to a split": (lambda r: percent(r, 2), "train and val: 4 of 4 boxes lie between 0 and 100, in pictures of at least 250 pixels: percent, where pixels are meant"),
    "small objects near the corner": (lambda r: percent(r, 4, (10, 10, 70, 70)), "warning: train: 4 of 4 boxes lie between 0 and 100, in pictures of at least 250 pixels: percent?"),
    "signs in a corner": (lambda r: signs(r), "warning: train: 8 of 8 boxes lie between 0 and 100, in pictures of at least 250 pixels: percent?"),
    "21 pixels in YOLO": (lambda r: yolo(r, row="{k} 24 18 16 12\n"), "has numbers up to 32 where YOLO's format has fractions"),
    "21 fractions in val alone": (lambda r: coco_set(r, None, coco(["v0.jpg", "v1.jpg"], box=(0.25, 0.25, 0.5, 0.5))), "val: 2 of 2 box(es) lie between 0 and 1: fractions"),
    "21 fractions and one odd box": (lambda r: with_text(voc(r, "abcdef", "ef", box=(0.25, 0.25, 0.75, 0.75)), "Annotations/a.xml", xml()), "train: 3 of 4 box(es) lie between 0 and 1: fractions"),
    "14 two corners in val alone": (lambda r: coco_set(r, None, coco(["v0.jpg", "v1.jpg"], box=(30, 20, 60, 44))), "val: 2 of 2 box(es) leave their picture, and 2 would fit as two corners"),
    "14 a slip among boxes near the corner": (lambda r: coco_set(r, slip_of_many()), "warning: annotation 0 (id 1) box (60, 40, 63, 47): mostly outside the image"),
    "14 two corners and one odd box": (odd_corner, "would fit as two corners x0, y0, x1, y1"),
    "large boxes, a pixel too wide": (lambda r: coco_set(r, *(coco([f"{s}{k}.jpg" for k in range(2)], box=(5, 4, 60, 40)) for s in "tv")), None),
    "large boxes, cut at the right": (lambda r: coco_set(r, coco(["t0.jpg", "t1.jpg"], box=(10, 4, 59, 40)), coco(["v0.jpg"], box=(10, 4, 50, 40))), None),
    "large boxes in YOLO, rounded": (lambda r: yolo(r, row="{k} 0.51 0.51 1.00 1.00\n"), None),
    "large boxes in YOLO, cut at the left": (lambda r: yolo(r, row="{k} 0.4 0.4 0.85 0.85\n"), None),
    "two corners in YOLO": (lambda r: yolo(r, row="{k} 0.7 0.2 0.9 0.5\n"), "2 of 2 box(es) leave their picture, and 2 would fit as two corners x0, y0, x1, y1, where YOLO has centre and size"),
    "width and height in VOC": (lambda r: voc(r, "abcdef", "", box=(17, 13, 32, 24)) and with_text(with_text(voc(r, "abcdef", "ef"), "Annotations/a.xml", xml(box=(40, 30, 16, 12))), "Annotations/b.xml", xml(box=(50, 20, 10, 12))), "2 of 4 box(es) have no area"),
    "corners swapped": (lambda r: voc(r, box=(32, 24, 17, 13)), "2 of 2 box(es) have no area"),
    "all objects are crowds": (lambda r: coco_set(r, coco(["t0.jpg", "t1.jpg"], iscrowd=1)), "no picture of the training split has an object that can be used: all 2 box(es) are dropped"),
    "two boxes, one without area and one crowd": (lambda r: coco_set(r, none_left()), "no picture of the training split has an object that can be used"),
    "no objects in val": (lambda r: with_text(with_text(voc(r), "Annotations/c.xml", xml(box=None)), "Annotations/d.xml", xml(box=None)), "warning: no picture of val has an object; without one, AP cannot be measured"),
    "25 a picture without annotation": (lambda r: with_list(with_picture(voc(r), "JPEGImages/empty.jpg"), "empty\n"), "warning: 1 picture(s) without annotation are left out: empty.jpg"),
    "25 a name without picture": (lambda r: with_list(voc(r), "ghost\n"), "ghost has neither picture nor annotation"),
    "26 parts and actions": (lambda r: with_text(voc(r), "Annotations/a.xml", xml(extra="<object><name>cup</name><part><name>head</name><bndbox><xmin>20</xmin><ymin>18</ymin><xmax>30</xmax>"
                                                 "<ymax>28</ymax></bndbox></part><bndbox><xmax>48.4</xmax><xmin>17.2</xmin><ymax>40</ymax><ymin>17</ymin></bndbox></object>")), None),
    "25 a picture that no COCO file lists": (lambda r: with_picture(coco_set(r), "images/empty.jpg"), None),
    "26 endings of all kinds": (lambda r: with_picture(with_picture(voc(r, "abcd", "cd"), "JPEGImages/e.JPG"), "JPEGImages/f.webp"), None),
    "26 a picture of one pixel": (lambda r: with_picture(with_text(voc(r), "Annotations/a.xml", xml(box=(1, 1, 2, 2), size=(1, 1))), "JPEGImages/a.jpg", size=(1, 1)), None),
    "26 a crowd as RLE, and an id twice": (doubled, "warning: 2 annotation(s) have the id of another"),
    "a box of one pixel": (lambda r: with_text(voc(r), "Annotations/a.xml", xml(box=(5, 5, 5, 5))), None),
    "a box without area": (lambda r: with_text(voc(r), "Annotations/a.xml", xml(box=(5, 5, 4, 5))), "warning: cup box (5, 5, 4, 5): no area"),
    "a box that is no number": (lambda r: with_text(voc(r), "Annotations/a.xml", xml(box=("nan", 5, 9, 9))), "not a number"),
    "a class that the list lacks": (lambda r: with_text(voc(r), "classes.txt", "cup\n"), "unknown class 'spoon' (2 object(s)), not among cup"),
    "a class without objects": (lambda r: with_text(voc(r), "classes.txt", "cup\nspoon\nfork\n"), "warning: 1 class(es) are listed and have no object: fork"),
    "a picture of another size": (lambda r: with_picture(voc(r), "JPEGImages/a.jpg", size=(50, 50)), "is 50 x 50 pixels, its annotation says 64 x 48"),
    "the same picture twice": (lambda r: with_list(voc(r), "c\n"), "warning: 1 picture(s), this one first, are in train and in val"),
    "no objects": (lambda r: voc(r, box=None), "no picture of the training split has an object"),
    "an empty list": (lambda r: with_text(voc(r), "ImageSets/Main/train.txt", "\n"), "is empty"),
    "an empty split": (lambda r: coco_set(r, None, {**coco([]), "images": []}), "lists no images"),
    "two files for one split": (lambda r: with_text(with_text(coco_set(r), "annotations/instances_train2014.json", "{}"), "annotations/instances_train.json", "{}"), "has no list 'images'"),
    "two years": (lambda r: two_years(coco_set(r)), "instances_train2014.json and annotations/instances_train2017.json both fit split 'train'"),
    "a path that climbs": (lambda r: outside(r, "../secret.jpg"), "which is outside"),
    "an absolute path": (lambda r: outside(r, None), "which is outside"),
    "a name in a list that climbs": (lambda r: with_list(voc(r), "../../secret\n"), "has neither picture nor annotation"),
    "a yaml that climbs": (lambda r: yolo(r, yaml="train: ../../../etc\nval: images/val\nnames: [cup, spoon]\n"), "which is not in"),
    "a yaml that is absolute": (lambda r: yolo(r, yaml="train: /etc\nval: images/val\nnames: [cup, spoon]\n"), "which is outside"),
    "an entity bomb": (lambda r: with_text(voc(r), "Annotations/a.xml", '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;">]><annotation>&c;</annotation>'), "holds a DOCTYPE"),
    "a cut XML": (lambda r: with_text(voc(r), "Annotations/a.xml", xml()[:60]), "broken XML"),
    "an empty XML": (lambda r: with_text(voc(r), "Annotations/a.xml", ""), "broken XML"),
    "an XML of something else": (lambda r: with_text(voc(r), "Annotations/a.xml", "<annotations><version>1.1</version></annotations>"), "is no VOC annotation: it begins with <annotations>"),
    "a cut JSON": (lambda r: with_text(coco_set(r), "annotations/instances_train.json", json.dumps(coco(["t0.jpg"]))[:80]), "broken JSON at line 1"),
    "an empty JSON": (lambda r: with_text(coco_set(r), "annotations/instances_train.json", ""), "not a JSON text file"),
    "a cut label file": (lambda r: with_text(yolo(r), "labels/train/train0.txt", "0 0.5 0.5 0.2"), "row 1, '0 0.5 0.5 0.2', is not a class and four fractions"),
    "a class beyond the list": (lambda r: with_text(yolo(r), "labels/train/train0.txt", "2 0.5 0.5 0.2 0.2"), "row 1 has class 2, and the set has classes 0 to 1"),
    "outlines in YOLO": (lambda r: yolo(r, row="{k} 0.25 0.25 0.5 0.25 0.5 0.5\n"), None),
    "keypoints in YOLO": (lambda r: yolo(r, row="{k} 0.375 0.375 0.25 0.25 0.3 0.3 2 0.4 0.4 1\n", yaml="train: images/train\nval: images/val\nkpt_shape: [2, 3]\nnames: [cup, spoon]\n"), None),
    "detections in YOLO": (lambda r: yolo(r, row="{k} 0.375 0.375 0.25 0.25 0.9\n"), "is not a class and four fractions"),
    "two pictures of one label file": (lambda r: with_picture(yolo(r), "images/train/train0.png"), "train0.jpg and train0.png both are its picture"),
    "YOLO in capitals": (lambda r: yolo(r, "Images/{split}", "Labels/{split}", "train: Images/train\nval: Images/val\nnames: [cup, spoon]\n"), None),
    "YOLO with .TXT": (capital_endings, None),
    "YOLO with valid": (lambda r: yolo(r, yaml="train: images/train\nvalid: images/val\nnames: [cup, spoon]\n"), None),
    "a class without name in YOLO": (lambda r: yolo(r, yaml="train: images/train\nval: images/val\nnames: ['', spoon]\n"), "has no name for class 0"),
    "a class without name in COCO": (lambda r: coco_set(r, coco(["t0.jpg"], [{"id": 1, "name": " "}])), "category 1 has an empty name"),
    "a category named null in COCO": (lambda r: coco_set(r, coco(["t0.jpg"], [{"id": 1, "name": None}])), "category 1 has the name None, which is no text"),
    "a category named by a list in COCO": (lambda r: coco_set(r, coco(["t0.jpg"], [{"id": 1, "name": ["cup"]}])), "category 1 has the name ['cup'], which is no text"),
    "a second yaml with other names": (lambda r: with_text(yolo(r), "dataset.yaml", "train: images/train\nval: images/val\nnames: [mug, fork]\n"), "warning: dataset.yaml: describes a set, too, and is not read: data.yaml counts"),
    "a second yaml with the same": (lambda r: with_text(yolo(r), "dataset.yaml", "train: images/train\nval: images/val\nnames: [cup, spoon]\n"), None),
    "an empty line among the names": (lambda r: yolo(r, "{split}", "{split}", "cup\n\nspoon\n", "2 0.375 0.375 0.25 0.25\n", file="classes.txt"), "has no name for class 1"),
    "a missing picture in COCO": (lambda r: (coco_set(r) / "images/t0.jpg").unlink() or r, "images/t0.jpg: no such picture"),
    "annotated pictures beside train": (lambda r: flat(flat(flat(r, where="train"), where="val"), where="plane"), "warning: 4 annotated picture(s), this one first, are in no split"),
    "annotated YOLO pictures beside train": (lambda r: yolo(r, "{split}", "{split}", "cup\nspoon\n", splits=("train", "val", "plane"), file="classes.txt"), "warning: 2 annotated picture(s), this one first, are in no split"),
    "an empty folder of pictures in YOLO": (lambda r: [shutil.rmtree(yolo(r) / "images/val"), (r / "images/val").mkdir(), r][2], "names val, where no picture is"),
    "label files without pictures": (lambda r: with_text(yolo(r), "labels/train/lost.txt", "0 0.5 0.5 0.1 0.1"), "warning: 1 label file(s), this one first, have no picture"),
    "classes that hardly differ": (lambda r: voc(r, classes=("Cup", "cup")), "warning: classes 'Cup' and 'cup' count as different, and hardly differ"),
    "classes that are letters": (lambda r: voc(r, classes=("A", "a")), None),
    "the other case of a picture's ending": (lambda r: (coco_set(r) / "images/t0.jpg").rename(r / "images/t0.JPG") and r, None),
    "names of other pictures in VOC": (lambda r: with_text(voc(r), "Annotations/a.xml", xml(filename="b.jpg")), "warning: 1 XML file(s), this one first, name another picture that is there in <filename>, b.jpg"),
    "a box drawn twice": (lambda r: with_text(voc(r), "Annotations/a.xml", xml(extra=re.search("<object>.*</object>", xml())[0])), "warning: 1 box(es) of 1 picture(s), this one first, are there twice"),
    "names as a list of dicts": (lambda r: yolo(r, yaml="train: images/train\nval: images/val\nnames:\n- 0: cup\n- 1: spoon\n"), None),
    "most pictures without label file": (lambda r: [with_picture(yolo(r), f"images/train/more{k}.jpg") for k in range(3)][0], "warning: 3 of 5 picture(s) of train without label file count as backgrounds: more0.jpg, more1.jpg, more2.jpg; if there are objects in them"),
    "a README among the label files": (lambda r: with_text(yolo(r), "labels/train/README.txt", "Labels of the training pictures.\n"), None),
    "12 bits in a file of 16": (deep, "warning: is nearly black; look at it; was it saved with more than 8 bits?"),
    "no label files": (lambda r: shutil.rmtree(yolo(r) / "labels") or r, "none of the 2 pictures of train has a label file"),
    "no names of classes": (lambda r: yolo(r, "images", "labels", None, splits=("t",)), "no names of the classes"),
    "a yaml that says two things": (lambda r: yolo(r, yaml="train: images/train\nval: images/val\nnc: 3\nnames: [cup, spoon]\n"), "says nc: 3 and names 2 classes"),
    "a link in place of a label file": (lambda r: dangling(yolo(r), "labels/train/train0.txt"), "labels/train/train0.txt: is a link that leads nowhere; fetch what it points to, or remove the link"),
    "a link in place of label files beside pictures": (lambda r: dangling(with_text(yolo(r, "{split}", "{split}", None), "classes.txt", "cup\nspoon"), "train/train0.txt"), "train/train0.txt: is a link that leads nowhere"),
    "a link in place of a folder of labels": (lambda r: dangling(yolo(r), "labels/train"), "labels/train: is a link that leads nowhere"),
    "a link in place of an XML file": (lambda r: dangling(voc(r), "Annotations/a.xml"), "Annotations/a.xml: is a link that leads nowhere"),
    "a link in place of an XML file beside pictures": (lambda r: dangling(flat(r / "train").parent and flat(r / "val").parent, "train/a.xml"), "train/a.xml: is a link that leads nowhere"),
    "a link in place of a JSON file": (lambda r: dangling(coco_set(r), "annotations/instances_train.json"), "instances_train.json: is a link that leads nowhere"),
    "a link in place of a list": (lambda r: dangling(voc(r), "ImageSets/Main/val.txt"), "val.txt: is a link that leads nowhere"),
    "a link in place of the classes": (lambda r: dangling(voc(r), "classes.txt"), "classes.txt: is a link that leads nowhere"),
    "a link in place of a picture in VOC": (lambda r: dangling(voc(r), "JPEGImages/a.jpg"), "a.xml: no picture a.* of this annotation"),
    "a link in place of a picture in COCO": (lambda r: dangling(coco_set(r), "images/t0.jpg"), "images/t0.jpg: is a link that leads nowhere"),
    "a link in place of a picture in YOLO": (lambda r: dangling(yolo(r), "images/train/train0.jpg"), "warning: 1 link(s) to pictures lead nowhere, images/train/train0.jpg first, and are left out; fetch what they point to"),
    "links to more pictures in VOC": (lambda r: dangling(voc(r), "JPEGImages/x.jpg", "JPEGImages/y.jpg"), "warning: 2 link(s) to pictures lead nowhere, JPEGImages/x.jpg first"),
    "links to more pictures in COCO": (lambda r: dangling(coco_set(r), "images/x.jpg"), "warning: 1 link(s) to pictures lead nowhere, images/x.jpg first"),
    "links to more pictures in YOLO": (lambda r: dangling(with_text(yolo(r, "{split}", "{split}", None), "classes.txt", "cup\nspoon"), "train/x.jpg"), "warning: 1 link(s) to pictures lead nowhere, train/x.jpg first"),
    "all pictures are links": (lambda r: dangling(with_text(yolo(r, "{split}", "{split}", None), "classes.txt", "cup\nspoon"), *(f"{split}/{split}{k}.jpg" for split in ("train", "val") for k in (0, 1))), "has no pictures, but 4 link(s) that lead nowhere, train/train0.jpg first"),
    "a README that is a link": (lambda r: dangling(voc(r), "README", "notes.txt"), None),
    "YOLO boxes that were divided twice": (lambda r: yolo(r, row="{k} 0.006 0.008 0.004 0.005\n"), "train: 2 of 2 box(es) are smaller than a pixel; check the export"),
    "VOC boxes smaller than a pixel": (lambda r: voc(r, box=(20.1, 10.1, 20.9, 10.2)), "train: 2 of 2 box(es) are smaller than a pixel"),
    "COCO boxes smaller than a pixel": (lambda r: coco_set(r, coco(["t0.jpg", "t1.jpg"], box=(16, 12, 0.01, 0.01))), "train: 2 of 2 box(es) are smaller than a pixel"),
    "VOC boxes of a pixel": (lambda r: voc(r, box=(20, 10, 20, 10)), None),
    "boxes thinner than a pixel": (lambda r: yolo(r, row="{k} 0.375 0.375 0.25 0.001\n"), None),
    "a box smaller than a pixel among others": (lambda r: coco_set(r, slip_of_a_pixel()), None),
    "pictures that a VOC box leaves by a pixel": (lambda r: voc(r, "abcde", "de", ("cup",), box=(1, 1, 65, 49)), "warning: train: 3 of 3 boxes leave their picture on one side (right, bottom): an offset"),
    "nothing to train on": (lambda r: one_json(r, "annotations/instances_val.json", "images"), "has no pictures to train on"),
}


def test_links_where_a_part_is_kept_for_validation(tmp_path):
    "Neither backgrounds nor a missing val: what is annotated elsewhere is asked for. Lists of darknet, too."
    for root, options in ((dangling(coco_set(tmp_path / "coco"), "annotations/instances_val.json"), {}), (dangling(voc(tmp_path / "voc", lists=False), "Annotations/a.xml"), {"backgrounds": True})):
        assert "is a link that leads nowhere" in stage_of_train(root, val_share=0.5, **options)
    root = with_text(yolo(tmp_path / "darknet", "data", "data", None), "classes.txt", "cup\nspoon")
    for split in ("train", "val"): put(root / f"{split}.txt", f"data/{split}0.jpg\ndata/{split}1.jpg\n")
    assert check_dataset(root).ok
    dangling(root, "train.txt")
    assert "train.txt: is a link that leads nowhere" in open_refusal_of(root)
    root = dangling(coco_set(tmp_path / "more"), "images/x.jpg")
    assert stage_of_train(root, backgrounds=True) == "" and "1 link(s) to pictures lead nowhere" in str(check_dataset(root, backgrounds=True))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without named pipes")
@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device here")
def test_a_device_is_no_file():
    with pytest.raises(DataError, match="is a pipe or a device"): read_file_bytes(Path("/dev/zero"))


def test_a_pipe_is_no_file(tmp_path):
    "None is read, which would never end: pictures and lists as if they were not there, labels and what is named by others by name."
    def piped(root, name):
        (root / name).unlink(missing_ok=True)
        os.mkfifo(root / name)
        return root
    assert len(open_sets(piped(yolo(tmp_path / "1"), "images/train/f.png")).splits["train"]) == 2
    assert len(open_sets(piped(voc(tmp_path / "2"), "JPEGImages/f.jpg")).splits["train"]) == 2
    assert check_dataset(piped(coco_set(tmp_path / "3"), "more.json"), backgrounds=True).ok
    assert "labels/train/train0.txt: is a pipe or a device, and no file; put the file itself there" in open_refusal(piped(yolo(tmp_path / "4"), "labels/train/train0.txt"))
    assert "images/t0.jpg: cannot be read as a picture (it is a pipe or a device)" in open_refusal(piped(coco_set(tmp_path / "5"), "images/t0.jpg"))
    assert "instances_train.json: is a pipe or a device" in open_refusal(piped(coco_set(tmp_path / "6"), "annotations/instances_train.json"))
    assert "data.yaml: is a pipe or a device" in open_refusal_of(piped(yolo(tmp_path / "7"), "data.yaml"))
    assert find_pictures([piped(flat(tmp_path / "8"), "f.png")]) == [tmp_path / f"8/{name}.jpg" for name in "abcd"]


def two_years(root):
    for year in (2014, 2017): shutil.copy(root / "annotations/instances_train.json", root / f"annotations/instances_train{year}.json")
    (root / "annotations/instances_train.json").unlink()
    return root


def outside(root, name):
    picture(root.parent / "secret.jpg")
    data = coco(["t0.jpg", "t1.jpg"])
    coco_set(root, data)
    data["images"][0]["file_name"] = name or str(root.parent / "secret.jpg")
    put(root / "annotations/instances_train.json", json.dumps(data))
    return root


def stage_of_train(root, **options) -> str:
    "What `nanodetr train` says of a folder before it builds a model: the refusal, or empty."
    try: prepare_data(str(root), "nano", DETRConfig.preset("nano"), **options)
    except NanodetrError as error: return str(error)
    return ""


@pytest.mark.parametrize("case", CASES)
def test_check_and_train_agree(case, tmp_path, capsys):
    draw, expected = CASES[case]
    root = draw(tmp_path / "set")
    options = {"val_share": 0.5} if "my.json" in os.listdir(root) else {}
    try: report = check_dataset(root, **options)
    except DataError as error: said, ok, clean = str(error), False, False
    else: said, ok, clean = str(report), report.ok, "no problems" in str(report)
    refusal = stage_of_train(root, **options)
    assert ok == (refusal == ""), (said, refusal)
    assert "\n" not in refusal and (clean or not clean and (refusal or expected is not None)), said
    if expected is None: assert clean and "warning" not in capsys.readouterr().err, said
    elif expected.startswith("warning: "):
        assert ok and expected[9:] in said, said
        assert "warning" in capsys.readouterr().err  # train says so, too
    else: assert expected in refusal and expected in said and "; " in refusal, (said, refusal)


@pytest.mark.parametrize("side", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("kind", ["coco", "yolo"])
def test_two_corners_are_told_from_large_boxes(kind, side, tmp_path):
    "Objects of a size all over the picture: as corners they are refused, as the format has them they are not; nor are large ones that reach a pixel too far."
    draw, objects = random.Random(0), []
    for _ in range(40):
        w, h = side * draw.uniform(0.7, 1.1), side * draw.uniform(0.7, 1.1)
        x, y = draw.uniform(0, 1 - w), draw.uniform(0, 1 - h)
        objects.append((x, y, x + w, y + h))
    large = [(x / 4, y / 4, 1 + draw.uniform(-0.1, 0.015), 1 + draw.uniform(-0.1, 0.015)) for x, y, *_ in objects]

    def check(name, boxes, corners):
        root = tmp_path / name
        rows = [(x0, y0, x1, y1) if corners else (x0, y0, x1 - x0, y1 - y0) if kind == "coco" else ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes]
        if kind == "yolo":
            yolo(root, yaml="train: images/train\nval: images/val\nnames: [cup]\n")
            for path in root.glob("labels/*/*.txt"): put(path, "".join(f"0 {x:.5f} {y:.5f} {w:.5f} {h:.5f}\n" for x, y, w, h in rows))
        else:
            data = coco(["t0.jpg", "t1.jpg"])
            data["annotations"] = [{"id": k, "image_id": k % 2, "category_id": 1, "bbox": [64 * x, 48 * y, 64 * w, 48 * h]} for k, (x, y, w, h) in enumerate(rows)]
            coco_set(root, data)
        return str(check_dataset(root))
    assert "would fit as two corners" in check("corners", objects, True)
    for name, boxes in (("sound", objects), ("large", large)): assert "error" not in check(name, boxes, False)


def poses(draw, side: float, each: int, count: int = 30):
    "Rows of YOLO: a box of about this side, and four points in it; each: numbers for a point."
    for _ in range(count):
        w, h = side * draw.uniform(0.7, 1.1), side * draw.uniform(0.7, 1.3)
        x, y = draw.uniform(w / 2, 1 - w / 2), draw.uniform(h / 2, 1 - h / 2)
        yield [x, y, w, h, *(value for k in range(4) for value in (x + draw.uniform(-0.45, 0.45) * w, y + draw.uniform(-0.45, 0.45) * h, k % 2)[:each])]


def outlines(draw, side: float, corners: int, count: int = 30):
    "Rows of YOLO: round outlines of about this side."
    for _ in range(count):
        x, y, turn, r = draw.uniform(side / 2, 1 - side / 2), draw.uniform(side / 2, 1 - side / 2), draw.uniform(0, 7), side / 2 * draw.uniform(0.7, 1)
        yield [value for k in range(corners) for value in (x + r * math.cos(turn + 2 * math.pi * k / corners), y + r * math.sin(turn + 2 * math.pi * k / corners))]


@pytest.mark.parametrize("side", [0.05, 0.2, 0.8])
def test_keypoints_without_kpt_shape_are_no_outlines(side, tmp_path):
    draw = random.Random(0)

    def check(name, rows, yaml=""):
        root = yolo(tmp_path / name, yaml=f"train: images/train\nval: images/val\nnames: [cup]\n{yaml}")
        for path in root.glob("labels/*/*.txt"): put(path, "".join("0 " + " ".join(f"{value:.6g}" for value in row) + "\n" for row in rows))
        return str(check_dataset(root)), root
    for each in (2, 3):
        rows = list(poses(draw, side, each))
        said, root = check(f"pose{each}", rows)
        assert f"data.yaml: has no kpt_shape, and the rows of train look like a box and 4 keypoint(s) each; write kpt_shape: [4, {each}] into data.yaml" in said and "has no kpt_shape" in stage_of_train(root)
        assert "error" not in check(f"said{each}", rows, f"kpt_shape: [4, {each}]\n")[0]
    for corners in (4, 5, 6, 8, 20): assert "kpt_shape" not in check(f"outline{corners}", list(outlines(draw, side, corners)))[0], corners


@pytest.mark.parametrize("row, remedy", [("{k} 0.375 0.375 0.25 0.25 0.9\n", "a score stands behind the box: predict without it (save_conf=False), or take it out"), ("cup 0.375 0.375 0.25 0.25\n", "write the number of the class, counted from 0, in place of its name"),
                                         ("{k} 0.375 0.375 0.25 0.25 0.3 0.3 2\n", "if keypoints stand behind the box, write kpt_shape: [1, 3] into data.yaml")])
def test_rows_of_another_kind_are_said_once(row, remedy, tmp_path):
    report = check_dataset(yolo(tmp_path, row=row))
    found = [one for one in report.findings.of("error") if "is not a class and four fractions" in one.what]
    assert [one.remedy for one in found] == [remedy] * 2 and "train0.txt" in found[0].file and found[0].what.endswith("(nor are 1 more of train)")


# ---------------------------------------------------------------- the commands themselves

@pytest.mark.parametrize("tool, flags", [("CVAT VOC", ["--val-share", "0.5", "--seed", "3"]), ("Roboflow YOLO", []), ("Roboflow COCO", [])])
def test_a_tools_folder_is_trained(tool, flags, tmp_path, capsys):
    root, out = TOOLS[tool][0](tmp_path / "set"), tmp_path / "run"
    assert main(["check", str(root), *flags]) == 0
    assert main(["train", "--data", str(root), "--overfit", "2", "--epochs", "1", "--quiet", "--out", str(out), *flags]) == 0
    assert json.loads((out / "config.json").read_text())["classes"] == open_sets(root, **({"val_share": 0.5, "seed": 3} if flags else {})).classes
    if not flags: return
    names = {split: (out / f"{split}.txt").read_text().split() for split in ("train", "val")}
    assert sorted(names["train"] + names["val"]) == [f"JPEGImages/{name}.jpg" for name in "abcd"] and len(names["val"]) == 2
    assert open_sets(root, val_share=0.5, seed=3).names("val") == names["val"]
    picture(root / "JPEGImages/e.jpg"), put(root / "Annotations/e.xml", xml())  # the folder grows; the run's val stays
    put(root / "ImageSets/Main/default.txt", "a\nb\nc\nd\ne\n")
    assert main(["train", "--resume", "--out", str(out), "--quiet"]) == 0 and (out / "val.txt").read_text().split() == names["val"]
    capsys.readouterr()
    assert main(["evaluate", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["AP"] >= -1


def test_flags_that_make_no_sense(tmp_path, capsys):
    root = voc(tmp_path / "set")
    for share in ("0", "1", "-0.2", "nan", "20"):
        assert main(["check", str(root), "--val-share", share]) == 2 and "between 0 and 1" in capsys.readouterr().err
    assert main(["check", str(root), "--seed", "-1"]) == 2 and "--seed is -1: it is a whole number from 0" in capsys.readouterr().err
    assert main(["check", str(root), "--val-share", "0.2"]) == 1 and "has a val split of its own; leave out --val-share" in capsys.readouterr().out


def test_backgrounds_where_asked(tmp_path):
    root = with_list(with_picture(voc(tmp_path / "set"), "JPEGImages/empty.jpg"), "empty\n")
    folder = open_sets(root, backgrounds=True)
    assert len(folder.splits["train"]) == 3 and folder.splits["train"][2].objects == [] and len(open_sets(root).splits["train"]) == 2
    assert "count as backgrounds: empty.jpg" in str(check_dataset(root, backgrounds=True))
    root = one_json(tmp_path / "coco", "annotations/instances_train.json", "images/train")
    one_json(root, "annotations/instances_val.json", "images/val", "ef"), picture(root / "images/train/empty.jpg")
    assert "1 picture(s) are listed by no file, and are left out: empty.jpg" in str(check_dataset(root))
    assert [len(open_sets(root, backgrounds=more).splits["train"]) for more in (False, True)] == [4, 5]
    assert len(open_dataset(root, "train", backgrounds=True)[4][1]["labels"]) == 0


def test_outside_where_allowed(tmp_path):
    for name in ("../secret.jpg", None):
        root = outside(tmp_path / f"set{name is None}", name)
        data = open_dataset(root, "train", allow_outside=True)
        assert data.path(0).resolve() == (tmp_path / "secret.jpg").resolve() and check_dataset(root, allow_outside=True).ok
        with pytest.raises(DataError, match="--allow-outside"): CocoDataset(root / "images", root / "annotations/instances_train.json")
        CocoDataset(root / "images", root / "annotations/instances_train.json", allow_outside=True) if name is None else None


def test_a_path_that_climbs_and_stays_inside_is_fine(tmp_path):
    root = coco_set(tmp_path / "set")
    for split in "train", "val":
        data = json.loads((root / f"annotations/instances_{split}.json").read_text())
        for row in data["images"]: row["file_name"] = f"../images/{row['file_name']}"
        put(root / f"annotations/instances_{split}.json", json.dumps(data))
    assert check_dataset(root).ok and open_dataset(root, "val").path(0).resolve() == (root / "images/v0.jpg").resolve()


# ---------------------------------------------------------------- classes meet by name

@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [0, 2]])
def test_labels_follow_names(order, tmp_path):
    "Val lists the classes in another order, or fewer of them: each picture of val has the label that its name has in train."
    names = ["A", "B", "C"]
    train = coco(["t0.jpg", "t1.jpg", "t2.jpg"], [{"id": k, "name": name} for k, name in enumerate(names)], lambda k: k)
    val = coco([f"v{k}.jpg" for k in range(len(order))], [{"id": k, "name": names[n]} for k, n in enumerate(order)], lambda k: k)
    root = coco_set(tmp_path, train, val)
    for data in (open_sets(root).dataset("val"), open_dataset(root, "val")):
        assert data.classes == names and [int(data.get_target(k)["labels"][0]) for k in range(len(order))] == order


def test_the_root_category_is_dropped_in_evaluation_too(tmp_path):
    from nanodetr.evaluation import evaluate_detections
    from nanodetr.datasets.coco import read_coco_results
    root = CASES["01 a root category of the same name"][0](tmp_path)
    truth = json.loads((root / "valid/_annotations.coco.json").read_text())
    put(tmp_path / "dt.json", json.dumps([{"image_id": row["image_id"], "category_id": 1, "bbox": row["bbox"], "score": 0.9} for row in truth["annotations"]]))
    with pytest.warns(UserWarning, match="category 'cup' is only the root"): found, targets, classes = read_coco_results(root / "valid/_annotations.coco.json", tmp_path / "dt.json")
    assert classes == ["cup"] and evaluate_detections(found, targets)["AP"] == pytest.approx(1)
    assert open_dataset(root, "train").classes == open_dataset(root, "val").classes == ["cup"]


def test_a_test_split_in_another_format_is_said(tmp_path):
    root = coco_set(tmp_path)
    put(root / "annotations/instances_test.json", json.dumps(coco(["v0.jpg", "v1.jpg"], box=(0.2, 0.2, 0.5, 0.5))))
    report = check_dataset(root)
    assert report.ok and "test: 2 of 2 box(es) lie between 0 and 1" in str(report) and stage_of_train(root) == ""
    with pytest.raises(DataError, match="test: 2 of 2 box"): open_dataset(root, "test")


def test_test_may_be_broken_and_is_said(tmp_path):
    "Training needs train and val; what is wrong with other splits is a warning."
    root = with_text(voc(tmp_path), "ImageSets/Main/test.txt", "ghost\n")
    report = check_dataset(root)
    assert report.ok and any("ghost" in what for _, what in report.problems) and stage_of_train(root) == ""
    with pytest.raises(DataError, match="ghost"): open_dataset(root, "test")


# ---------------------------------------------------------------- true names

def test_a_file_system_that_ignores_case(tmp_path, monkeypatch):
    "As on macOS and Windows, every question is answered without regard to case; a COCO folder stays one, and so does VOC's."
    plain = {name: getattr(os.path, name) for name in ("exists", "isdir", "isfile")}

    def forgiving(ask):
        def answer(path):
            here = Path(path)
            if ask(here): return True
            try: return any(one.name.lower() == here.name.lower() and ask(one) for one in here.parent.iterdir())
            except OSError: return False
        return answer
    coco_set(tmp_path / "coco"), voc(tmp_path / "voc"), flat(tmp_path / "Annotations" / "x")
    for method, name in (("exists", "exists"), ("is_dir", "isdir"), ("is_file", "isfile")):
        monkeypatch.setattr(Path, method, lambda self, ask=forgiving(plain[name]), **_: ask(self))
    assert (tmp_path / "coco/Annotations").is_dir()  # the trap is set
    assert recognise(tmp_path / "coco")[0].name == "COCO" and recognise(tmp_path / "voc")[0].name == "Pascal VOC"
    assert check_dataset(tmp_path / "coco").ok and check_dataset(tmp_path / "voc").ok


@pytest.mark.parametrize("line", ["JPEGImages/{}.jpg", "./JPEGImages/{}.jpg", "C:\\data\\JPEGImages\\{}.jpg", "/home/me/set/JPEGImages/{}.jpg", "Annotations/{}.xml",
                                  "JPEGImages/{0}.jpg Annotations/{0}.xml", "./JPEGImages/{0}.jpg\t./Annotations/{0}.xml", "# a list\n{}"])
def test_lists_with_paths(line, tmp_path):
    root = voc(tmp_path, ["cam/a", "cam/b", "cam/c", "cam/d"])
    for split, names in (("train", "ab"), ("val", "cd")): put(root / f"ImageSets/Main/{split}.txt", "".join(line.format(f"cam/{name}") + "\n" for name in names))
    assert check_dataset(root).ok and open_sets(root).names("train") == ["JPEGImages/cam/a.jpg", "JPEGImages/cam/b.jpg"]


@pytest.mark.parametrize("before", ["/home/me/set/images/", "C:\\Users\\me\\images\\", "/data/local-files/?d=images/", "https://label.studio/data/upload/1/"])
def test_paths_of_another_machine(before, tmp_path):
    "Their ends are looked for in the set."
    root = one_json(tmp_path / "coco", "result.json", "images", prefix=before)
    assert check_dataset(root, val_share=0.5).ok and open_sets(root, val_share=0.5).root == root
    (root / "images/a.jpg").rename(tmp_path / "a.jpg")
    assert not check_dataset(root, val_share=0.5).ok
    if "images" not in before: return
    before = before.partition("images")[0].replace("?d=", "")
    lists = yolo(tmp_path / "lists", yaml=f"train: train.txt\nval: '{before}images/val'\nnames: [cup, spoon]\n")
    put(lists / "train.txt", "".join(f"{before}images/train/train{k}.jpg\n" for k in range(2)) + "# the end\n")
    assert check_dataset(lists).ok and open_sets(lists).names("train") == ["images/train/train0.jpg", "images/train/train1.jpg"]


def test_check_and_train_name_a_large_picture_alike(tmp_path, monkeypatch):
    root = voc(tmp_path / "set")
    monkeypatch.setenv("NANODETR_MAX_PIXELS", "3000")
    assert "a.jpg: 64 x 48 are" in str(check_dataset(root)) and "a.jpg: 64 x 48 are" in open_refusal(root)


@pytest.mark.parametrize("train, val, place", [
    ("/home/me/set/train/images", "/home/me/set/valid/images", "images/{split}"), ("D:\\set\\train\\images", "images/val", "images/{split}"),
    ("/one/pictures", "/two/pictures", "pictures/{split}"), ("images/train", "/home/me/images", "images/{split}")])
def test_an_end_that_all_splits_share_is_no_place(train, val, place, tmp_path):
    "Of another machine's path, the folder that holds the pictures of all splits is not taken for one of them."
    root = yolo(tmp_path / "set", place, place.replace("images", "labels"), f"train: {train}\nval: {val}\nnames: [cup, spoon]\n")
    found = open_refusal(root)
    assert "which is not in" in found and "; put the pictures there, or correct the path" in found
    shutil.rmtree(root / place.format(split="val"))
    assert "which is not in" in open_refusal(root)


def open_refusal(root):
    with pytest.raises(DataError) as error: open_sets(root)
    assert not check_dataset(root).ok
    return str(error.value)


def test_a_test_folder_that_is_everything_is_not_there(tmp_path):
    root = yolo(tmp_path / "set", yaml="train: images/train\nval: /home/me/set/images/val\ntest: /home/me/set/test/images\nnames: [cup, spoon]\n")
    report = check_dataset(root)
    assert report.ok and list(report.folder.splits) == ["train", "val"]


@pytest.mark.parametrize("text, encoding, says", [("чашка", "cp1251", "read as Windows-1252"), ("컵컵컵", "cp949", "read as "), ("Krug für Öl", "cp1252", "read as Windows-1252"),
                                                 ("чашка", "utf-8", None), ("чашка", "utf-16", None), ("cup", "ascii", None)])
def test_a_guessed_encoding_is_said(text, encoding, says, tmp_path, capsys):
    root = voc(tmp_path / "set", classes=("cup",))
    (root / "Annotations/a.xml").write_bytes(xml(text).encode(encoding))
    report = str(check_dataset(root))
    assert stage_of_train(root) == ""
    for said in (report, capsys.readouterr().err):
        if says: assert f"a.xml: does not say its encoding, and is {says}" in said and 'begin it with <?xml version="1.0" encoding="..."?>' in said
        else: assert "its encoding" not in said
    if encoding != "cp1251": return
    (root / "Annotations/a.xml").write_bytes(f'<?xml version="1.0" encoding="cp1251"?>{xml(text)}'.encode("cp1251"))
    assert "чашка" in str(check_dataset(root)) and "its encoding" not in str(check_dataset(root))
    root = yolo(tmp_path / "yolo", yaml=None)
    (root / "data.yaml").write_bytes("train: images/train\nval: images/val\nnames: [чашка, ложка]\n".encode("cp1251"))
    assert "data.yaml: does not say its encoding, and is read as Windows-1252" in str(check_dataset(root))


@pytest.mark.parametrize("draw, options, there", [
    (lambda r: one_json(r, "labels_my-test-export.json"), {"val_share": 0.5}, {"train": 2, "val": 2}),
    (lambda r: one_json(r, "my_test.json"), {}, {"test": 4}),
    (lambda r: flat(flat(r, where="test_drive"), where="cam"), {"val_share": 0.5}, {"train": 2, "val": 2, "test": 4})])
def test_words_in_names(draw, options, there, tmp_path):
    assert {split: len(part) for split, part in check_dataset(draw(tmp_path / "set"), **options).folder.splits.items()} == there


@pytest.mark.parametrize("draw, says", [
    (lambda r: flat(flat(flat(r, where="City 1"), where="Test track 2"), where="Field 3"), "Test track 2 is taken for split test, by name; if that is wrong, rename it"),
    (lambda r: yolo(r, "{split}", "{split}", "cup\nspoon\n", splits=("city", "val d'Isere"), file="classes.txt"), "val d'Isere is taken for split val, by name; if that is wrong, rename it"),
    (lambda r: voc(r, ["kitchen/a", "kitchen/b", "test room/a"], lists=False), "test room is taken for split test, by name; if that is wrong, rename it"),
    (lambda r: one_json(one_json(r, "test drive/labels.json", "test drive"), "city/labels.json", "city", "efgh"), "test drive is taken for split test, by name; if that is wrong, rename it"),
    (lambda r: flat(flat(r, where="test1"), where="test2"), "test1, test2 are taken for split test, by name; if that is wrong, rename them"),
    (lambda r: flat(flat(r, where="cam"), where="test1"), None), (lambda r: flat(flat(flat(r, where="train"), where="val"), where="test-dev"), None),
    (lambda r: flat(flat(r, where="cars_train"), where="cars_test"), None), (lambda r: flat(flat(r, where="cam"), where="TestImages 2017"), None), (lambda r: one_json(r, "my_test.json"), None)])
def test_a_doubtful_name_of_a_split_is_said(draw, says, tmp_path, capsys):
    report = check_dataset(draw(tmp_path / "set"))
    assert ("taken for split" in str(report)) == bool(says) and (says or "") in str(report)
    if says and not stage_of_train(tmp_path / "set", val_share=None if "val" in says else 0.5): assert says in capsys.readouterr().err


def test_a_file_in_place_of_the_folder(tmp_path):
    with pytest.raises(DataError, match="a.xml: is a file, where a folder is wanted; give the folder"): open_sets(voc(tmp_path) / "Annotations/a.xml")


@pytest.mark.parametrize("draw, parts", [(lambda r: yolo(r), ("images/train", "labels/train")), (lambda r: voc(r, ["cam/a", "cam/b", "c", "d"]), ("JPEGImages/cam", "Annotations/cam"))])
def test_linked_folders_of_pictures(draw, parts, tmp_path):
    root = draw(tmp_path / "set")
    for part in parts:
        shutil.move(root / part, tmp_path / part.replace("/", "-"))
        (root / part).symlink_to(tmp_path / part.replace("/", "-"))
    if "images" in parts[0]:  # one folder deeper
        for part in parts:
            (root / part).unlink(), (root / part).mkdir()
            (root / part / "sub").symlink_to(tmp_path / part.replace("/", "-"))
    (root / parts[0] / "up").symlink_to(root / parts[0].partition("/")[0])  # to a folder above: not followed
    assert check_dataset(root).ok and len(open_sets(root).splits["train"]) == 2


def test_folders_that_cannot_be_read(tmp_path, monkeypatch):
    root, closed, scandir = voc(tmp_path / "set"), [], os.scandir

    def refusing(path="."):
        if os.path.basename(os.fspath(path)) in closed: raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)
    (root / "private").mkdir()
    monkeypatch.setattr(os, "scandir", refusing)
    closed[:] = ["private"]
    report = check_dataset(root)
    assert report.ok and "warning private: this folder cannot be read (Permission denied), and counts as empty" in str(report)
    for closed[:] in (["JPEGImages"], ["set"]):
        with pytest.raises(DataError, match=f"{closed[0]}: cannot be read .Permission denied.; check the folder's rights"): check_dataset(root)


def test_names_that_command_a_terminal(tmp_path, capsys):
    root = voc(tmp_path / "set", ["a\nb", "c\x1b[31m", "d", "e"], ["d", "e"], classes=("red\ncup",), lists=False)
    for path in root.glob("Annotations/[ac]*"): path.write_text("<annotation>")
    assert main(["check", str(root), "--val-share", "0.5"]) == 1
    said = capsys.readouterr().out
    assert "a\\nb.xml: broken XML" in said and "c\\x1b[31m.xml: broken XML" in said and "red cup" in said and "\x1b" not in said


def test_links_are_followed_and_circles_are_not(tmp_path):
    root = coco_set(tmp_path / "set")
    shutil.move(root / "images", tmp_path / "elsewhere")
    (root / "images").symlink_to(tmp_path / "elsewhere"), (root / "again").symlink_to(root)
    assert check_dataset(root).ok and len(open_dataset(root, "train")) == 2


def test_names_in_other_forms(tmp_path):
    "An accent in two letters on disk and in one in the file, a separator of the other system."
    root = tmp_path
    picture(root / "images" / "cafe\u0301" / "a.jpg")
    put(root / "labels.json", json.dumps(coco(["caf\u00e9\\a.jpg"])))
    picture(root / "images/b.jpg")
    data = json.loads((root / "labels.json").read_text())
    data["images"].append({"id": 9, "file_name": "b.jpg"})
    put(root / "labels.json", json.dumps(data))
    assert len(open_sets(root, val_share=0.5).splits["train"]) == 1


def test_a_class_without_objects_stays_in_a_list_that_labels_count_by(tmp_path):
    root = yolo(tmp_path / "yolo", yaml="train: images/train\nval: images/val\nnames: [cup, spoon, fork]\n")
    assert "1 class(es) are listed and have no object: fork; annotate some, or leave them: the numbers in the label files count by this list" in str(check_dataset(root))
    assert "no object: fork; take them out of the list" in str(check_dataset(with_text(voc(tmp_path / "voc"), "classes.txt", "cup\nspoon\nfork\n")))


@pytest.mark.parametrize("names, declared, says", [("platelet plattelet", True, "class 'plattelet' is rare, and hardly differs from 'platelet'"), ("platelet plattelet", False, "unknown class 'plattelet', perhaps 'platelet' is meant"),
                                                   ("M10-bolt M12-bolt", True, ""), ("M10-bolt M12-bolt", False, "")])
def test_rare_classes_that_look_like_common_ones(names, declared, says, tmp_path):
    root = voc(tmp_path, [f"p{k}" for k in range(24)], ["p22", "p23"], classes=(names.split()[0],))
    put(root / "Annotations/p3.xml", xml(names.split()[1]))
    if declared: put(root / "classes.txt", names.replace(" ", "\n"))
    said = [what for _, what in check_dataset(root).problems]
    assert said == [says] * bool(says)


# ---------------------------------------------------------------- the right picture, and the right label

def taken(root, split="train", **options): return [data.path(i).relative_to(root).as_posix() for data in [open_sets(root, **options).dataset(split)] for i in range(len(data))]


def test_a_folder_that_is_named_counts(tmp_path):
    "/cam1/a.jpg is cam1/a.jpg, though there is an images/a.jpg; a listed picture that is missing is not another one of its name."
    root = one_json(one_json(tmp_path / "coco", "my.json", "images"), "my.json", "cam1", prefix="/cam1/")
    assert all(path.startswith("cam1/") for split in ("train", "val") for path in taken(root, split, val_share=0.5))
    root = one_json(one_json(tmp_path / "climbs", "annotations/my.json", "images"), "annotations/my.json", "cam2", prefix="../cam2/")
    (root / "cam2/a.jpg").unlink()
    assert not check_dataset(root, val_share=0.5).ok
    root = yolo_lists(tmp_path / "yolo")
    (root / "images/train/train0.jpg").rename(root / "train0.jpg"), put(root / "train0.txt", "0 0.5 0.5 0.2 0.2\n")
    assert "images/train/train0.jpg: no such picture" in open_refusal(root)


def test_paths_that_climb_end_here_too(tmp_path):
    root = one_json(tmp_path / "coco", "result.json", "images", prefix="../../label-studio/data/media/upload/1/")
    assert len(taken(root, val_share=0.5)) == 2 and len(taken(root, val_share=0.5, allow_outside=True)) == 2
    root = yolo(tmp_path / "yolo", yaml="train: ../proj/images/train\nval: ../proj/images/val\nnames: [cup, spoon]\n")
    assert taken(root) == ["images/train/train0.jpg", "images/train/train1.jpg"]
    assert "which is not in" in open_refusal(yolo(tmp_path / "none", yaml="train: ../proj/pictures\nval: images/val\nnames: [cup, spoon]\n"))


def test_labels_beside_the_set_are_none_of_it(tmp_path):
    root = yolo(tmp_path / "images/set", "", "", "cup\n", "0 0.375 0.375 0.25 0.25\n", ("t",), "classes.txt")
    for k in range(2): put(tmp_path / f"labels/set/t{k}.txt", "0 0.1 0.1 0.1 0.1\n")
    for where in (root, Path(os.path.relpath(root))): assert all(one.box == (16, 12, 32, 24) for record in read_folder(where, ["all"]).splits["all"] for one in record.objects)
    outside = read_folder(root, ["all"], allow_outside=True).splits["all"]
    assert all(record.source.parent == tmp_path / "labels/set" for record in outside)


def test_the_folder_above_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(yolo(tmp_path) / "images")
    assert check_dataset("..").ok


def test_pictures_without_the_folder_of_their_labels(tmp_path):
    with pytest.raises(DataError, match="images: holds pictures, and their labels/ lies beside it; give the folder above both"): open_sets(yolo(tmp_path) / "images")


def test_a_test_folder_that_holds_all_blames_nobody(tmp_path):
    root = yolo(tmp_path / "set", yaml="train: /x/images/train\nval: /x/images/val\ntest: /x/images\nnames: [cup, spoon]\n")
    assert check_dataset(root).ok


def test_true_folders_come_before_links(tmp_path):
    "Also before a link in a folder that comes earlier; and a set that is itself a link has no way up."
    root = yolo(tmp_path / "big/set", "{split}", "{split}", "cup\nspoon\n", file="classes.txt")
    (root / "a").mkdir(), (root / "a/sample").symlink_to(root / "train"), (root / "up").symlink_to(root.parent)
    picture(root.parent / "other/q.jpg"), (tmp_path / "link").symlink_to(root)
    for where in (root, tmp_path / "link"):
        assert {split: len(part) for split, part in open_sets(where).splits.items()} == {"train": 2, "val": 2}
        assert layouts.Tree(where).files == ["classes.txt", "train/train0.jpg", "train/train0.txt", "train/train1.jpg", "train/train1.txt", "val/val0.jpg", "val/val0.txt", "val/val1.jpg", "val/val1.txt"]


def test_what_was_made_here_is_no_photo(tmp_path):
    "The figures of a training in the set, and drawings by `nanodetr detect`, are neither backgrounds nor namesakes."
    root = voc(tmp_path / "set", lists=False, pictures="")
    for name in ("run.json", "config.json"): put(root / f"runs/one/{name}", "{}")
    picture(root / "runs/one/loss.png")
    mark = PngInfo()
    mark.add_text("Software", "nanodetr detect")
    picture(root / "detections/a.png", pnginfo=mark)
    folder = open_sets(root, val_share=0.5, backgrounds=True)
    assert sorted(folder.names("train") + folder.names("val")) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]


@pytest.mark.parametrize("how", ["link", "copy", "test"])
def test_a_picture_in_two_splits_is_seen(how, tmp_path):
    root = yolo(tmp_path / "set", yaml="train: images/train\nval: images/val\ntest: images/test\nnames: [cup, spoon]\n")
    split, there = ("test", root / "images/test/t.jpg") if how == "test" else ("val", root / "images/val/val0.jpg")
    there.parent.mkdir(exist_ok=True), there.unlink(missing_ok=True)
    if how == "link": there.symlink_to(root / "images/train/train0.jpg")
    else: shutil.copy(root / "images/train/train0.jpg", there)
    put(root / f"labels/{split}/{there.stem}.txt", "0 0.5 0.5 0.2 0.2\n")
    report = check_dataset(root)
    assert report.ok and f"{there.name}: 1 picture(s), this one first, are in train and in {split} (there it is {root}/images/train/train0.jpg): AP then measures memory" in str(report)


@pytest.mark.parametrize("kind", ["voc", "coco", "yolo"])
def test_annotations_in_two_formats(kind, tmp_path):
    "Pictures that were annotated in another format are no backgrounds; and what is read is said."
    other, options = ("images/train/c.xml", {}) if kind == "yolo" else ("c.txt", {"val_share": 0.5})
    root = yolo(tmp_path) if kind == "yolo" else flat(tmp_path, names="abd") if kind == "voc" else one_json(tmp_path, "my.json", names="abd")
    picture((root / other).with_suffix(".jpg")), put(root / other, xml() if kind == "yolo" else "0 0.5 0.5 0.2 0.2\n"), put(root / "classes.txt", "cup\nspoon\n"[:4 if kind == "voc" else 10])
    report = check_dataset(root, backgrounds=True, **options)
    assert report.ok and report.images == (4 if kind == "yolo" else 3)
    assert f"warning {other}: 1 picture(s) have an annotation in another format, this one first: they are left out; save all annotations in one format" in str(report)
    assert (f"is read as {report.kind}, and not as {'VOC beside the pictures' if kind == 'yolo' else 'YOLO without data.yaml'}, which fits, too; if that is meant, move" in str(report))


@pytest.mark.parametrize("place, said, expected", [
    ("", None, {"train": 2, "val": 1, "others": 1}), ("data/", None, {"train": 2, "val": 1, "others": 1}), ("data/", "train = data/train.txt\nvalid  = data/test.txt\n", {"train": 2, "val": 1, "others": 1}),
    ("", "train = build/none.txt\n", {"train": 2, "val": 1, "others": 1})])
def test_lists_without_a_yaml_count(place, said, expected, tmp_path):
    "Darknet's lists of pictures: what they keep for the test is not trained on."
    root = yolo(tmp_path / "set", f"{place}obj", f"{place}obj", "cup\nspoon\n", splits=("a", "b"), file="obj.names")
    put(root / f"{place}train.txt", f"{place}obj/a0.jpg\n{place}obj/a1.jpg\n")
    put(root / f"{place}{'test' if said and 'test' in said else 'val'}.txt", f"{place}obj/b0.jpg\n")
    if said: put(root / f"{place}obj.data", said)
    report = check_dataset(root)
    assert report.ok and {split: len(part) for split, part in report.folder.splits.items()} == expected
    assert "obj/b1.txt" in str(report) or "1 annotated picture(s), this one first, are in no split" in str(report)
    assert stage_of_train(root) == "" and taken(root, "val") == [f"{place}obj/b0.jpg"]


def test_a_default_subset_beside_train_and_val(tmp_path, capsys):
    "CVAT's pictures without subset train where there is no train; where there is one, they are not lost without a word."
    root = one_json(one_json(tmp_path / "two", "annotations/instances_default.json", "images/default"), "annotations/instances_Validation.json", "images/Validation", "ef")
    assert {split: len(part) for split, part in open_sets(root).splits.items()} == {"train": 4, "val": 2} and check_dataset(root).ok
    one_json(root, "annotations/instances_Train.json", "images/Train", "gh")
    says = "2 annotated picture(s) of it, c.jpg first, are in no split, and are left out"
    put(root / "annotations/instances_default.json", json.dumps(coco(["c.jpg", "d.jpg", "g.jpg"])))
    assert f"warning annotations/instances_default.json: {says}" in str(check_dataset(root))
    assert stage_of_train(root) == "" and says in capsys.readouterr().err
    put(root / "annotations/instances_default.json", json.dumps(coco(["e.jpg", "g.jpg"])))
    assert check_dataset(root).problems == []
    root = with_text(voc(tmp_path / "voc", "abcdef"), "ImageSets/Main/default.txt", "b\ne\n")
    for split, names in (("train", "a\nb\n"), ("val", "c\nd\n")): put(root / f"ImageSets/Main/{split}.txt", names)
    assert "warning Annotations/e.xml: 1 annotated picture(s), this one first, are in no split" in str(check_dataset(root))


@pytest.mark.parametrize("draw", [
    lambda r: with_text(shutil.rmtree(TOOLS["Roboflow YOLO"][0](r) / "valid") or r, "note.md", ""),
    lambda r: with_text(one_json(r, "train/_annotations.coco.json", "train"), "valid/_annotations.coco.json", json.dumps({**coco([]), "images": []})),
    lambda r: with_text(with_text(voc(r), "ImageSets/Main/val.txt", ""), "ImageSets/Main/train.txt", "a\nb\nc\nd\n")])
def test_an_empty_val_is_none(draw, tmp_path):
    root = draw(tmp_path / "set")
    said = open_refusal(root)
    assert "data.yaml" not in said or "or keep a part of train instead: --val-share 0.2" in said
    report = check_dataset(root, val_share=0.5)
    assert report.ok and "counts as none" in str(report) and stage_of_train(root, val_share=0.5) == ""
    names = {split: open_sets(root, val_share=0.5).names(split) for split in ("train", "val")}
    assert open_sets(root, parts=names).names("val") == names["val"] and len(open_dataset(root, "val", parts=names)) == len(names["val"])


@pytest.mark.parametrize("pictures, labels", [("data", "labels"), ("images", "xmls"), ("train/data", "train/labels"), ("images", "labels")])
def test_xml_in_a_folder_beside_the_pictures(pictures, labels, tmp_path):
    root = voc(tmp_path / "set", pictures=pictures, annotations=labels, lists=False)
    report = check_dataset(root, val_share=0.5)
    assert report.problems == [] and report.kind == "VOC beside the pictures" and report.images == 4
    if "train" in pictures: assert list(report.folder.splits) == ["train", "val"] and check_dataset(voc(root, "efgh", pictures="val/data", annotations="val/labels", lists=False)).problems == []


def test_a_format_without_a_set_to_train_on_yields(tmp_path):
    "COCO's val in JSON, as Ultralytics has it, beside YOLO labels of train and val."
    root = yolo(tmp_path)
    put(root / "annotations/instances_val2017.json", json.dumps(coco(["val0.jpg", "val1.jpg"])))
    report = check_dataset(root)
    assert report.ok and report.kind == "YOLO with data.yaml" and "is read as YOLO with data.yaml, and not as COCO, which fits, too" in str(report)


def test_names_as_a_list_of_dicts(tmp_path):
    assert open_sets(CASES["names as a list of dicts"][0](tmp_path)).classes == ["cup", "spoon"]


def test_a_yaml_of_names_alone(tmp_path):
    root = yolo(tmp_path, yaml="train:\nval:\nnc: 2\nnames: [cup, spoon]\n")
    report = check_dataset(root)
    assert report.ok and report.folder.classes == ["cup", "spoon"] and "data.yaml: has names, but neither train nor val: the folders count" in str(report)


def test_a_lost_label_file_is_said_once(tmp_path):
    root = yolo_lists(yolo(tmp_path, "images/{split}", "labels/{split}"))
    for split in ("train", "val"):
        put(root / f"{split}.txt", "".join(f"images/both/{split}{k}.jpg\n" for k in range(2)))
        for k in range(2): picture(root / f"images/both/{split}{k}.jpg"), put(root / f"labels/both/{split}{k}.txt", f"{k} 0.5 0.5 0.2 0.2\n")
    put(root / "labels/both/lost.txt", "0 0.5 0.5 0.2 0.2\n")
    assert [what for _, what in check_dataset(root).problems] == ["1 label file(s), this one first, have no picture"]


def test_the_folder_itself_may_be_train(tmp_path):
    root = yolo(tmp_path, "", "", "train: .\nnames: [cup, spoon]\n")
    assert check_dataset(root, val_share=0.5).ok and len(open_sets(root, val_share=0.5).splits["train"]) == 2


def test_pieces_of_larger_pictures(tmp_path):
    "Boxes that were not cut with their pictures leave on all sides; those of pictures of another size do not."
    def tiles(boxes):
        data = coco(["t0.jpg", "t1.jpg"])
        data["annotations"] = [{"id": k, "image_id": k % 2, "category_id": 1, "bbox": list(box)} for k, box in enumerate(boxes)]
        return data
    inside = [(10 + 4 * k, 15, 10, 10) for k in range(8)]
    report = check_dataset(coco_set(tmp_path / "tiles", tiles(inside + [(-7, 5, 10, 10), (-6, 25, 10, 10), (60, 9, 10, 10), (61, 30, 10, 10)])))
    assert report.ok and len(report.findings.of("warning")) == 4
    assert "4 of 12 box(es) lie mostly outside" in str(check_dataset(coco_set(tmp_path / "size", tiles(inside + [(60, 9, 10, 10), (61, 30, 10, 10)] * 2))))


# ---------------------------------------------------------------- COCO files of unusual names

@pytest.mark.parametrize("first, second, whole", [("train.json", "val_fixed.json", "train"), ("labels.json", "val_labels.json", "all"), ("train.json", "val-1.json", "train"), ("train/labels.json", "val/export.json", "train")])
def test_a_file_whose_name_tells_a_split_that_no_other_tells_is_read(first, second, whole, tmp_path):
    root = one_json(one_json(tmp_path, first, "images"), second, "images", "ef")
    for backgrounds in (False, True):
        report = check_dataset(root, backgrounds=backgrounds)
        assert report.problems == [] and {split: len(part) for split, part in report.folder.splits.items()} == {whole: 4, "val": 2}
    assert "has a val split of its own" in str(check_dataset(root, val_share=0.5))
    put(root / second, json.dumps(coco(["elsewhere.jpg"])))
    assert check_dataset(root, val_share=0.5).ok


@pytest.mark.parametrize("first, second", [("result.json", "result_2.json"), ("annotations/instances_default.json", "annotations/instances_default_2.json"), ("train.json", "dev.json"),
                                          ("train.json", "train (1).json"), ("annotations/instances_train.json", "annotations/instances_train_v2.json")])
def test_a_file_that_is_not_read_is_named(first, second, tmp_path, capsys):
    root = one_json(one_json(tmp_path, first, "images"), second, "images", "abef")
    says = f"{second}: annotates 2 picture(s) that no other file lists, e.jpg first, and is not read; call it by its split"
    report = check_dataset(root, val_share=0.5)
    assert report.ok and f"warning {says}" in str(report) and "--backgrounds" not in str(report)
    assert stage_of_train(root, val_share=0.5) == "" and says in capsys.readouterr().err
    assert f"error   {says}" in str(check_dataset(root, val_share=0.5, backgrounds=True)) and says in stage_of_train(root, val_share=0.5, backgrounds=True)
    put(root / second, json.dumps(coco(["a.jpg", "b.jpg"])))  # keypoints of the same pictures, say
    assert check_dataset(root, val_share=0.5).problems == [] and "2 picture(s) are listed by no file" in str(check_dataset(root, val_share=0.5))


def test_backgrounds_of_splits_that_share_a_folder(tmp_path):
    root = coco_set(tmp_path)
    assert check_dataset(root, backgrounds=True).problems == []
    picture(root / "images/empty.jpg")
    assert "1 picture(s) that no file lists lie in a folder that splits share" in str(check_dataset(root, backgrounds=True))


# ---------------------------------------------------------------- lists of class names

def two_lists(root, train="cup\nspoon\n", val="spoon\ncup\n", file="classes.txt", yaml=None):
    yolo(root, "{split}", "{split}", yaml, row="0 0.375 0.375 0.25 0.25\n")
    for split, text in (("train", train), ("val", val)): put(root / split / file, text)
    return root


def test_two_lists_that_number_the_classes_differently(tmp_path):
    "labelImg writes a list into each folder that it saves to, in order of first use; a label's number then depends on its folder."
    for name, how in {"texts": {}, "yamls": {"train": "names: [cup, spoon]\n", "val": "names: [spoon, cup]\n", "file": "names.yaml"}}.items():
        assert "give the classes other numbers (cup, spoon; spoon, cup); bring the label files to one list" in open_refusal_of(two_lists(tmp_path / name, **how))
    for k, val in enumerate(("cup\nspoon\n", "cup\n", "cup\nspoon\nfork\n")):  # one that goes on where another ends is no contradiction
        assert open_sets(two_lists(tmp_path / f"alike{k}", val=val)).classes == ["cup", "spoon", "fork"][:max(2, val.count("\n"))]
    for file in ("labels.txt", "predefined_classes.txt"):  # may be something else
        assert open_sets(with_text(two_lists(tmp_path / file, val="cup\n"), file, "dog\ncat\n")).classes == ["cup", "spoon"]
    root = with_text(yolo(tmp_path / "beside"), "labels/classes.txt", "spoon\ncup\n")
    assert "warning labels/classes.txt: gives the classes other numbers than data.yaml, which counts (spoon, cup; cup, spoon)" in str(check_dataset(root))
    assert check_dataset(with_text(root, "labels/classes.txt", "cup\nspoon\n")).problems == []


def open_refusal_of(root):
    "What check and training say of a folder that neither can begin with."
    with pytest.raises(DataError) as error: check_dataset(root)
    assert stage_of_train(root) == str(error.value)
    return str(error.value)


def test_a_comment_among_the_names(tmp_path):
    assert "classes.txt: has the line '# my classes' among the names of the classes, and each line counts as one; remove it" in open_refusal_of(two_lists(tmp_path / "yolo", "# my classes\ncup\nspoon\n", "cup\nspoon\n"))
    assert open_sets(two_lists(tmp_path / "all", *["#1\n#2\n"] * 2)).classes == ["#1", "#2"]
    assert open_sets(two_lists(tmp_path / "numbers", "0: cup\n1: spoon\n", "0 cup\n1 spoon\n")).classes == ["cup", "spoon"]
    assert open_sets(with_text(voc(tmp_path / "voc"), "classes.txt", "# my classes\nspoon\ncup\n")).classes == ["spoon", "cup"]
    assert open_sets(with_text(voc(tmp_path / "used", classes=("#1", "cup")), "classes.txt", "#1\ncup\n")).classes == ["#1", "cup"]


def test_other_lists_of_names_do_no_harm(tmp_path):
    "Another spelling of the same names, and the names of something else that lies in the set."
    assert open_sets(two_lists(tmp_path / "spelled", "Traffic light\ncup\n", "traffic_light\ncup\n")).classes == ["Traffic light", "cup"]
    root = yolo(tmp_path / "foreign", "{split}", "{split}", "cup\nspoon\n", file="classes.txt")
    put(root / "models/yolov8/classes.txt", "person\nbicycle\n"), put(root / "conf/coco.yaml", "names: [person, bicycle]\n")
    assert open_sets(root).classes == ["cup", "spoon"]


def test_two_lists_of_the_same_pictures(tmp_path):
    "What obj.data names counts; and a list of the same pictures in other words is no second set."
    root = yolo(tmp_path / "told", "obj", "obj", "cup\nspoon\n", splits=("a", "b"), file="obj.names")
    put(root / "train.txt", "obj/b0.jpg\n"), put(root / "data/train.txt", "obj/a0.jpg\nobj/a1.jpg\n"), put(root / "val.txt", "obj/b1.jpg\n")
    assert "both list pictures of train" in open_refusal_of(root)
    put(root / "obj.data", "classes = 2\ntrain = data/train.txt\n")
    assert len(open_sets(root).splits["train"]) == 2
    (root / "obj.data").unlink(), put(root / "train.txt", "./obj/a1.jpg\nobj/a0.jpg\n")
    assert len(open_sets(root).splits["train"]) == 2


def test_a_refusal_keeps_nothing_alive():
    "An error and the frame that raised it made a circle: thousands of unreadable pictures stayed in memory, while the collector rested."
    import gc
    import weakref

    class Pixels: pass

    def read():
        pixels = Pixels()
        kept.append(weakref.ref(pixels))
        refuse_file("a.jpg", "cannot be read", "restore it")

    kept = []
    gc.disable()
    try:
        with contextlib.suppress(DataError): read()
        assert kept[0]() is None
    finally: gc.enable()


def test_several_sets_side_by_side(tmp_path):
    for task in ("task1", "task2"):
        yolo(tmp_path / task, "obj_train_data", "obj_train_data", "cup\nspoon\n", splits=("train",), file="obj.names")
        put(tmp_path / task / "train.txt", "".join(f"data/obj_train_data/train{k}.jpg\n" for k in range(2)))
    assert "holds 2 sets (task1, task2), each with a list of its pictures; give one of them" in open_refusal_of(tmp_path)
    root = yolo(tmp_path / "one", "obj", "obj", "cup\nspoon\n", splits=("a", "b"), file="obj.names")
    put(root / "train.txt", "obj/a0.jpg\n"), put(root / "data/train.txt", "obj/a0.jpg\n"), put(root / "val.txt", "obj/b0.jpg\n")
    assert len(open_sets(root).splits["train"]) == 1
    put(root / "valid.txt", "obj/b1.jpg\n")
    assert "valid.txt: and val.txt both list pictures of val; remove one of them" in open_refusal_of(root)


# ---------------------------------------------------------------- splits

@pytest.mark.parametrize("copied", [False, True])
def test_versions_and_copies_of_a_photo_stay_together(copied, tmp_path):
    names = [f"p{k}{c}" if copied else f"p{k}_jpg.rf.{'0123456789abcdef' * 2}{c}" for k in range(6) for c in "abc"]
    root = flat(tmp_path, names=names)
    for name in names:
        if copied and name[-1] != "a": shutil.copy(root / f"{name[:-1]}a.jpg", root / f"{name}.jpg")
    folder = open_sets(root, val_share=0.3)
    assert {split: len({name[:2] for name in folder.names(split)}) for split in ("train", "val")} == {"train": 4, "val": 2}
    if copied:  # one picture all over, as somebody draws to try things: divided, and said
        for name in names: shutil.copy(root / f"{names[0]}.jpg", root / f"{name}.jpg") if name != names[0] else None
        assert "are in train and in val" in str(check_dataset(root, val_share=0.3))
    else:
        with pytest.raises(DataError, match="a set of 1 picture.s., in several versions, cannot be divided"): open_sets(flat(tmp_path / "one", names=names[:3]), val_share=0.3)


def records_of(names): return [Record(f"p{k}", None, None, objects=[Annotation(name, (0, 0, 1, 1)) for name in names]) for k, names in enumerate(names)]


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=3), min_size=2, max_size=40), st.floats(0.05, 0.95), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_division_divides(names, share, seed):
    records = records_of(names)
    train, val = share_out(records, share, seed)
    assert train and val and sorted(id(r) for r in train + val) == sorted(map(id, records))
    shuffled = random.Random(seed).sample(records, len(records))
    assert {r.name for r in share_out(shuffled, share, seed)[1]} == {r.name for r in val}
    counts = {name: sum(name in part for part in names) for name in "abcde"}
    for name in "abcde":
        if counts[name] > 1: assert any(one.name == name for r in train for one in r.objects), name


def test_the_same_division_on_every_machine():
    assert [r.name for r in share_out(records_of(["a", "b"] * 10), 0.2)[1]] == DIVISION


DIVISION = ["p8", "p10", "p11", "p17"]


def test_nothing_to_divide(tmp_path):
    with pytest.raises(DataError, match="cannot be divided"): share_out(records_of(["a"]), 0.2)
    for share in (0, 1, -1, 2, math.nan):
        with pytest.raises(DataError, match="between 0 and 1"): share_out(records_of("ab"), share)


def test_a_name_of_many_spaces_takes_no_time():
    from nanodetr.datasets.text import clean_name
    began, name = time.perf_counter(), "a" + " " * 40_000 + "b"
    assert clean_name(name) == name and time.perf_counter() - began < 3  # it was 9 s, or a few ms
    assert clean_name(" a \n\t b\0 \0c ") == "a b c"


def test_pictures_that_came_after_the_division(tmp_path):
    "Annotated ones are in neither list, which is said; those without annotation, and one split alone, are as they were."
    root = voc(tmp_path, "abcdef", lists=False)
    folder = open_sets(root, val_share=0.3)
    parts = {split: folder.names(split) for split in ("train", "val")}
    with_picture(root, "JPEGImages/lonely.jpg")
    assert "in neither list" not in str(open_sets(root, parts=parts).findings)
    voc(root, "mn", lists=False)
    folder = open_sets(root, parts=parts)
    assert [str(one) for one in folder.findings.of("warning") if "list" in one.what] == [
        f"{root}: 2 annotated picture(s) are in neither list of the run, JPEGImages/m.jpg first, and are left out; to learn from them, divide anew: begin a new run"]
    assert {split: folder.names(split) for split in parts} == parts
    assert "in neither list" not in str(read_folder(root, ["val"], parts={"val": parts["val"]}).findings)


def test_a_division_that_fails_says_so_once(tmp_path):
    report = check_dataset(flat(tmp_path, names="a"), val_share=0.5)
    assert "error   --val-share 0.5: a set of 1 picture(s) cannot be divided; annotate more\n" in str(report) and "has no val split" not in str(report)


# ---------------------------------------------------------------- YAML

@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="\ufeff\x85"), min_size=1, max_size=8), min_size=1, max_size=4),
       st.sampled_from(["flow", "block", "dict", "flow dict"]))
@settings(max_examples=60, deadline=None)
def test_yaml_is_read_as_by_the_library(names, style):
    "Names as yaml.dump writes them, in all its styles, come back as yaml.safe_load reads them."
    yaml = pytest.importorskip("yaml")
    data = {"train": "images/train", "names": dict(enumerate(names)) if "dict" in style else names, "other": {"deep": [1, {"er": 2}]}}
    text = yaml.dump(data, allow_unicode=True, default_flow_style=None if "flow" in style else False, width=1000)
    assert yaml.safe_load(text) == data
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        put(Path(folder) / "data.yaml", text)
        said = read_yaml(Path(folder) / "data.yaml")
    from nanodetr.datasets.text import clean_name
    there = said["names"].values() if isinstance(said["names"], dict) else said["names"]
    assert said["train"] == "images/train" and [clean_name(name) for name in there] == [clean_name(name) for name in names]


# ---------------------------------------------------------------- the page

def test_a_page_is_one_file_and_never_over_another(tmp_path, capsys):
    root, page = with_text(voc(tmp_path / "set"), "Annotations/a.xml", xml("&lt;img src=x onerror=alert(1)&gt;", (60, 13, 90, 24))), tmp_path / "check.html"
    assert main(["check", str(root), "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "<img src=x" not in text and "&lt;img src=x onerror" in text and "http" not in text.replace("http-equiv", "") and "<script" not in text
    assert text.count("<figure") == 4 and text.index("a.jpg</b>") < text.index("b.jpg</b>")
    assert main(["check", str(root), "--html", str(page)]) == 2 and page.read_text(encoding="utf-8") == text
    assert "is there already" in capsys.readouterr().err
    assert main(["check", str(root), "--html", str(tmp_path / "no/where.html")]) == 2


def test_a_page_of_names_that_are_no_text(tmp_path, capsys):
    root, odd = voc(tmp_path / "set", lists=False), os.fsdecode(b"a\xe9")
    try: (root / "JPEGImages/a.jpg").rename(root / f"JPEGImages/{odd}.jpg")
    except OSError: pytest.skip("a file system whose names are text")
    (root / "Annotations/a.xml").rename(root / f"Annotations/{odd}.xml")
    assert main(["check", str(root), "--val-share", "0.5", "--html", str(tmp_path / "odd.html")]) == 0
    coco_set(tmp_path / "coco", *(coco([f"{split}.jpg"], [{"id": 1, "name": "cup\ud800"}]) for split in "tv"))
    assert main(["check", str(tmp_path / "coco"), "--html", str(tmp_path / "coco.html")]) == 0
    assert "a\\udce9.jpg" in (tmp_path / "odd.html").read_text(encoding="utf-8") and "cup\\ud800" in (tmp_path / "coco.html").read_text(encoding="utf-8")


# ---------------------------------------------------------------- hostile files

def damage(data: bytes, draw) -> bytes:
    "Bytes changed in one of the ways in which files are damaged."
    kind = draw(st.sampled_from(["cut", "bytes", "insert", "swap", "text"]))
    at = draw(st.integers(0, len(data)))
    if kind == "cut": return data[:at]
    if kind == "insert": return data[:at] + draw(st.binary(max_size=20)) + data[at:]
    if kind == "swap": return data[at:] + data[:at]
    if kind == "text":
        old, new = draw(st.sampled_from([(b"1", b"-1"), (b"64", b"1e400"), (b"16", b"null"), (b"[", b"{"), (b"0", b"[]"), (b"cup", b""), (b'"', b""), (b"a", b"../"), (b"<", b"&"), (b"17", b"NaN"),
                                         (b"0.375", b"nan"), (b"0.25", b"1e308"), (b"images", b"categories"), (b"bbox", b"id"), (b":", b": &x"), (b"1", b"9" * 400), (b"jpg", b"\0"), (b"12", b'"12"')]))
        return data.replace(old, new, draw(st.integers(1, 3)))
    many = bytearray(data)
    for _ in range(draw(st.integers(1, 8))):
        if many: many[draw(st.integers(0, len(many) - 1))] = draw(st.integers(0, 255))
    return bytes(many)


FORMATS = {"VOC": (voc, ["Annotations/a.xml", "ImageSets/Main/train.txt", "JPEGImages/a.jpg"]), "COCO": (coco_set, ["annotations/instances_train.json", "annotations/instances_val.json"]),
           "YOLO": (yolo, ["data.yaml", "labels/train/train0.txt"]), "CVAT": (cvat_voc, ["labelmap.txt", "ImageSets/Main/default.txt"])}


@pytest.mark.parametrize("format", FORMATS)
@given(data=st.data())
@settings(max_examples=FUZZ, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large])
def test_damaged_files_give_a_set_or_one_line(format, data, tmp_path_factory):
    draw, files = FORMATS[format]
    root = tmp_path_factory.getbasetemp() / f"fuzz-{format}"
    if not root.exists(): draw(root)
    name = data.draw(st.sampled_from(files))
    kept = (root / name).read_bytes()
    (root / name).write_bytes(damage(kept, data.draw) if data.draw(st.integers(0, 9)) else data.draw(st.binary(max_size=200)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try: report = check_dataset(root, val_share=0.5 if format == "CVAT" else None)
            except NanodetrError as error: said, ok = str(error), False
            else: said, ok = str(report), report.ok
            try: folder = open_sets(root, val_share=0.5 if format == "CVAT" else None)
            except NanodetrError as error: refused = str(error)
            else:
                refused = ""
                for split in folder.splits:
                    part = folder.dataset(split)
                    for i in range(len(part)):
                        target = part.get_target(i)
                        assert torch.isfinite(target["boxes"]).all() and torch.isfinite(target["area"]).all()
                        if ok: part[i]
        assert "\n" not in refused and (ok or refused or "cannot be read as a picture" in said), said
        assert ok <= (refused == ""), (said, refused)
    finally: (root / name).write_bytes(kept)


def test_the_table_of_what_was_tried():
    "The notebook of the command line lists every export above by its layout, and of the odd folders none under a verdict that it does not get."
    cells = json.loads((Path(__file__).parents[1] / "nbs/tools/cli.ipynb").read_text(encoding="utf-8"))["cells"]
    text = next("".join(cell["source"]) for cell in cells if "exports that were tried" in "".join(cell["source"]))
    table = dict(re.findall(r"^\| (.+?) \| (.+) \|$", text, re.M))
    for tool, (_, layout, _) in TOOLS.items(): assert tool in table[layout].split("; "), tool
    verdicts = {re.sub(r"^\d\d ", "", name): "read without a word" if said is None else "read, with a warning" if said.startswith("warning") else "refused, by name" for name, (_, said) in CASES.items()}
    for verdict in set(verdicts.values()):
        for name in table[verdict].split("; "): assert verdicts.get(name) == verdict, name
