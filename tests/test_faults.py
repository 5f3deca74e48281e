"""Faults on purpose: what a run must survive, and what it must refuse.

NANODETR_SLOW=1 kills at ten random moments in place of two.
"""
import json
import multiprocessing
import os
import pickle
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from nanodetr.checkpoints.files import run_weights, sha256_of, write_atomically
from nanodetr.cli import main
from nanodetr.data import Dihedral, ShapesDataset
from nanodetr.errors import CheckpointError, ConfigError, DataError, NanodetrError
from nanodetr.model import DETR, DETRConfig
from nanodetr.runs import folder as folder_module
from nanodetr.runs.folder import locked
from nanodetr.runs.plan import changed_data, data_fingerprint
from nanodetr.runs.run import fit
from nanodetr.training import TrainConfig, TrainingError

FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
FRESH = multiprocessing.get_context("forkserver") if hasattr(os, "fork") else None  # forks from a process in which no test has run
if FRESH: FRESH.set_forkserver_preload(["nanodetr.runs.run", "nanodetr.data"])
QUICK = dict(epochs=3, batch_size=4, device="cpu")


def new_model():
    torch.manual_seed(3)
    return DETR(DETRConfig.preset("nano", dim=16, heads=2, ffn_dim=16, encoder_layers=1, decoder_layers=2))


def turned(n=24): return ShapesDataset("train", n=n, transforms=Dihedral())


def same(a, b) -> bool: return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows(folder) -> list:
    "The log without the clock."
    lines = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()]
    clock = lines[0].index("seconds")
    return [line[:clock] + line[clock + 1:] for line in lines]


def content(folder) -> dict: return {path.name: sha256_of(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    "The folder of a run that nothing disturbed."
    out = tmp_path_factory.mktemp("straight") / "run"
    fit(new_model(), turned(), ShapesDataset("val", n=4), TrainConfig(**QUICK), out=out, log_every=4, progress=False)
    return out


# ---------------------------------------------------------------- settings that make no sense

@pytest.mark.parametrize("words, hint", [
    ("--set lr=fast", "lr is 'fast'"), ("--set lr=NaN", "lr is nan"), ("--set lr=1e999", "lr is inf"), ("--lr -1", "lr is -1"), ("--set lr", "lr is ''"),
    ("--set workers=two", "workers is 'two'"), ("--set batch_size=2.5", "batch_size is 2.5"), ("--set device=gpu", "auto, cpu, cuda"), ("--set ema=2", "below 1"),
    ("--set ema=1.5", "ema"), ("--set beta2=1", "beta2 is 1,"), ("--set weight_decay=-1", "weight_decay is -1"), ("--seed 9223372036854775808", "seed is 9223372036854775808"),
    ("--seed -1", "seed is -1"), ("--overfit -5", "--overfit is -5"), ("--overfit 0", "1 or more"), ("--set dim=1000000", "at most 65536"), ("--set dim=65536", "GB"),
    ("--batch-size 1000000000", "batch_size is 1000000000"), ("--batch-size 7000", "at most 6000"), ("--accumulate 100000", "accumulate is 100000"), ("--set warmup=-1", "warmup is -1"),
    ("--set cooldown=2", "cooldown"), ("--set amp=maybe", "true or false"), ("--set group_by_aspect=1", "true or false"), ("--set epochs=1e3", "whole number"),
    ("--epochs 0", "epochs is 0"), ("--set seed=true", "seed is True"), ("--set clip=-1", "clip"), ("--set schedule=slow", "linear, cosine"), ("--set no_object_weight=-1", "no_object_weight"),
    ("--data=", "--data is empty"), ("--preset=", "--preset is empty"), ("--weights=", "--weights is empty"), ("--patience 0", "--patience is 0"), ("--evaluate-every -1", "1 or more"),
    ("--save-minutes nan", "--save-minutes is nan"), ("--num-queries -3", "--num-queries is -3"), ("--set image_size=128", "64 pixels"), ("--set heads=0", "heads is 0"),
    ("--set encoder_layers=1000000000", "at most 1000"), ("--set dropout=NaN", "dropout"), ("--set image_std=[0,0,0]", "image_std"), ("--set conv_widths=[100000]", "conv_widths"),
    ("--set classes=[1]", "those of the data"), ("--device cuda" if not torch.cuda.is_available() else "--set device=tpu", "device"), ("--set speed=11", "choose one of"), ("--preset voc", "--backbone-weights imagenet"), ("--preset paper", "--backbone-weights imagenet"), ("--set backbone=resnet18", "--backbone-weights none"),
    ("--lr 0", "lr is 0.0, but must be a number above 0 to 10"), ("--set no_object_weight=0", "above 0"), ("--set temperature=1e308", "0.001 to 1e9"),
    ("--mosaic .5", "--mosaic is for a folder of photographs, and shapes is drawn"), ("--data shapes-hard --val-share .2", "give --data FOLDER"), ("--epochs 3 --snapshots 1,4", "this run has 3 epochs"), ("--lr .2 --set lr=.1", "--lr and --set lr say the same thing"), ("--set lr=.2 --set lr=.1", "--set lr is there twice"), ("--set ema=1.5 --set lr=.2", "ema is 1.5"),
    ("--preset photos", "--backbone-weights"), ("--cache 0", "--weights"), ("--weights nano-shapes --cache 0", "1 or more"), ("--weights nano-shapes --set image_size=128", "64 pixels"),
])
def test_a_setting_that_makes_no_sense(words, hint, tmp_path, capsys):
    "One line that names the setting, its value and what is allowed; and nothing is written."
    assert main(["train", *words.split(), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("nanodetr: error: ") and len(said.err.strip().splitlines()) == 1 and hint in said.err and said.out == ""
    assert not (tmp_path / "run").exists()


def test_an_empty_out(capsys):
    assert main(["train", "--out="]) == 2 and "--out is empty" in capsys.readouterr().err


def test_fit_checks_its_settings_too():
    with pytest.raises(ConfigError, match="ema is 1.5, but must be a number from 0 to below 1"):
        fit(new_model(), turned(), config=TrainConfig(ema=1.5), progress=False)
    with pytest.raises(ConfigError, match="image_size is 1, but must be at least 8"): DETRConfig.preset("nano", image_size=1)


def test_insisting_on_a_random_backbone(tmp_path, capsys):
    "And the presets for photos compute a padded batch in one piece, as the paper does."
    small = [word for pair in ("backbone=resnet18", "dim=32", "heads=2", "encoder_layers=1", "decoder_layers=1", "workers=0") for word in ("--set", pair)]
    assert main(["train", "--preset", "voc", "--backbone-weights", "none", *small, "--overfit", "2", "--epochs", "1", "--dry-run", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert '"seal_padding": false' in said and '"image_size": 64' in said and not (tmp_path / "run").exists()
    assert not DETRConfig.preset("paper").seal_padding


# ---------------------------------------------------------------- resuming

VOC_XML = "<annotation><size><width>90</width><height>60</height></size><object><name>{name}</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>{x1}</xmax><ymax>50</ymax></bndbox></object></annotation>"


@pytest.fixture(scope="module")
def voc_run(tmp_path_factory):
    "(a small VOC folder, the folder of a run on it); each test works on copies."
    root = tmp_path_factory.mktemp("voc") / "photos"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"): (root / part).mkdir(parents=True)
    for k in range(6):
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(root / f"JPEGImages/p{k}.jpg")
        (root / f"Annotations/p{k}.xml").write_text(VOC_XML.format(name=("cat", "hat")[k % 2], x1=40 + k))
    (root / "ImageSets/Main/train.txt").write_text("p0\np1\np2\np3\n")
    (root / "ImageSets/Main/val.txt").write_text("p4\np5\n")
    out = root.parent / "run"
    assert main(["train", "--data", str(root), "--epochs", "2", "--batch-size", "2", "--set", "dim=16", "--set", "ffn_dim=16", "--set", "image_size=32", "--set", "max_size=48", "--quiet", "--out", str(out)]) == 0
    return root, out


@pytest.fixture()
def voc(voc_run, tmp_path):
    shutil.copytree(voc_run[0], tmp_path / "photos"), shutil.copytree(voc_run[1], tmp_path / "run")
    saved = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps({**saved, **dict.fromkeys(("data", "data_at"), str(tmp_path / "photos"))}))
    return tmp_path / "photos", tmp_path / "run"


def older(folder):
    "Make the run one of an older version: no plan, no sums, no best weights."
    for name in ("manifest.json", "best.safetensors", "previous.pt"): (folder / name).unlink()
    saved = json.loads((folder / "run.json").read_text())
    for name in ("plan", "patience", "evaluate_every", "save_minutes"): del saved[name]
    (folder / "run.json").write_text(json.dumps(saved))
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    for name in ("plan", "window", "pending", "best", "stale", "stopped"): del state[name]
    torch.save(state, folder / "checkpoint.pt")


CHANGES = [("--lr 0.1", "lr was 0.0015 and is now 0.1"), ("--epochs 9", "epochs was 2 and is now 9"), ("--set ema=0.9", "ema was 0.0"), ("--data shapes", ""), ("--overfit 2", "overfit was None"),
           ("--set temperature=7", "temperature was 20.0"), ("--set image_size=40", "image_size was 32"), ("--set dropout=0.5", "dropout was 0.0"), ("--weights nano-shapes", "weights was None"),
           ("--num-queries 50", "num_queries was 12"), ("--set dim=32", "dim was 16"), ("--seed 5", "seed was 0"), ("--preset voc", "preset was nano"), ("--turns", "turns was None")]


@pytest.mark.parametrize("version, words, hint", [("new", *change) for change in CHANGES] + [("old", *change) for change in CHANGES[:9:2]])
def test_a_refused_resume_changes_nothing(version, words, hint, voc, capsys):
    "It names what changed and how to go on; the plain resume works afterwards as before."
    data, out = voc
    if version == "old": older(out)
    before = content(out)
    assert main(["train", "--resume", "--quiet", "--out", str(out), *words.split()]) == 2
    said = capsys.readouterr().err
    assert "cannot resume" in said and hint in said and f"nanodetr train --weights {out}" in said and len(said.strip().splitlines()) == 1
    assert content(out) == before


@pytest.mark.parametrize("version", ["new", "old"])
def test_what_was_said_may_be_said_again(version, voc, capsys):
    data, out = voc
    if version == "old": older(out)
    assert main(["train", "--resume", "--quiet", "--out", str(out), "--epochs", "2", "--lr", "0.0015", "--data", str(data), "--set", "dim=16", "--set", "workers=0"]) == 0
    assert "done    4 steps" in capsys.readouterr().out
    usual = ["--mosaic", "0", "--cache-after", "layer4", "--accumulate", "1", "--evaluate-every", "1"]  # never said, and what is done then
    assert main(["train", "--resume", "--quiet", "--out", str(out), *usual[:-2 if version == "old" else None]]) == 0


@pytest.mark.parametrize("change, hint", [
    (lambda root: (root / "ImageSets/Main/train.txt").write_text("p0\np1\np2\np3\np4\n"), "number of images of the train data was 4 and is now 5"),
    (lambda root: [p.write_text(p.read_text().replace("hat", "cap")) for p in root.glob("Annotations/*")], "were cat, hat and are now"),
    (lambda root: (root / "Annotations/p0.xml").write_text(VOC_XML.format(name="cat", x1=77)), "labels or boxes of the train data"),
    (lambda root: (root / "ImageSets/Main/train.txt").write_text("p0\np1\np2\np5\n"), "names of the pictures"),
    (lambda root: (root / "ImageSets/Main/val.txt").write_text("p4\n"), "number of images of the val data was 2"),
    (lambda root: Image.new("RGB", (90, 60)).save(root / "JPEGImages/p1.jpg"), "sizes of the picture files of the train data are not what they were"),
])
def test_other_data_are_noticed(change, hint, voc, capsys):
    data, out = voc
    change(data)
    before = content(out)
    assert main(["train", "--resume", "--quiet", "--out", str(out)]) == 2
    assert hint in capsys.readouterr().err and content(out) == before


def test_another_picture_of_the_same_size_is_noticed(tmp_path):
    "Files of unpacked pictures have one size for each shape; one with other colours is another picture, a copy of it is not."
    class Bitmap:
        classes = ["cat"]
        def __len__(self): return 1
        def get_target(self, i): return {"labels": torch.tensor([0]), "boxes": torch.full((1, 4), 0.5)}
        def path(self, i): return tmp_path / "a.bmp"

    Image.new("RGB", (90, 60)).save(tmp_path / "a.bmp")
    before, size = data_fingerprint(Bitmap()), (tmp_path / "a.bmp").stat().st_size
    shutil.copy(tmp_path / "a.bmp", tmp_path / "b.bmp")
    (tmp_path / "b.bmp").replace(tmp_path / "a.bmp")
    assert changed_data(before, Bitmap()) == []
    Image.new("RGB", (90, 60), "red").save(tmp_path / "a.bmp")
    assert (tmp_path / "a.bmp").stat().st_size == size and changed_data(before, Bitmap()) == ["the pictures"]
    del before["middles"]  # a run of an older version
    assert changed_data(before, Bitmap()) == []


def test_moved_data_are_the_same_data(voc):
    data, out = voc
    data.rename(data.with_name("elsewhere"))
    assert main(["train", "--resume", "--quiet", "--out", str(out), "--data", str(data.with_name("elsewhere"))]) == 0


@pytest.fixture(scope="module")
def divided_run(voc_run):
    "(a set without val, the folder of a run with --val-share that was begun with a relative path)."
    root = voc_run[0].with_name("divided")
    shutil.copytree(voc_run[0], root / "photos", ignore=shutil.ignore_patterns("ImageSets"))
    before = os.getcwd()
    os.chdir(root)
    try: assert main(["train", "--data", "photos", "--val-share", "0.5", "--epochs", "1", "--batch-size", "2", "--set", "dim=16", "--set", "ffn_dim=16", "--set", "image_size=32", "--set", "max_size=48", "--quiet", "--out", "run"]) == 0
    finally: os.chdir(before)
    return root / "photos", root / "run"


def images_of(capsys, *words) -> tuple:
    "(on how many pictures `nanodetr evaluate` was, what it said besides)."
    status = main(["evaluate", *map(str, words), "--draws", "0", "--json"])
    said = capsys.readouterr()
    return (json.loads(said.out)["images"] if status == 0 else status), said.err


def test_a_divided_set_is_found_from_everywhere(divided_run, tmp_path, capsys, monkeypatch):
    "From another working directory, beside a namesake, and as a copy elsewhere, of which is said what differs."
    data, out = divided_run
    kept = len((out / "val.txt").read_text().split())
    shutil.copytree(data, tmp_path / "photos")
    for path in tmp_path.glob("photos/Annotations/*"): path.write_text(path.read_text().replace("<ymin>6", "<ymin>9"))
    monkeypatch.chdir(tmp_path)
    count, said = images_of(capsys, out)
    assert count == kept and "is not what this model was trained with" not in said
    count, said = images_of(capsys, out, "--data", "photos")
    assert count == kept and "photos is not what this model was trained with: the labels or boxes of split val are others now" in said
    shutil.copytree(out, tmp_path / "run")
    saved = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps({**saved, "data_at": str(tmp_path / "gone")}))  # as if the folder above both had moved
    assert images_of(capsys, "run")[0] == kept
    (tmp_path / "run/run.json").write_text(json.dumps({**saved, "data_at": str(tmp_path / "gone"), "data": "gone"}))
    assert images_of(capsys, "run")[0] == 2 and main(["train", "--resume", "--out", "run"]) == 2
    assert "where they are now, --data FOLDER" in capsys.readouterr().err
    assert images_of(capsys, "run", "--data", "photos")[0] == kept and main(["train", "--resume", "--out", str(out), "--quiet"]) == 0


def test_other_pictures_of_the_same_names_are_another_set(divided_run, tmp_path, capsys):
    "A run's division is for its own pictures: a set with the same names and a val of its own keeps that."
    shutil.copytree(divided_run[0], tmp_path / "photos")
    for k, path in enumerate(sorted(tmp_path.glob("photos/JPEGImages/*"))): Image.new("RGB", (90, 60), (40 * k, 0, 0)).save(path)
    (tmp_path / "photos/ImageSets/Main").mkdir(parents=True)
    for split, names in (("train", "p0\n"), ("val", "p1\np2\np3\np4\np5\n")): (tmp_path / f"photos/ImageSets/Main/{split}.txt").write_text(names)
    assert images_of(capsys, divided_run[1], "--data", tmp_path / "photos")[0] == 5
    assert images_of(capsys, divided_run[1], "--data", tmp_path / "photos", "--split", "train")[0] == 1


def test_a_copied_project_has_data_of_its_own(divided_run, tmp_path, capsys, monkeypatch):
    "A copy of the folder that a run was begun from is evaluated on the copy's data; from elsewhere, a namesake is named."
    shutil.copytree(divided_run[0].parent, tmp_path / "copy")
    for path in tmp_path.glob("copy/photos/Annotations/*"): path.write_text(path.read_text().replace("<ymin>6", "<ymin>9"))
    monkeypatch.chdir(tmp_path / "copy")
    assert "labels or boxes of split val are others now" in images_of(capsys, "run")[1]
    monkeypatch.chdir(divided_run[0].parent)
    assert "evaluated on" not in images_of(capsys, "run")[1]  # the same folder in two words
    monkeypatch.chdir(tmp_path / "copy")
    assert f"evaluated on {divided_run[0]}, which the run was trained on, and not on photos here" in images_of(capsys, divided_run[1])[1]


def test_validation_on_pictures_that_the_weights_have_seen(divided_run, tmp_path, capsys):
    "Another division of the set that a run has learned is said; the same one is not."
    data, out = divided_run
    flags = ["train", "--data", str(data), "--weights", str(out), "--val-share", "0.5", "--epochs", "1", "--dry-run"]
    said = {}
    for seed in range(4):
        assert main([*flags, "--seed", str(seed)]) == 0
        said[seed] = capsys.readouterr().err
    assert "was trained on" not in said[0] and any("was trained on, and AP will be too high: divide as it did, --val-share 0.5 --seed 0" in said[seed] for seed in (1, 2, 3))
    seed = next(seed for seed in (1, 2, 3) if "AP will be too high" in said[seed])

    def warned(folder, weights=out):
        assert main(["train", "--data", str(folder), "--weights", str(weights), "--val-share", "0.5", "--epochs", "1", "--dry-run", "--seed", str(seed)]) == 0
        return capsys.readouterr().err
    shutil.copytree(data, tmp_path / "photos")
    assert "AP will be too high" in warned(tmp_path / "photos")  # a copy
    for kind, ending in (("JPEGImages", "jpg"), ("Annotations", "xml")): shutil.copy(data / f"{kind}/p0.{ending}", tmp_path / f"photos/{kind}/p9.{ending}")
    assert "make a val split of its own, without those in" in warned(tmp_path / "photos")  # grown
    for path in tmp_path.glob("photos/JPEGImages/*"): Image.new("RGB", (90, 60)).save(path)
    assert "AP will be too high" not in warned(tmp_path / "photos")  # others of the same names
    before = os.getcwd()
    os.chdir(out)
    try:
        assert "AP will be too high" not in warned(data, "nano-start")  # a name, and no file in this folder
        assert main(["evaluate", "nano-shapes", "--draws", "0", "--json", "--quiet"]) == 0 and json.loads(capsys.readouterr().out)["images"] == 500  # shapes, and not the data of the run here
    finally: os.chdir(before)
    shutil.copytree(out, tmp_path / "run")
    (tmp_path / "run/train.txt").write_text("p0\n")
    assert "warning" in (said := warned(data, tmp_path / "run")) and "train.txt: is not the list of pictures that the run began with" in said


def test_a_measurement_on_learned_pictures_is_said(divided_run, voc_run, tmp_path, capsys):
    "As a whole, in another folder under other names, and of a run on a set with a train split of its own; not on its own val, nor on others of the same size."
    data, out = divided_run
    learned = [Path(name).stem for name in (out / "train.txt").read_text().split()]
    note = lambda run, *words: re.findall(r"note: (\d+ of \d+) pictures are among those that .* was trained on, so this AP says little about new ones", images_of(capsys, run, *words)[1])
    assert note(out) == [] and note(out, "--split", "all") == [f"{len(learned)} of 6"]
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"): (tmp_path / "photos" / part).mkdir(parents=True)
    other = Path((out / "val.txt").read_text().split()[0]).stem
    for k, stem in enumerate([other, *learned]):
        shutil.copy(data / f"JPEGImages/{stem}.jpg", tmp_path / f"photos/JPEGImages/new{k}.jpg")
        (tmp_path / f"photos/Annotations/new{k}.xml").write_text((data / f"Annotations/{stem}.xml").read_text().replace(f"<filename>{stem}", f"<filename>new{k}"))
    for split, names in (("train", "new0\n"), ("val", "new1\nnew2\n")): (tmp_path / f"photos/ImageSets/Main/{split}.txt").write_text(names)
    assert note(out, "--data", tmp_path / "photos") == ["2 of 2"]
    assert main(["train", "--data", str(tmp_path / "photos"), "--weights", str(out), "--dry-run"]) == 0 and "warning 2 of 2 pictures to validate on are among those" in capsys.readouterr().err
    picture = tmp_path / "photos/JPEGImages/new1.jpg"
    size = picture.stat().st_size
    Image.new("RGB", (90, 60), (9, 99, 0)).save(picture)
    picture.write_bytes(picture.read_bytes().ljust(size, b"\0"))  # another picture in a file of the same size
    assert picture.stat().st_size == size
    assert note(out, "--data", tmp_path / "photos") == ["1 of 2"]
    assert note(voc_run[1]) == [] and note(voc_run[1], "--split", "train") == ["4 of 4"]
    status, said = images_of(capsys, "nano-start", "--data", data)
    assert status == 2 and "the model has learned" in said


def test_a_division_that_cannot_be_applied_is_said(divided_run, tmp_path, capsys):
    "The data have moved and a list is gone or was cut: no other split is recommended without a word about the run's own pictures."
    data, out = divided_run
    shutil.copytree(data, tmp_path / "photos"), shutil.copytree(out, tmp_path / "run")
    (tmp_path / "run/val.txt").write_text("p0\n")
    status, said = images_of(capsys, tmp_path / "run", "--data", tmp_path / "photos")
    assert status == 2 and "val.txt: is not the list of pictures that the run began with" in said
    (tmp_path / "run/val.txt").unlink()
    status, said = images_of(capsys, tmp_path / "run", "--data", tmp_path / "photos")
    assert status == 2 and "val.txt: is missing, and says which pictures the run kept for val" in said
    (tmp_path / "run/train.txt").unlink()
    status, said = images_of(capsys, tmp_path / "run", "--data", tmp_path / "photos")
    assert status == 2 and "has no split val of its own, and it cannot be divided as the run" in said and "(--val-share 0.5): its lists" in said and "may hold pictures that the model has learned" in said
    next(tmp_path.glob("photos/JPEGImages/*")).unlink()
    status, said = images_of(capsys, out, "--data", tmp_path / "photos")
    assert status == 2 and "are not there, as" in said
    shutil.copytree(data, tmp_path / "again"), shutil.copytree(out, tmp_path / "few")
    change_json(tmp_path / "few/run.json", lambda saved: (saved.update(overfit=2), saved["plan"]["data"]["train"].update(bytes="0" * 16)))  # the sums of its first images
    assert images_of(capsys, tmp_path / "few", "--data", tmp_path / "again")[0] == len((out / "val.txt").read_text().split())


@pytest.mark.parametrize("spoil", [lambda path: path.write_text(path.read_text().split("\n")[0] + "\n"), Path.unlink])
def test_a_list_of_a_divided_set_that_was_cut(spoil, divided_run, tmp_path, capsys):
    shutil.copytree(divided_run[1], tmp_path / "run")
    spoil(tmp_path / "run/val.txt")
    status, said = images_of(capsys, tmp_path / "run")
    assert status == 2 and "run/val.txt" in said and "writes it anew" in said
    (tmp_path / "run/val.txt").unlink(missing_ok=True)
    assert main(["train", "--resume", "--quiet", "--out", str(tmp_path / "run")]) == 0  # what the message recommends
    capsys.readouterr()
    assert (tmp_path / "run/val.txt").read_bytes() == (divided_run[1] / "val.txt").read_bytes()
    saved = json.loads((tmp_path / "run/run.json").read_text())
    del saved["lists"], saved["data_at"]  # as an older version left it
    (tmp_path / "run/run.json").write_text(json.dumps({**saved, "data": str(divided_run[0])}))
    shutil.copy(divided_run[1] / "val.txt", tmp_path / "run/val.txt")
    assert images_of(capsys, tmp_path / "run")[0] == len((divided_run[1] / "val.txt").read_text().split())


def test_a_configuration_that_was_changed_by_hand(run, tmp_path):
    "Beside the manifest of a run it is refused; in a folder of its own it is another model."
    (run / "config.json").write_text((run / "config.json").read_text().replace('"image_size": 64', '"image_size": 32'))
    with pytest.raises(CheckpointError, match="config.json is damaged.*restore it, or write it anew: nanodetr train --resume --out"): DETR.from_pretrained(run)
    for name in ("config.json", "model.safetensors"): shutil.copy(run / name, tmp_path)
    assert DETR.from_pretrained(tmp_path).config.image_size == 32
    train_quietly(run, resume=True)
    assert DETR.from_pretrained(run).config.image_size == 64


def test_more_epochs_from_the_weights(voc, tmp_path):
    "What the refusal recommends."
    data, out = voc
    assert main(["train", "--weights", str(out), "--data", str(data), "--epochs", "1", "--batch-size", "4", "--quiet", "--out", str(tmp_path / "more")]) == 0


def test_a_run_that_never_saved_begins_again(straight, tmp_path):
    "A kill in the first epoch leaves run.json alone: --resume starts over from it, and so may another command."
    flags = ["train", "--overfit", "4", "--epochs", "1", "--batch-size", "4", "--set", "dim=16", "--quiet"]
    assert main([*flags, "--out", str(tmp_path / "a")]) == 0
    for name in ("b", "c"):
        (tmp_path / name).mkdir()
        shutil.copy(tmp_path / "a/run.json", tmp_path / name)
    assert main(["train", "--resume", "--out", str(tmp_path / "b")]) == main([*flags, "--out", str(tmp_path / "c")]) == 0
    assert same(load_file(tmp_path / "a/model.safetensors"), load_file(tmp_path / "b/model.safetensors"))


# ---------------------------------------------------------------- kills, interrupts, broken pictures

def train_quietly(out, resume=False, data=None, config=None, **more):
    fit(new_model(), data or turned(), ShapesDataset("val", n=4), config or TrainConfig(**QUICK), out=out, resume=resume, log_every=4, progress=False, **more)


@pytest.mark.skipif(FRESH is None, reason="kills are tried where processes can be forked")
@pytest.mark.parametrize("moment", range(10 if os.environ.get("NANODETR_SLOW") else 2))
def test_kill_9_and_resume(moment, straight, tmp_path):
    "Killed at a random moment, resumed: every weight and every row of the log of the run that nothing disturbed."
    out, generator = tmp_path / "run", random.Random(moment)
    process = FRESH.Process(target=train_quietly, args=(out,), kwargs={"save_minutes": 0})
    process.start()
    while process.is_alive() and not (out / "checkpoint.pt").exists(): time.sleep(0.001)
    time.sleep(generator.uniform(0, 0.5))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    train_quietly(out, resume=True, save_minutes=0)
    assert same(load_file(straight / "model.safetensors"), load_file(out / "model.safetensors")) and rows(out) == rows(straight)
    DETR.from_pretrained(out)  # and all sums are right
    assert {path.name for path in out.iterdir()} == {path.name for path in straight.iterdir()}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGINT)])
def test_signals_save(number, straight, tmp_path):
    "In the middle of an epoch, with losses that wait for their row."
    class Signals(ShapesDataset):
        count = 0
        def __getitem__(self, i):
            Signals.count += 1
            if Signals.count == 31: os.kill(os.getpid(), number)
            return super().__getitem__(i)

    with pytest.raises(KeyboardInterrupt, match="stopped at step 8 of 18"): train_quietly(tmp_path, data=Signals("train", n=24, transforms=Dihedral()))
    train_quietly(tmp_path, resume=True)
    assert same(load_file(straight / "model.safetensors"), load_file(tmp_path / "model.safetensors")) and rows(tmp_path) == rows(straight)


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    class Twice(ShapesDataset):
        def __getitem__(self, i):
            for _ in range(2): os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(i)

    with pytest.raises(KeyboardInterrupt) as stop: train_quietly(tmp_path, data=Twice("train", n=24))
    assert str(stop.value) == "" and not (tmp_path / "checkpoint.pt").exists() and signal.getsignal(signal.SIGINT) is signal.default_int_handler


WORKERS = """
import multiprocessing, sys, threading, torch
torch.set_num_threads(1)
from nanodetr.data import ShapesDataset
from nanodetr.model import DETR, DETRConfig
from nanodetr.runs.run import fit
from nanodetr.training import TrainConfig

class Slow(ShapesDataset):
    def __getitem__(self, i):
        import time
        time.sleep(0.05)
        return super().__getitem__(i)

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    torch.manual_seed(3)
    model = DETR(DETRConfig.preset("nano", dim=16, heads=2, ffn_dim=16, encoder_layers=1, decoder_layers=2))
    class Said(list):
        def append(self, row): super().append(row); print("step", flush=True)
    try: fit(model, Slow("train", n=240), None, TrainConfig(epochs=1, batch_size=4, workers=1, device="cpu"), out=sys.argv[2], log_every=1, progress=False, save_minutes=0)
    except KeyboardInterrupt as stop: print(stop); sys.exit(130)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="there are no process groups here")
@pytest.mark.parametrize("method, number", [("fork", signal.SIGTERM), pytest.param("spawn", signal.SIGINT, marks=pytest.mark.weekly), ("forkserver", signal.SIGINT)])
def test_signals_with_workers(method, number, tmp_path):
    "As a terminal sends Ctrl-C: to the whole group of processes, those that load data among them."
    (tmp_path / "script.py").write_text(WORKERS)
    process = subprocess.Popen([sys.executable, tmp_path / "script.py", method, tmp_path / "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                               env={**os.environ, "OMP_NUM_THREADS": "1"})
    while not (tmp_path / "run/checkpoint.pt").exists() and process.poll() is None: time.sleep(0.02)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out.startswith("stopped at step ") and "Traceback" not in err, err
    step = int(out.split()[3])
    assert torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["step"] == step and 1 <= step < 60


def test_ctrl_c_in_the_first_moments(tmp_path):
    process = subprocess.Popen([sys.executable, "-m", "nanodetr", "train", "--out", tmp_path / "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    maps = Path(f"/proc/{process.pid}/maps")
    if maps.exists():
        while "libtorch" not in maps.read_text() and process.poll() is None: time.sleep(0.01)  # torch is being imported
    else: time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in err and "Traceback" not in err


class Breaks(ShapesDataset):
    "Picture 17 cannot be read, as long as the file `broken` is there; with `kill`, reading it kills the process."
    def __init__(self, broken, kill=False, **more):
        super().__init__("train", **more)
        self.broken, self.kill = broken, kill

    def __getitem__(self, i):
        if i == 17 and self.broken.exists():
            if self.kill: os.kill(os.getpid(), signal.SIGKILL)
            raise DataError("photos/17.jpg: not a picture: take it out of the set")
        return super().__getitem__(i)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_breaks(workers, tmp_path):
    "One line with the file, also out of a loader process; mended, the run goes on from the last save."
    broken, out = tmp_path / "broken", tmp_path / "run"
    broken.touch()
    data, config = Breaks(broken, n=24), TrainConfig(**QUICK, workers=workers)
    with pytest.raises(DataError) as error: train_quietly(out, data=data, config=config, save_minutes=0)
    assert str(error.value) == "photos/17.jpg: not a picture: take it out of the set"
    broken.unlink()
    plain = tmp_path / "plain"
    train_quietly(plain, data=ShapesDataset("train", n=24), config=config)
    train_quietly(out, data=data, config=config, resume=(out / "checkpoint.pt").exists())
    assert same(load_file(plain / "model.safetensors"), load_file(out / "model.safetensors"))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_keeps_what_a_debugger_shows(workers, tmp_path):
    "Without loader processes, all of it; with them, what the caller was handling already stays untouched."
    broken = tmp_path / "broken"
    broken.touch()

    def frames(error):
        places, names = error.__traceback__, {}
        while places:
            names[places.tb_frame.f_code.co_name] = places.tb_frame.f_locals
            places = places.tb_next
        return names

    def earlier():
        precious = 5
        raise KeyError(precious)
    with pytest.raises(DataError) as error:
        try: earlier()
        except KeyError as first:
            handled = first
            train_quietly(tmp_path / "run", data=Breaks(broken, n=24), config=TrainConfig(**QUICK, workers=workers))
    assert frames(handled)["earlier"] == {"precious": 5}
    if workers == 0: assert "i" in frames(error.value)["__getitem__"]


@pytest.mark.parametrize("fault", ["picture", "loss", "caller"])
def test_a_failed_epoch_holds_no_process(fault, tmp_path):
    "A program whose training failed ends, also with loader processes, which no signal stops, and even where it keeps the error."
    script = tmp_path / "script.py"
    script.write_text(f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_faults as faults
from nanodetr.runs.run import ProgressLog, RunTrainer
from nanodetr.training import TrainingError

def refuse(*_, **more): raise RuntimeError("no step is logged")

def not_finite(*_): raise TrainingError("step 1: the loss is nan")

def main(fault, place):
    broken = place / "broken"
    if fault == "picture": broken.touch()
    if fault == "caller": ProgressLog.add = refuse
    if fault == "loss": RunTrainer.gradients = not_finite
    try: faults.train_quietly(place / "run", data=faults.Breaks(broken, n=24), config=faults.TrainConfig(**faults.QUICK, workers=1))
    except Exception as error:
        sys.kept = error
        print(type(error).__name__)

if __name__ == "__main__": main(sys.argv[1], Path(sys.argv[2]))
""")
    done = subprocess.run([sys.executable, script, fault, tmp_path], capture_output=True, text=True, timeout=60)
    assert done.stdout == dict(picture="DataError", loss="TrainingError", caller="RuntimeError")[fault] + "\n", done.stderr


@pytest.mark.skipif(FORK is None, reason="loader processes are forked here")
def test_a_killed_worker(tmp_path):
    broken = tmp_path / "broken"
    broken.touch()
    with pytest.raises(TrainingError, match="was killed, most often because the memory was full: use fewer workers .*go on with --resume"):
        train_quietly(tmp_path / "run", data=Breaks(broken, kill=True, n=24), config=TrainConfig(**QUICK, workers=1))


def test_a_broken_validation_picture_loses_nothing(straight, tmp_path):
    "The epoch is saved before it is validated, and the resumed run validates it."
    def fails(model): raise DataError("photos/9.jpg: not a picture")

    with pytest.raises(DataError, match="photos/9.jpg"): train_quietly(tmp_path, evaluate=fails)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 6
    seen = []
    train_quietly(tmp_path, resume=True, evaluate=lambda model: seen.append(1) or {"AP": 0.5})
    assert len(seen) == 3 and same(load_file(straight / "model.safetensors"), load_file(tmp_path / "model.safetensors"))


def test_validation_moves_no_random_number(straight, tmp_path):
    fit(model := new_model(), turned(), None, TrainConfig(**QUICK), progress=False)
    assert same(model.state_dict(), load_file(straight / "model.safetensors"))


def test_saving_within_an_epoch_changes_nothing(straight, tmp_path):
    train_quietly(tmp_path, save_minutes=0)
    assert same(load_file(straight / "model.safetensors"), load_file(tmp_path / "model.safetensors")) and rows(tmp_path) == rows(straight)


# ---------------------------------------------------------------- the best weights

def test_the_best_is_kept_and_taken(tmp_path):
    scores = iter([0.1, 0.7, 0.3])
    kept = []
    train_quietly(tmp_path, evaluate=lambda model: {"AP": next(scores)}, on_epoch=lambda model, history: kept.append({k: v.clone() for k, v in model.state_dict().items()}))
    assert run_weights(tmp_path).name == "best.safetensors" and run_weights(tmp_path, "last").name == "model.safetensors"
    assert same(load_file(run_weights(tmp_path)), kept[1]) and same(DETR.from_pretrained(tmp_path).state_dict(), kept[1])
    assert same(load_file(run_weights(tmp_path, "last")), kept[2])
    best = json.loads((tmp_path / "manifest.json").read_text())["best"]
    assert (best["by"], best["AP"], best["epoch"], best["step"]) == ("AP", 0.7, 2, 12) and best["val_loss"] > 0
    assert "val_loss" in (tmp_path / "log.csv").read_text().splitlines()[0]
    (tmp_path / "best.safetensors").unlink()  # the last ones are not taken in its place without a word
    with pytest.raises(CheckpointError, match=r"best.safetensors: is missing.*restore it, or take the last ones, .*model.safetensors$"): DETR.from_pretrained(tmp_path)
    assert same(DETR.from_pretrained(tmp_path / "model.safetensors").state_dict(), kept[2]) and same(load_file(run_weights(tmp_path, "last")), kept[2])


@pytest.mark.parametrize("patience, steps", [(1, 12), (2, 18), (0, 30)])
def test_early_stop(patience, steps, tmp_path):
    scores = iter([0.5, 0.4, 0.3, 0.6, 0.7])
    history = fit(new_model(), turned(), None, TrainConfig(**{**QUICK, "epochs": 5}), out=tmp_path, evaluate=lambda model: {"AP": next(scores)}, patience=patience, progress=False)
    assert history[-1]["step"] == steps
    assert fit(new_model(), turned(), None, TrainConfig(**{**QUICK, "epochs": 5}), out=tmp_path, resume=True, evaluate=lambda model: 1 / 0, patience=patience, progress=False)[-1]["step"] == steps


# ---------------------------------------------------------------- damaged files

@pytest.fixture()
def run(straight, tmp_path):
    shutil.copytree(straight, tmp_path / "run")
    return tmp_path / "run"


def flip(path, at=0.5):
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [flip, lambda path: path.write_bytes(path.read_bytes()[:-7]), lambda path: path.write_bytes(b""), lambda path: flip(path, 1.0)])
@pytest.mark.parametrize("name", ["model.safetensors", "best.safetensors", "checkpoint.pt"])
def test_damaged_files_are_found(name, damage, run):
    "And what to use instead is named."
    damage(run / name)
    with pytest.raises(CheckpointError) as error:
        if name == "checkpoint.pt": train_quietly(run, resume=True)
        else: DETR.from_pretrained(run / name)
    assert str(run / name) in str(error.value) and str(run / {"model.safetensors": "best.safetensors", "best.safetensors": "model.safetensors", "checkpoint.pt": "previous.pt"}[name]) in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_of_a_run_is_written_anew(name, voc, capsys):
    (voc[1] / name).unlink()
    assert main(["evaluate", str(voc[1]), "--last"]) == 2
    assert f"{name}: is missing: restore it, or write it anew: nanodetr train --resume --out {voc[1]}\n" in capsys.readouterr().err
    assert main(["train", "--resume", "--quiet", "--out", str(voc[1])]) == main(["evaluate", str(voc[1]), "--last", "--draws", "0"]) == 0


def test_what_the_messages_recommend_works(run, straight):
    flip(run / "checkpoint.pt")
    shutil.move(run / "checkpoint.pt", run.parent)
    with pytest.raises(TrainingError, match="checkpoint.pt does not exist; go on from the one before it: rename .*previous.pt to checkpoint.pt"): train_quietly(run, resume=True)
    (run / "previous.pt").replace(run / "checkpoint.pt")
    train_quietly(run, resume=True)
    flip(run / "model.safetensors")
    train_quietly(run, resume=True)  # writes it anew
    assert same(DETR.from_pretrained(run / "model.safetensors").state_dict(), load_file(straight / "model.safetensors"))


def test_weights_of_a_run_may_be_saved_over(run):
    "By hand, in its own folder: the manifest notes it."
    model = DETR.from_pretrained(run)
    with torch.no_grad(): model.class_head.bias.add_(1)
    model.save_pretrained(run)
    assert same(DETR.from_pretrained(run / "model.safetensors").state_dict(), model.state_dict())


@pytest.mark.parametrize("change", [{}, {"step": "many"}, {"step": 10**9}, {"model": {}}, {"optimizer": {}}, {"rng": torch.zeros(3)}, {"history": None}, {"config": {"lr": []}}, {"average": {}}, [1, 2], "text",
                                    {"scaler": {"scale": "x"}, "optimizer": {"state": {}, "param_groups": []}}, {"plan": {"model": 3}}, {"plan": []}])
def test_a_checkpoint_of_another_content(change, run):
    "Well-formed, and not what a run writes."
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    state = change if not isinstance(change, dict) else {**state, **change} if change else {}
    (run / "manifest.json").unlink()
    torch.save(state, run / "checkpoint.pt")
    with pytest.raises((CheckpointError, TrainingError)) as error: train_quietly(run, resume=True)
    assert "without resume" not in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["[]", "7", "{", '{"data": 5}', '{"epochs": "many", "data": "shapes"}', '{"set": ["lr"], "data": "shapes", "plan": 7}', '{"set": [3]}', '{"plan": {"model": {"dim": "wide"}, "training": {}}}',
                                  '{"plan": {"model": {}, "training": {"lr": "fast"}}}', '{"plan": {"model": {}, "training": {}, "data": {"train": 3}}}', "\x00"])
def test_a_run_json_of_another_content(text, run, capsys):
    (run / "run.json").write_text(text)
    assert main(["train", "--resume", "--quiet", "--out", str(run)]) == 2
    said = capsys.readouterr().err
    assert "run.json" in said and len(said.strip().splitlines()) == 1


def test_a_manifest_of_another_content(run):
    for text in ("[]", "{"):
        (run / "manifest.json").write_text(text)
        with pytest.raises(CheckpointError, match="manifest.json"): DETR.from_pretrained(run)
    for text in ('{"sha256": 5}', '{"sha256": {"model.safetensors": 5, "best.safetensors": 5}}', "{}"):
        (run / "manifest.json").write_text(text)
        try: DETR.from_pretrained(run)
        except CheckpointError: pass


def test_a_malicious_checkpoint_runs_nothing(run, tmp_path):
    class Trojan:
        def __reduce__(self): return (os.mkdir, (str(tmp_path / "owned"),))

    (run / "manifest.json").unlink()
    for write in (lambda: torch.save({"model": Trojan()}, run / "checkpoint.pt"), lambda: (run / "checkpoint.pt").write_bytes(pickle.dumps(Trojan()))):
        write()
        with pytest.raises(CheckpointError, match="checkpoint.pt"): train_quietly(run, resume=True)
        assert not (tmp_path / "owned").exists()


def test_files_have_the_permissions_of_their_neighbours(run):
    modes = {stat.S_IMODE((run / name).stat().st_mode) for name in ("model.safetensors", "best.safetensors", "config.json", "checkpoint.pt", "log.csv", "manifest.json")}
    (run / "plain").touch()
    assert modes == {stat.S_IMODE((run / "plain").stat().st_mode)}


# ---------------------------------------------------------------- the folder

def test_a_folder_with_other_things(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("my own")
    assert main(["train", "--out", str(tmp_path)]) == 2
    assert "holds other things" in capsys.readouterr().err and [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_an_out_that_cannot_be_is_refused_before_the_work(more, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    for name in ("mine/thesis.txt", "mine/checkpoint.pt"):
        (tmp_path / name).touch()
        for out in ("mine", name, f"{name}/run"):
            assert main(["train", "--epochs", "1", *more, "--out", str(tmp_path / out)]) == 2
            said = capsys.readouterr()
            assert str(tmp_path / (name if out.endswith("run") else out)) in said.err and "choose" in said.err and said.out == ""
    assert main(["train", "--epochs", "1", "--dry-run", "--out", str(tmp_path / "new/run")]) == 0 and not (tmp_path / "new").exists()


def test_fit_never_goes_over_a_run(run):
    before = content(run)
    with pytest.raises(TrainingError, match="already holds a run"): train_quietly(run)
    assert content(run) == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "best.safetensors", "log.csv", "manifest.json"])
def test_fit_never_goes_over_files_of_others(name, tmp_path):
    (tmp_path / name).write_text("{}")
    with pytest.raises(TrainingError, match=f"{name} is there already"): train_quietly(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "{}"}


@pytest.mark.parametrize("left", [["model.safetensors", "best.safetensors"], ["model.safetensors"], ["best.safetensors"]])
def test_fit_never_goes_over_weights_whose_checkpoint_is_gone(left, run):
    for path in run.iterdir():
        if path.suffix in (".pt", ".safetensors") and path.name not in left: path.unlink()
    (run / "best.safetensors").write_bytes(b"weights") if "best.safetensors" in left else None
    before = content(run)
    with pytest.raises(TrainingError, match="is there already"): train_quietly(run)
    assert content(run) == before


def test_fit_where_no_folder_can_be(tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file/run"):
        with pytest.raises(TrainingError, match="no folder can be made there"): train_quietly(out)


@pytest.mark.parametrize("own", [{"run.json": '{"my": "notes"}'}, {"train.txt": "mine"}, {"run.json": "[]", "val.txt": "mine"}, {".saving/x": "mine"}])
def test_train_never_goes_over_files_of_others(own, tmp_path, capsys):
    "Names that a run uses too: run.json, the lists of a division, the folder of what is being saved."
    for name, text in own.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert main(["train", "--overfit", "4", "--epochs", "1", "--quiet", "--out", str(tmp_path)]) == 2
    assert "holds other things" in capsys.readouterr().err and {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == own


def test_a_damaged_manifest_is_found_before_the_work(voc, capsys):
    data, out = voc
    whole = (out / "manifest.json").read_bytes()
    (out / "manifest.json").write_bytes(whole[:60])
    for words in (["train", "--resume", "--out", out], ["evaluate", out]):
        assert main(list(map(str, words))) == 2 and "manifest.json: not JSON" in (said := capsys.readouterr().err) and "delete it" in said
    (out / "manifest.json").unlink()
    assert main(["train", "--resume", "--quiet", "--out", str(out)]) == 0


@pytest.mark.parametrize("spoil, hint", [
    (lambda out: (out / "checkpoint.pt").write_bytes((out / "checkpoint.pt").read_bytes()[:5000]), "checkpoint.pt is damaged"),
    (lambda out: (out / "checkpoint.pt").unlink(), "checkpoint.pt: is missing: go on from the one before it: rename"),
    (lambda out: [(out / name).unlink() for name in ("checkpoint.pt", "previous.pt")], "checkpoint.pt: is missing: take the run's weights into a new one: nanodetr train --weights"),
    (lambda out: change_json(out / "run.json", lambda saved: saved.update(data={"a": 1})), "run.json: data is"),
    (lambda out: change_json(out / "run.json", lambda saved: saved["plan"]["data"]["val"].update(classes=5)), "holds no fingerprint of its data"),
])
def test_a_dry_resume_sees_what_the_real_one_would(spoil, hint, voc, capsys):
    spoil(voc[1])
    for more in (["--dry-run"], ["--quiet"]):
        assert main(["train", "--resume", "--out", str(voc[1]), *more]) == 2 and hint in capsys.readouterr().err


def test_resume_takes_the_run_on_this_folder(voc, tmp_path, capsys, monkeypatch):
    "Two folders of one name: the last run on the one that is asked for goes on, not the last of all."
    monkeypatch.chdir(tmp_path)
    for k, place in enumerate("ab"):
        shutil.copytree(voc[0], tmp_path / place / "photos")
        out = tmp_path / "runs" / ("photos-nano" + "-2" * k)
        shutil.copytree(voc[1], out)
        change_json(out / "run.json", lambda saved: saved.update(data=f"{place}/photos", data_at=str(tmp_path / place / "photos")))
        for name in ("run.json", "checkpoint.pt"): os.utime(out / name, (10**9 + k, 10**9 + k))
    for asked, folder in (("a/photos", "photos-nano"), ("b/photos", "photos-nano-2"), (str(voc[0]), "photos-nano-2")):  # on none: the last one of that name
        assert main(["train", "--data", asked, "--resume", "--dry-run"]) == 0
        assert f"into    runs/{folder}\n" in capsys.readouterr().out


def test_data_that_cannot_be_looked_at(voc, tmp_path, capsys, monkeypatch):
    "A path at which the system refuses to look, as one in a folder that is closed to this user."
    change_json(voc[1] / "run.json", lambda saved: saved.update(data="photos", data_at="/" + 300 * "x"))
    assert main(["evaluate", str(voc[1]), "--data", str(voc[0]), "--draws", "0"]) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(voc[1]), "--draws", "0"]) == 0
    monkeypatch.chdir("/")
    capsys.readouterr()
    assert main(["evaluate", str(voc[1])]) == 2 and "give --data FOLDER" in capsys.readouterr().err
    assert main(["train", "--resume", "--out", str(voc[1])]) == 2 and "say where they are now, --data FOLDER" in capsys.readouterr().err
    change_json(voc[1] / "run.json", lambda saved: (saved.pop("data"), saved.update(data_at=str(voc[0]))))
    assert main(["evaluate", str(voc[1]), "--draws", "0"]) == 0


def change_json(path, change) -> None:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def test_a_run_that_names_no_data(voc, capsys):
    change_json(voc[1] / "run.json", lambda saved: saved.update(data={"a": 1}, data_at=5))
    assert main(["evaluate", str(voc[1])]) == 2 and "its run.json says that its data are {'a': 1}" in capsys.readouterr().err


@pytest.mark.skipif(FORK is None, reason="a second process is forked here")
def test_two_runs_in_one_folder(run):
    "The second one is told who runs there; when that one is killed, its lock is no longer in the way."
    def hold():
        with locked(run):
            (run / "held").touch()
            time.sleep(60)

    process = FORK.Process(target=hold)
    process.start()
    while not (run / "held").exists(): time.sleep(0.01)
    with pytest.raises(TrainingError, match=f"another training runs there .process {process.pid} on"): train_quietly(run, resume=True)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    train_quietly(run, resume=True)
    assert not (run / "run.lock").exists()


def test_a_stale_lock_is_taken_over_by_one_alone(tmp_path, monkeypatch):
    "Somebody else is faster, between our look at the stale lock and our deleting it; and a deleter that was killed is named."
    dead, path = {"pid": 2**22 + 1, "host": socket.gethostname(), "started": 1}, tmp_path / "run.lock"
    live, real = {**dead, "pid": os.getppid(), "started": folder_module.started(os.getppid())}, folder_module.runs_still

    def looked(lock):
        if lock == dead: path.write_text(json.dumps(live))
        return real(lock)

    path.write_text(json.dumps(dead))
    monkeypatch.setattr(folder_module, "runs_still", looked)
    with pytest.raises(TrainingError, match=f"another training runs there .process {os.getppid()} on"):
        with locked(tmp_path): pass
    assert json.loads(path.read_text()) == live and [one.name for one in tmp_path.iterdir()] == ["run.lock"]
    monkeypatch.setattr(folder_module, "runs_still", real)
    path.write_text(json.dumps(dead))
    (tmp_path / "run.lock.over").touch()
    with pytest.raises(TrainingError, match="run.lock.over: .*delete this file"):
        with locked(tmp_path): pass
    (tmp_path / "run.lock.over").unlink()
    with locked(tmp_path): assert json.loads(path.read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_two_started_at_once(tmp_path, monkeypatch):
    "Without --out each gets a folder of its own; names may hold what a glob would take for a pattern."
    from nanodetr.commands.train import run_folder

    monkeypatch.chdir(tmp_path)
    found, threads = [], [threading.Thread(target=lambda: found.append(run_folder(None, "a [b]*/", "nano", False))) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert len(set(found)) == 8
    shutil.rmtree("runs/a [b]*-nano")
    assert run_folder(None, "a [b]*/", "nano", False) == Path("runs/a [b]*-nano")
    (tmp_path / "runs/a [b]*-nano-3/run.json").touch()
    assert run_folder(None, "a [b]*/", "nano", True) == Path("runs/a [b]*-nano-3")


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["train", "--overfit", "4", "--epochs", "1", "--out", str(tmp_path / "file/run")]) == 2
    assert "--out" in capsys.readouterr().err
    if Path("/proc/self").exists():
        assert main(["train", "--overfit", "4", "--epochs", "1", "--out", "/proc/self/run"]) == 2
        said = capsys.readouterr().err
        assert "you may not write in /proc/self" in said and len(said.strip().splitlines()) == 1


def test_a_folder_that_goes_away(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(CheckpointError, match="the folder of this run has gone"):
        train_quietly(out, on_epoch=lambda model, history: shutil.rmtree(out))


@pytest.fixture()
def small_disk(tmp_path):
    "A disk of 16 MB."
    place = tmp_path / "disk"
    place.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk(small_disk, straight):
    "The old checkpoint stays whole, one line names file and remedy, and with room again the run goes on bit for bit."
    out, before = small_disk / "run", {}

    def fill(model, history):
        if history[-1]["epoch"] != 1: return
        before.update(content(out))
        try: (small_disk / "filler").write_bytes(bytes(17_000_000))
        except OSError: pass

    with pytest.raises(CheckpointError, match="No space left on device.*make room, then go on with the same command and --resume"): train_quietly(out, on_epoch=fill)
    (small_disk / "filler").unlink()
    after = content(out)
    assert after["checkpoint.pt"] == before["checkpoint.pt"] and after["model.safetensors"] == before["model.safetensors"] and not list(out.glob("*.tmp"))
    train_quietly(out, resume=True)
    assert same(load_file(straight / "model.safetensors"), load_file(out / "model.safetensors"))


def test_a_read_only_disk(small_disk, capsys):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert main(["train", "--overfit", "4", "--epochs", "1", "--out", str(small_disk / "run")]) == 2
    said = capsys.readouterr().err
    assert "you may not write in" in said and len(said.strip().splitlines()) == 1
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert main(["train", "--overfit", "4", "--epochs", "1", "--quiet", "--out", str(small_disk / "run")]) == 0
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    capsys.readouterr()
    assert main(["train", "--resume", "--out", str(small_disk / "run")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"nanodetr: error: {small_disk / 'run/run.lock'}: Read-only file system: ")


def test_under_the_c_locale(voc):
    "Names in any script, in the data and in the folder's own name."
    data, out = voc
    for path in data.glob("Annotations/*.xml"): path.write_text(path.read_text().replace("hat", "шляпа"), encoding="utf-8")
    moved = data.with_name("写真")
    data.rename(moved)
    done = subprocess.run([sys.executable, "-m", "nanodetr", "train", "--data", str(moved), "--epochs", "1", "--quiet", "--set", "dim=16", "--out", str(moved / "lauf-ä")], capture_output=True,
                          env={**os.environ, "LC_ALL": "C", "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads((moved / "lauf-ä/config.json").read_text())["classes"] == ["cat", "шляпа"]


# ---------------------------------------------------------------- what `fit` is given

class Odd(ShapesDataset):
    "Sample 5 is spoiled by a function of (image, target)."
    def __init__(self, spoil, **more):
        super().__init__("train", **more)
        self.spoil = spoil

    def __getitem__(self, i):
        image, target = super().__getitem__(i)
        return self.spoil(image, target) if i == 5 else (image, target)


@pytest.mark.parametrize("spoil, hint", [
    (lambda image, target: (image, {**target, "boxes": target["boxes"] * 64}), "fractions of the picture"),
    (lambda image, target: (image * 255, target), "pixels go from"),
    (lambda image, target: (image.masked_fill(image > 0.5, float("nan")), target), "NaN"),
    (lambda image, target: (image, {**target, "boxes": target["boxes"] * torch.tensor([1, 1, -1, 1])}), "negative width"),
    (lambda image, target: (image, {**target, "boxes": target["boxes"] * float("inf")}), "box"),
    (lambda image, target: (image, {**target, "labels": target["labels"] + 0.5}), "whole numbers"),
    (lambda image, target: (image, {**target, "labels": target["labels"][:-1]}), "labels"),
    (lambda image, target: ((image - 0.45) / 0.05, target), "not normalised"),
])
def test_fit_refuses_what_is_no_sample(spoil, hint, tmp_path):
    "By name, before the weights moved."
    model = new_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DataError, match=hint) as error: fit(model, Odd(spoil, n=8), None, TrainConfig(epochs=1, batch_size=8, device="cpu"), progress=False)
    assert str(error.value).startswith("shapes-easy-train-00005: ") and same(before, model.state_dict())


def test_fit_refuses_bytes():
    data = [((image * 255).byte(), target) for image, target in ShapesDataset("train", n=4)]
    with pytest.raises(DataError, match="image 0: its pixels are uint8: floats in 0..1 are wanted"): fit(new_model(), data, None, TrainConfig(epochs=1, batch_size=4, device="cpu"), progress=False)


def test_a_file_beside_keeps_its_name_and_content(tmp_path):
    "What is written beside and then renamed never takes the place of a file of the user's."
    from nanodetr.checkpoints.files import write_atomically

    (tmp_path / "a.json.tmp").write_text("mine")
    write_atomically(tmp_path / "a.json", lambda path: path.write_text("new"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.json.tmp": "mine", "a.json": "new"}
