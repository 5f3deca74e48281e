"The command line as a user meets it: what it leaves, what it prints, how it fails."
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file

from nanodetr.cli import main
from nanodetr.data import ShapesDataset
from nanodetr.model import DETR, DETRConfig

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
VOC_XML = """<annotation><filename>{name}.jpg</filename><size><width>{w}</width><height>{h}</height><depth>3</depth></size>
{objects}</annotation>"""
VOC_OBJECT = """<object><name>{name}</name><difficult>0</difficult>
<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"""


def failure(capsys, *arguments) -> str:
    "Run a command that must fail with status 2; its one line of error."
    assert main([str(a) for a in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("nanodetr: error: ") and "Traceback" not in "".join(lines)
    return lines[-1]


@pytest.fixture()
def voc(tmp_path):
    "A small sound VOC folder: 6 training images, 2 to validate on, two classes of its own."
    root = tmp_path / "photos"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    for k in range(8):
        pixels = np.random.default_rng(k).integers(0, 255, (60, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"JPEGImages/p{k}.jpg")
        objects = VOC_OBJECT.format(name=("cat", "hat")[k % 2], x0=5, y0=6, x1=40 + k, y1=50)
        (root / f"Annotations/p{k}.xml").write_text(VOC_XML.format(name=f"p{k}", w=90, h=60, objects=objects))
    (root / "ImageSets/Main/train.txt").write_text("".join(f"p{k}\n" for k in range(6)))
    (root / "ImageSets/Main/val.txt").write_text("p6\np7\n")
    return root


def test_train_leaves_a_run(run_folder):
    names = {path.name for path in run_folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "checkpoint.pt", "run.json", "log.csv", "loss.png", "predictions.png", "evaluation.json",
                     "best.safetensors", "previous.pt", "manifest.json"}
    assert {"AP", "AP50", "APs", "AR100", "steps", "minutes"} <= set(json.loads((run_folder / "evaluation.json").read_text()))
    assert Image.open(run_folder / "predictions.png").size[0] > 500
    assert (run_folder / "log.csv").read_text().startswith("step,epoch,seconds,")


def test_same_seed_same_weights(run_folder, tmp_path):
    arguments = ["train", "--overfit", "8", "--batch-size", "4", "--epochs", "3", "--quiet"]
    assert main([*arguments, "--out", str(tmp_path / "again")]) == main([*arguments, "--seed", "1", "--out", str(tmp_path / "other")]) == 0
    first, again, other = (load_file(folder / "model.safetensors") for folder in (run_folder, tmp_path / "again", tmp_path / "other"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_evaluate_json_is_one_object(run_folder, capsys):
    assert main(["evaluate", str(run_folder), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert all(-1 <= scores[name] <= 1 for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100"))
    assert main(["evaluate", str(run_folder / "model.safetensors"), "--data", "shapes", "--split", "test", "--protocol", "voc2012"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^AP50   0\.\d{4}   95 % 0\.\d{3} to 0\.\d{3}$", out, re.M) and re.search(r"^AP50 0\.\d\d, 95 % 0\.\d\d-0\.\d\d on 500 images$", out, re.M)


def test_evaluate_files_as_pycocotools(capsys):
    folder = SHARED / "eval-fixtures/coco100"
    if not folder.exists():
        pytest.skip(f"{folder} is not on this machine")
    assert main(["evaluate", "--detections", str(folder / "instances_val2014_fakebbox100_results.json"),
                 "--annotations", str(folder / "instances_val2014_100.json"), "--json"]) == 0
    scores, expected = json.loads(capsys.readouterr().out), json.loads((folder / "expected.json").read_text())
    for name, value in zip(expected["order"], expected["pycocotools_2_0_11"]):
        assert math.isclose(scores[name], value, abs_tol=2e-6), name


def test_detect(run_folder, tmp_path, capsys):
    photos = []
    for k, size in enumerate([(64, 64), (120, 50)]):
        photos.append(tmp_path / f"photo{k}.png")
        Image.fromarray(np.full((*size, 3), 90 * k, np.uint8)).save(photos[-1])
    assert main(["detect", str(run_folder), *map(str, photos), "--threshold", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["images"]
    assert [entry["file"] for entry in found] == [str(p) for p in photos] and len(found[0]["detections"]) == 12
    assert found[0]["detections"][0]["label"] in ShapesDataset("val", n=1).classes
    assert main(["detect", str(run_folder), str(photos[1]), "--out", str(tmp_path / "drawn")]) == 0
    assert Image.open(tmp_path / "drawn/photo1.png").size == (50, 120)


def test_train_on_a_voc_folder(voc, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", "--data", str(voc), "--epochs", "1", "--batch-size", "2", "--accumulate", "2", "--quiet", "--out", str(out)]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["classes"] == ["cat", "hat"] and config["num_classes"] == 2
    assert main(["evaluate", str(out), "--json"]) == 0
    assert "AP50" in capsys.readouterr().out
    assert main(["train", "--data", str(voc), "--weights", str(out), "--epochs", "1", "--quiet", "--out", str(tmp_path / "more")]) == 0


def test_train_on_a_coco_folder(tmp_path, capsys):
    "Category ids with gaps, a crowd, an image without objects."
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for split, ids in {"train": (1, 2, 3, 4), "val": (5, 6)}.items():
        (root / f"{split}2017").mkdir()
        for i in ids:
            Image.fromarray(np.full((50, 70, 3), 30 * i, np.uint8)).save(root / f"{split}2017/{i:012d}.jpg")
        boxes = [{"id": i, "image_id": i, "category_id": (7, 90)[i % 2], "bbox": [5, 5, 30, 20], "area": 600, "iscrowd": int(i == 3)} for i in ids[1:]]
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps({
            "images": [{"id": i, "file_name": f"{i:012d}.jpg", "height": 50, "width": 70} for i in ids],
            "annotations": boxes, "categories": [{"id": 90, "name": "zebra"}, {"id": 7, "name": "ant"}]}))
    out = tmp_path / "run"
    assert main(["check", str(root)]) == 0
    assert main(["train", "--data", str(root), "--epochs", "1", "--batch-size", "2", "--quiet", "--out", str(out)]) == 0
    assert set(json.loads((out / "config.json").read_text())["classes"]) == {"ant", "zebra"}
    assert main(["evaluate", str(out), "--split", "val"]) == 0
    assert "AP50" in capsys.readouterr().out


def state(folder):
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="session")
def small_resnet(tmp_path_factory):
    "The folder of an untrained DETR on a ResNet-18, four classes without names."
    folder = tmp_path_factory.mktemp("models") / "small"
    torch.manual_seed(0)
    DETR(DETRConfig(num_classes=4, backbone="resnet18", dim=32, heads=2, ffn_dim=32, encoder_layers=1, decoder_layers=1,
                    num_queries=5, dropout=0.0, image_size=48, max_size=80)).save_pretrained(folder)
    return folder


def test_fine_tune_keeps_all_but_the_class_head(voc, run_folder, tmp_path, capsys):
    "With a rate of almost 0 the weights stay at what they were before the first step."
    same = lambda a, b: a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=1e-20)
    out = tmp_path / "run"
    still = ["--lr", "1e-30", "--epochs", "1", "--batch-size", "4", "--quiet"]
    assert main(["train", "--data", str(voc), "--weights", str(run_folder), *still, "--num-queries", "20", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "new head: 2 (cat, hat)" in said and "12 kept, 8 new" in said
    before, after = state(run_folder), state(out)
    assert after["class_head.bias"].shape == (3,) and after["query_embed.weight"].shape == (20, 64)
    assert same(after["query_embed.weight"][:12], before["query_embed.weight"])
    rest = before.keys() - {"class_head.weight", "class_head.bias", "query_embed.weight"}
    assert after.keys() == before.keys() and all(same(before[name], after[name]) for name in rest)
    assert json.loads((out / "config.json").read_text())["image_size"] == 96
    again = tmp_path / "again"  # the same classes: the head is kept; fewer queries: the first ones
    assert main(["train", "--data", str(voc), "--weights", str(out), *still, "--num-queries", "4", "--out", str(again)]) == 0
    assert same(state(again)["class_head.weight"], after["class_head.weight"])
    assert same(state(again)["query_embed.weight"], after["query_embed.weight"][:4])


def test_too_few_queries_are_made_more(voc, run_folder, tmp_path, capsys):
    path = voc / "Annotations/p1.xml"
    crowd = "".join(VOC_OBJECT.format(name="cat", x0=k, y0=5, x1=k + 9, y1=20) for k in range(1, 15))
    path.write_text(path.read_text().replace("</annotation>", crowd + "</annotation>"))
    arguments = ["train", "--data", voc, "--weights", run_folder, "--epochs", 1, "--quiet"]
    assert "15 objects" in failure(capsys, *arguments, "--num-queries", 14, "--out", tmp_path / "few")
    assert main([str(a) for a in (*arguments, "--out", tmp_path / "run")]) == 0
    assert "12 kept, 11 new" in capsys.readouterr().out and len(state(tmp_path / "run")["query_embed.weight"]) == 23


def test_a_frozen_backbone_stays(voc, small_resnet, tmp_path, capsys):
    arguments = ["train", "--data", str(voc), "--weights", str(small_resnet), "--epochs", "1", "--batch-size", "4", "--lr", "0.01", "--quiet"]
    assert main([*arguments, "--freeze-backbone", "--out", str(tmp_path / "frozen")]) == 0
    assert "of them trained" in capsys.readouterr().out
    assert main([*arguments, "--out", str(tmp_path / "free")]) == 0
    before, frozen, free = state(small_resnet), state(tmp_path / "frozen"), state(tmp_path / "free")
    name = "backbone.body.layer4.0.conv1.weight"
    assert all(torch.equal(before[name], frozen[name]) for name in before if name.startswith("backbone"))
    assert not torch.equal(before["input_proj.weight"], frozen["input_proj.weight"]) and not torch.equal(before[name], free[name])


@pytest.mark.parametrize("after", [pytest.param("layer4", marks=pytest.mark.weekly), "layer3"])
def test_cached_features_and_resume(voc, small_resnet, tmp_path, capsys, after):
    "Stopped after an epoch and resumed: bit for bit the weights of one go. The last stage moves only when it is trained."
    arguments = ["train", "--data", str(voc), "--weights", str(small_resnet), "--cache", "2", "--cache-after", after, "--batch-size", "3", "--lr", "0.01", "--quiet"]
    assert main([*arguments, "--epochs", "2", "--out", str(tmp_path / "straight")]) == 0
    assert "6 photos x 2" in capsys.readouterr().out

    def stop_after_one(*args, **kwargs):
        real(*args, **kwargs)
        raise KeyboardInterrupt("stopped")

    import nanodetr.runs.run as run
    real = run.save_run
    run.save_run = stop_after_one
    try: assert main([*arguments, "--epochs", "2", "--out", str(tmp_path / "cut")]) == 130
    finally: run.save_run = real
    assert torch.load(tmp_path / "cut/checkpoint.pt", weights_only=True)["step"] == 1
    assert main(["train", "--resume", "--out", str(tmp_path / "cut")]) == 0
    before, straight, cut = state(small_resnet), state(tmp_path / "straight"), state(tmp_path / "cut")
    assert all(torch.equal(straight[name], cut[name]) for name in straight)
    moved = {name.split(".")[2] for name in before if name.startswith("backbone") and not torch.equal(before[name], cut[name])}
    assert moved == ({"layer4"} if after == "layer3" else set())


def test_flags_of_fine_tuning_that_do_not_fit(voc, small_resnet, run_folder, tmp_path, capsys):
    train = ["train", "--data", voc, "--epochs", 1, "--quiet", "--out", tmp_path / "run"]
    assert "--weights" in failure(capsys, *train, "--from-scratch", "--cache", 2)
    assert "--weights" in failure(capsys, *train, "--from-scratch", "--freeze-backbone")
    assert "--backbone-weights" in failure(capsys, *train, "--weights", small_resnet, "--backbone-weights", "r18.pth")
    assert "--cache N" in failure(capsys, *train, "--weights", small_resnet, "--cache-after", "layer3")
    assert "1 or more" in failure(capsys, *train, "--weights", small_resnet, "--cache", 0)
    assert "dim cannot change" in failure(capsys, *train, "--weights", small_resnet, "--set", "dim=64")
    assert "layer3" in failure(capsys, *train, "--weights", run_folder, "--cache", 1, "--cache-after", "layer3")
    assert "r18.pth" in failure(capsys, *train, "--backbone-weights", tmp_path / "r18.pth", "--set", "backbone=resnet18")
    assert "nowhere" in failure(capsys, *train, "--weights", tmp_path / "nowhere")
    assert "--backbone-weights" in failure(capsys, *train, "--preset", "photos")


def test_turns(voc):
    "Only where asked for are training photos turned, before all else; those to validate on never."
    from nanodetr.cli import prepare_data
    from nanodetr.model import DETRConfig

    config = DETRConfig.preset("photos", image_size=48, max_size=80)
    seen = {}
    for turns in (False, True):
        train, val = prepare_data(str(voc), "photos", config, turns)
        seen[turns] = val[0][0].shape
        if turns: train.transforms = train.transforms.steps[0]  # without the crops, which change the shape as well
        else: train.transforms = None
        torch.manual_seed(0)
        seen[turns, "train"] = {tuple(train[0][0].shape[1:]) for _ in range(20)}
    assert seen[False] == seen[True]
    assert seen[False, "train"] == {(60, 90)} and seen[True, "train"] == {(60, 90), (90, 60)}


def test_one_lr_moves_both_rates(voc, small_resnet, tmp_path, capsys):
    "The ratio of the preset is kept, and so are rates that were set one by one."
    from nanodetr.training import TrainConfig

    arguments = ["train", "--data", str(voc), "--weights", str(small_resnet), "--preset", "voc", "--lr", "0.003", "--epochs", "1", "--quiet"]
    for more, ratio in (([], TrainConfig.preset("voc").backbone_lr / TrainConfig.preset("voc").lr), (["--set", "backbone_lr=0.0015"], 0.5)):
        out = tmp_path / f"run{ratio}"
        assert main([*arguments, *more, "--set", "workers=0", "--out", str(out)]) == 0
        config = torch.load(out / "checkpoint.pt", weights_only=True)["config"]
        assert config["lr"] == 0.003 and math.isclose(config["backbone_lr"], 0.003 * ratio)


@pytest.mark.parametrize("preset, copies", [("photos", 8), ("photos-fast", 4)])
def test_backbone_weights_from_a_file(voc, tmp_path, capsys, preset, copies):
    "The preset photos, chosen by itself, or its fast form: frozen features of turned copies of each photo, and the file's backbone in the model."
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18()
    torch.save(resnet.state_dict(), tmp_path / "r18.pth")
    small = [word for pair in ("backbone=resnet18", "dim=32", "heads=2", "encoder_layers=1", "decoder_layers=1", "image_size=48", "workers=0") for word in ("--set", pair)]
    if preset != "photos": small += ["--preset", preset]
    assert main(["train", "--data", str(voc), "--backbone-weights", str(tmp_path / "r18.pth"), *small, "--turns", "--device", "cpu", "--epochs", "1", "--quiet",
                 "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert f"6 photos x {copies}" in out and f"model   {preset}:" in out
    saved = json.loads((tmp_path / "run/run.json").read_text())
    assert (saved["preset"], saved["cache"], saved["turns"]) == (preset, copies, True)
    assert torch.equal(state(tmp_path / "run")["backbone.body.layer4.1.conv2.weight"], resnet.state_dict()["layer4.1.conv2.weight"])


def test_convert_and_use(small_resnet, voc, tmp_path, capsys):
    "There and back is bit for bit the same, and every layout detects and is evaluated alike."
    photo, folders = str(voc / "JPEGImages/p6.jpg"), {"nanodetr": small_resnet}
    for layout in ("official", "hf"):
        folders[layout] = tmp_path / layout
        assert main(["convert", str(small_resnet), str(folders[layout]), "--layout", layout]) == 0
    assert main(["convert", str(folders["hf"]), str(tmp_path / "back")]) == 0
    before, back = state(small_resnet), state(tmp_path / "back")
    assert before.keys() == back.keys() and all(torch.equal(before[name], back[name]) for name in before)
    capsys.readouterr()
    assert main(["detect", str(tmp_path / "back"), photo, "--threshold", "0", "--json"]) == 0
    labels = {d["label"] for d in json.loads(capsys.readouterr().out)["images"][0]["detections"]}
    assert labels and labels <= {f"class {k}" for k in range(4)}
    assert main(["detect", str(folders["official"]), photo, "--out", str(tmp_path / "drawn")]) == 0
    assert Image.open(tmp_path / "drawn/p6.png").size == (90, 60)
    assert "nowhere" in failure(capsys, "convert", tmp_path / "nowhere", tmp_path / "out")
    for name in ("hf", "back"):
        weights = tmp_path / name / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[len(data) // 2] ^= 64
        weights.write_bytes(data)
        assert f"{weights} is damaged: its bytes are not those that were saved" in failure(capsys, "detect", tmp_path / name, photo)
        (tmp_path / name / "manifest.json").unlink()  # of an older version
        assert DETR.from_pretrained(tmp_path / name)


def test_evaluate_where_the_model_knows_more(voc, tmp_path, capsys):
    "As a COCO model would: names in another order, and more of them."
    torch.manual_seed(0)
    DETR(DETRConfig.preset("nano", classes=["N/A", "hat", "dog", "cat"])).save_pretrained(tmp_path / "model")
    assert main(["evaluate", str(tmp_path / "model"), "--data", str(voc), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["per_class"]) == {"cat", "hat"}
    assert main(["detect", str(tmp_path / "model"), str(voc / "JPEGImages/p6.jpg"), "--threshold", "0", "--json"]) == 0
    assert {"N/A", "hat", "dog", "cat"} >= {d["label"] for d in json.loads(capsys.readouterr().out)["images"][0]["detections"]}


def test_any_setting_can_be_set(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", "--overfit", "4", "--epochs", "1", "--quiet", "--set", "norm_first=false", "--set", "ema=0.9", "--out", str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["norm_first"] is False
    assert torch.load(out / "checkpoint.pt", weights_only=True)["config"]["ema"] == 0.9
    assert "choose one of" in failure(capsys, "train", "--set", "speed=11", "--out", tmp_path / "other")
    assert "heads" in failure(capsys, "train", "--set", "heads=7", "--out", tmp_path / "other")


def test_check(voc, capsys):
    assert main(["check", str(voc)]) == 0
    assert "cat" in capsys.readouterr().out
    path = voc / "Annotations/p3.xml"
    path.write_text(path.read_text().replace("<xmax>43</xmax>", "<xmax>430</xmax>"))
    (voc / "JPEGImages/p0.jpg").write_bytes((voc / "JPEGImages/p0.jpg").read_bytes()[:400])
    (voc / "Annotations/p1.xml").write_text("<annotation>")
    assert main(["check", str(voc)]) == 1
    said = capsys.readouterr().out
    assert "p3" in said and "p0" in said and "p1" in said


@pytest.mark.parametrize("content, hint", [
    ("<annotation>", "p0.xml"),
    ('<!DOCTYPE a [<!ENTITY b "' + "ha" * 40 + '">]><annotation>&b;</annotation>', "p0.xml"),
    (VOC_XML.format(name="p0", w=90, h=60, objects=VOC_OBJECT.format(name="cat", x0="nan", y0=1, x1=9, y1=9)), "p0.xml"),
])
def test_broken_xml(voc, tmp_path, capsys, content, hint):
    (voc / "Annotations/p0.xml").write_text(content)
    assert hint in failure(capsys, "train", "--data", voc, "--epochs", 1, "--quiet", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_zero_area_box_is_dropped_with_a_warning(voc, tmp_path, capsys):
    path = voc / "Annotations/p0.xml"
    flat = VOC_OBJECT.format(name="cat", x0=10, y0=10, x1=9, y1=20)  # 1-based and inclusive: one less than xmin is no width
    path.write_text(path.read_text().replace("</annotation>", flat + "</annotation>"))
    assert main(["train", "--data", str(voc), "--epochs", "1", "--quiet", "--out", str(tmp_path / "run")]) == 0
    assert "dropped 1 box(es) without area in the picture, the first in p0.xml" in capsys.readouterr().err


def test_a_dry_run_decodes_as_check_does(voc, tmp_path, capsys):
    "Cut in its second half, a picture has a whole header: only decoding tells."
    path = sorted((voc / "JPEGImages").iterdir())[-1]
    for name in ("train", "val"): (voc / f"ImageSets/Main/{name}.txt").write_text("".join(f"{one.stem}\n" for one in sorted((voc / "JPEGImages").iterdir())))
    path.write_bytes(path.read_bytes()[:-200])
    assert main(["check", str(voc)]) == 1 and path.name in capsys.readouterr().out
    assert path.name in failure(capsys, "train", "--data", voc, "--dry-run")


def test_truncated_image(voc, tmp_path, capsys):
    for path in (voc / "JPEGImages").iterdir():
        path.write_bytes(path.read_bytes()[:500])
    assert ".jpg" in failure(capsys, "train", "--data", voc, "--epochs", 1, "--quiet", "--out", tmp_path / "run")


def test_empty_split(voc, tmp_path, capsys):
    (voc / "ImageSets/Main/train.txt").write_text("")
    assert "train" in failure(capsys, "train", "--data", voc, "--out", tmp_path / "run")


def test_missing_things(tmp_path, run_folder, capsys):
    assert "nowhere" in failure(capsys, "train", "--data", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert "enormous" in failure(capsys, "train", "--preset", "enormous", "--out", tmp_path / "run")
    assert "nowhere" in failure(capsys, "evaluate", tmp_path / "nowhere")
    assert "nowhere.jpg" in failure(capsys, "detect", run_folder, tmp_path / "nowhere.jpg")
    assert "--resume" in failure(capsys, "train", "--out", tmp_path / "run", "--resume")
    assert "epochs" in failure(capsys, "train", "--epochs", "0", "--out", tmp_path / "run")
    assert "lr" in failure(capsys, "train", "--lr", "nan", "--out", tmp_path / "run")
    assert "nowhere" in failure(capsys, "check", tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def test_a_run_is_never_overwritten(run_folder, capsys):
    before = (run_folder / "model.safetensors").read_bytes()
    assert "--resume" in failure(capsys, "train", "--overfit", "4", "--out", run_folder)
    assert (run_folder / "model.safetensors").read_bytes() == before


def test_foreign_weights(run_folder, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(run_folder, other)
    for name in ("best.safetensors", "manifest.json"): (other / name).unlink()
    state = load_file(other / "model.safetensors")
    state["class_head.weight"] = state["class_head.weight"][:-1].contiguous()
    save_file(state, other / "model.safetensors")
    assert "class_head.weight" in failure(capsys, "evaluate", other)
    config = json.loads((run_folder / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "dim": 128}))
    shutil.copy(run_folder / "model.safetensors", other)
    assert str(other) in failure(capsys, "evaluate", other)
    (other / "model.safetensors").write_bytes(b"not weights")
    assert "model.safetensors" in failure(capsys, "evaluate", other)
    (other / "config.json").write_text("{")
    assert "config.json" in failure(capsys, "evaluate", other)


def test_wrong_data_for_a_model(run_folder, voc, capsys):
    assert "cat, hat" in failure(capsys, "evaluate", run_folder, "--data", voc)


def test_broken_coco_json(tmp_path, capsys):
    (tmp_path / "dt.json").write_text("[")
    (tmp_path / "gt.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert "dt.json" in failure(capsys, "evaluate", "--detections", tmp_path / "dt.json", "--annotations", tmp_path / "gt.json")
    assert "both" in failure(capsys, "evaluate", "--detections", tmp_path / "dt.json")


def command(*arguments, **kwargs):
    code = "import sys; from nanodetr.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"}, **kwargs)


def test_full_disk_keeps_the_old_files(run_folder, tmp_path):
    "No file may grow past 200 kB: saving fails, and the checkpoint that was there is still whole."
    import resource

    out = tmp_path / "run"
    shutil.copytree(run_folder, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    saved = json.loads((out / "run.json").read_text())
    saved["plan"]["training"]["epochs"] = saved["epochs"] = 5  # as if it had been stopped after three of five
    (out / "run.json").write_text(json.dumps(saved))
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    state["config"]["epochs"] = state["plan"]["training"]["epochs"] = 5
    torch.save(state, out / "checkpoint.pt")
    (out / "manifest.json").unlink()
    before |= {name: (out / name).read_bytes() for name in ("checkpoint.pt",)}
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    process = command("train", "--resume", "--quiet", "--out", out, preexec_fn=limit)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 2 and "error" in said and "Traceback" not in said
    assert not list(out.glob("*tmp"))
    for name in ("model.safetensors", "checkpoint.pt"):
        assert (out / name).read_bytes() == before[name]


@pytest.mark.parametrize("words, says", [
    ([], ""), (["--epochs", 2], "made with epochs 1 (AP 0.250), and you ask for epochs 2: make it anew with --force"),
    (["--images", 99], "made with images 16 "), (["--set", "lr=0.1"], "lr as usual (AP 0.250), and you ask for lr 0.1"),
    (["--seed", 10**20], "seed is 1000"), (None, "made.json is missing")], ids=str)
def test_a_head_that_was_made_otherwise_is_not_taken_for_the_one_asked_for(words, says, tmp_path, capsys, monkeypatch):
    from types import SimpleNamespace

    import nanodetr.commands.pretrain as pretrain
    import nanodetr.runs.heads as heads

    made = {"data": "shapes-wild", "images": 16, "size": 64, "epochs": 1, "seed": 0, "AP": 0.25, "AP50": 0.5}
    (tmp_path / "head.safetensors").write_bytes(b"")
    if words is not None: (tmp_path / "made.json").write_text(json.dumps(made))
    monkeypatch.setattr(pretrain, "pretrain_model", lambda args: SimpleNamespace(config=SimpleNamespace(image_size=args.size)))
    monkeypatch.setattr(heads, "head_key", lambda model: ""), monkeypatch.setattr(heads, "head_folder", lambda key: tmp_path)
    usual = {"--backbone-weights": "x", "--images": 16, "--size": 64, "--epochs": 1, **dict(zip(*[iter(words or ())] * 2))}
    status = main(["pretrain", *(str(word) for pair in usual.items() for word in pair)])
    out, err = capsys.readouterr()
    assert (status, "there" in out) == ((2, False) if says else (0, True)) and says in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_standard_output_that_takes_nothing(voc):
    "Short or long answers, and whether they are kept until the end or not; a closed one is as good as none."
    words = f"{sys.executable} -m nanodetr check {voc}"
    for command, env in ((words, {}), (words, {"PYTHONUNBUFFERED": "1"})):
        done = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True, env=os.environ | env)
        assert done.returncode == 2 and done.stderr == "nanodetr: error: standard output: No space left on device: make room there, or choose another place\n"
    done = subprocess.run(f"{words} >&- 2>&-", shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_name_commands_no_terminal(tmp_path, capsys):
    for words in (["detect", "nano-shapes", "a\x1b[31mb.jpg"], ["evaluate", "a\x1b[31mb"], ["train", "--out", "x", "--a\x1b[31mb"]):
        try: assert main(words) == 2
        except SystemExit as stop: assert stop.code == 2
        said = capsys.readouterr().err
        assert "\x1b" not in said and r"a\x1b[31mb" in said


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of Unix")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_a_training_that_still_reads_is_interrupted(number, voc, tmp_path):
    "Before the first step too, the exit status is 130, and nothing stays."
    script = ("import os, signal, sys\nfrom nanodetr.commands import train\n"
              f"train.prepare_data = lambda *_, **more: os.kill(os.getpid(), signal.{number})\nfrom nanodetr.cli import main\nsys.exit(main(sys.argv[1:]))")
    done = subprocess.run([sys.executable, "-c", script, "train", "--data", voc, "--out", tmp_path / "run"], capture_output=True, text=True,
                          preexec_fn=lambda: [signal.signal(getattr(signal, name), signal.SIG_DFL) for name in ("SIGTERM", "SIGHUP")])
    assert done.returncode == 130 and done.stderr.endswith("nanodetr: interrupted\n") and not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", ["--data=", "--split=", "--plots= ", "--detections=", "--annotations="])
def test_an_empty_name_is_refused(words, capsys):
    assert main(["evaluate", "nano-shapes", words]) == 2 and f"{words.partition('=')[0]} is empty" in capsys.readouterr().err


@pytest.mark.parametrize("words, says", [
    ("evaluate nano-shapes --last", "--last chooses among the weights in a training's folder, and nano-shapes is none"),
    ("evaluate --detections d.json --annotations a.json --last --split test", "without --split, --last: leave them out"),
    ("evaluate --detections d.json --annotations a.json --data photos", "without --data: leave it out")])
def test_a_flag_that_would_count_for_nothing_is_refused(words, says, capsys): assert says in failure(capsys, *words.split())


@pytest.mark.parametrize("words", [["--freeze-backbone"], ["--cache", 1]])
def test_a_frozen_backbone_is_that_of_the_usual_start(voc, words, capsys):
    "A folder begins from nano-start, and its backbone has learned: freezing it needs no --weights."
    assert main([str(word) for word in ("train", "--data", voc, *words, "--dry-run")]) == 0
    said = re.search(r"start   from nano-start(?s:.*): ([\d,]+) parameters, ([\d,]+) of them trained", capsys.readouterr().out)
    assert said and said[1] != said[2]


def test_nothing_is_announced_before_a_refusal(voc, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = tmp_path / "one"
    shutil.copytree(voc, one, ignore=shutil.ignore_patterns("ImageSets", *(f"p{k}.*" for k in range(1, 8))))
    for words in (["--data", "shape"], ["--data", one, "--val-share", ".5"], ["--data", voc, "--num-queries", 1, "--preset", "nano", "--snapshots", 10**9], ["--data", voc, "--device", "cuda:99"]):
        assert main([str(word) for word in ("train", *words)]) == 2 and capsys.readouterr().out == ""
    (tmp_path / "runs").write_text("")
    assert main(["train", "--data", str(voc)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.endswith("runs is no folder: choose an --out where you may write\n")


@pytest.mark.parametrize("words", ["detect nano-shapes {voc} --coco {long}.json", "detect nano-shapes {voc} --out {long}", "evaluate nano-shapes --plots new/{long}.png",
                                   "check {voc} --html {long}.html", "export nano-shapes {long}.onnx", "convert nano-shapes {long}", "train --out {long}"])
def test_a_name_that_is_too_long_is_found_before_the_work(words, voc, capsys, monkeypatch):
    monkeypatch.setattr(DETR, "__init__", lambda *_, **more: pytest.fail("the work has begun"))
    assert "File name too long" in failure(capsys, *words.format(voc=voc, long="h" * 300).split())


@pytest.mark.parametrize("words, says", [
    ("train --data a --data b --val-share .25", "--data is there twice: give one of them; see nanodetr train --help"),
    ("evaluate m --data a --data=b", "--data is there twice"), ("detect m p --coco 1.json --coc 2.json", "--coco is there twice"),
    ("train --epochs 1 --epochs 2", "--epochs is there twice"), ("train --data a b", "b: a data set goes behind --data, one at a time, as in --data b"),
    ("train d", "as in --data d; see nanodetr train --help"), ("check a b", "nanodetr check takes one FOLDER at a time; see nanodetr check --help"),
    ("export m a.onnx --device cpu", "unrecognized arguments: --device cpu; see nanodetr export --help"), ("--foo train", "arguments: --foo; see nanodetr --help")])
def test_what_a_command_cannot_place_is_told_with_its_own_help(words, says, capsys):
    with pytest.raises(SystemExit) as stop: main(words.split())
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and says in said


def test_options_that_may_repeat_do():
    from nanodetr.cli import parser

    args = parser().parse_args(["train", "--set", "lr=.1", "--set", "ema=.9", "--quiet", "--quiet"])
    assert args.set == ["lr=.1", "ema=.9"] and not hasattr(args, "given")
    assert parser().parse_args(["train", "--data", "a"]).data == parser().parse_args(["train", "--data", "a"]).data  # nothing is remembered


def test_a_snapshot_is_used_as_it_lies(voc, tmp_path, capsys):
    "Its configuration, its data and what it has learned are those of the run above it."
    run, snapshot = tmp_path / "run", tmp_path / "run/snapshots/epoch-0001.safetensors"
    assert main([str(word) for word in ("train", "--data", voc, "--epochs", 1, "--snapshots", 1, "--quiet", "--out", run)]) == 0
    assert main(["evaluate", str(snapshot), "--json", "--draws", "0", "--quiet"]) == 0 and '"images": 2' in capsys.readouterr().out
    assert main(["evaluate", str(snapshot), "--split", "train", "--draws", "0", "--quiet"]) == 0 and f"6 of 6 pictures are among those that {run} was trained on" in capsys.readouterr().err
    state, last = DETR.from_pretrained(snapshot).state_dict(), load_file(run / "model.safetensors")
    assert all(torch.equal(state[name], value.half().float() if value.is_floating_point() else value) for name, value in last.items())
    assert main(["train", "--data", str(voc), "--weights", str(snapshot), "--dry-run"]) == 0
    lone = tmp_path / "snapshots"  # a run's folder of that name, and one that has lost its run
    shutil.move(run, lone)
    assert main(["evaluate", str(lone / "best.safetensors"), "--json", "--draws", "0", "--quiet"]) == 0
    (lone / "config.json").unlink()
    assert f"{lone / 'config.json'}: no such file" in failure(capsys, "detect", lone / "snapshots/epoch-0001.safetensors", next((voc / "JPEGImages").iterdir()))


def test_a_place_that_takes_nothing_is_named(tmp_path, capsys, monkeypatch):
    "The file that was asked for, and not the one that is written beside it; and no advice about space where there is enough."
    from nanodetr.commands.outputs import write_new

    monkeypatch.chdir(tmp_path)
    Path("a.onnx").write_bytes(b"")
    said = failure(capsys, "convert", "nano-shapes", "a.onnx/x")
    assert said.endswith("a.onnx is no folder: choose another place")
    Path("link").symlink_to("nowhere")
    assert "link exists and is not an empty folder: choose a new one" in failure(capsys, "convert", "nano-shapes", "link") and not Path("nowhere").exists()
    Path("found.json").write_text('{"images": []}'), Path("truth.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert "is not a list of detections; a COCO results file is wanted, as nanodetr detect --coco writes it" in failure(capsys, "evaluate", "--detections", "found.json", "--annotations", "truth.json")
    Path("found.json").unlink()
    Path("photos").mkdir(), Image.new("RGB", (8, 8)).save("photos/1.png")
    assert "photos holds no model" in failure(capsys, "convert", "photos", "out")
    monkeypatch.setattr(os, "open", lambda path, *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied", str(path))))
    with pytest.raises(PermissionError) as error: write_new("found.json", lambda place: None)
    assert error.value.filename == "found.json"


def test_no_bar_in_a_log(capsys):
    assert main(["evaluate", "nano-shapes", "--draws", "0"]) == 0
    assert "evaluate:" not in capsys.readouterr().err


def test_a_model_is_not_mistaken(voc, run_folder, tmp_path, capsys):
    "A picture or a data set in its place, and a preset of another kind."
    picture = next((voc / "JPEGImages").iterdir())
    assert "is a picture, and a model is wanted there" in failure(capsys, "detect", picture, run_folder)
    assert "is a picture" in failure(capsys, "evaluate", picture)
    assert "holds no model" in (said := failure(capsys, "evaluate", voc)) and "a data set goes behind --data" in said
    assert "trains behind a ResNet" in failure(capsys, "train", "--data", voc, "--weights", run_folder, "--preset", "photos", "--dry-run")
    assert main(["train", "--data", str(voc), "--dry-run"]) == 0 and re.search(r"seed 0, AP every \d+ epochs\n", capsys.readouterr().out)


def test_whoever_reads_the_answers_may_stop_early(tmp_path):
    "`nanodetr detect ... | head -1`: no message about a broken pipe."
    for k in range(3): Image.new("RGB", (64, 64), (k, 80, 90)).save(tmp_path / f"{k}.png")
    words = [sys.executable, "-m", "nanodetr", "detect", "nano-shapes", str(tmp_path), "--json", "--quiet", "--threshold", "0"]
    ran = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    ran.stdout.readline()
    ran.stdout.close()
    said = ran.stderr.read()
    assert ran.wait(120) == 141 and "pipe" not in said.lower() and "Traceback" not in said, said
