"""`nanodetr detect` and `evaluate` as people use them: folders and patterns, broken pictures, names that are taken, videos, files for COCO, models of others.

NANODETR_FUZZ set: 10,000 random command lines in place of a few.
"""
import io
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from nanodetr.cli import main, parser
from nanodetr.commands.outputs import write_new
from nanodetr.data import ShapesDataset
from nanodetr.datasets.text import is_drawing
from nanodetr.errors import UsageError
from nanodetr.model import DETR, DETRConfig

MANY = 10_000 if os.environ.get("NANODETR_FUZZ") else 60


def scene(path: Path, k: int = 0, size: int = 64) -> Path:
    "A drawn scene that the small model of the library knows."
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = ShapesDataset("val", size=size, n=k + 1)[k][0].permute(1, 2, 0).numpy() * 255
    Image.fromarray(pixels.round().astype(np.uint8)).save(path)
    return path


def run(capsys, *words) -> tuple:
    "(status, standard output, standard error) of a command."
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out, err


def detect(capsys, *words, model="nano-shapes"): return run(capsys, "detect", model, *words, "--device", "cpu", "--quiet")


def strict(text: str):
    "JSON without NaN and Infinity, which are none."
    def refuse(word): raise AssertionError(f"{word} is not JSON")
    return json.loads(text, parse_constant=refuse)


# --- nothing is written over

def contents(folder: Path) -> dict: return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("way", ["plain", "symlink to the folder", "hard link", "symlink to the picture", "dangling link"])
def test_an_input_is_never_written_over(way, tmp_path, capsys):
    photo = scene(tmp_path / "photos/1.png")
    out = tmp_path / "photos"
    if way == "symlink to the folder":
        out = tmp_path / "elsewhere"
        out.symlink_to(tmp_path / "photos", target_is_directory=True)
    elif way != "plain":
        out = tmp_path / "out"
        out.mkdir()
        if way == "hard link": os.link(photo, out / "1.png")
        else: (out / "1.png").symlink_to(photo if way == "symlink to the picture" else tmp_path / "nowhere.png")
    before = contents(tmp_path)
    assert detect(capsys, photo, "--out", out)[0] == 0
    after = contents(tmp_path)
    assert all(after[path] == data for path, data in before.items())
    assert (out / "1-2.png").is_file() and not (tmp_path / "nowhere.png").exists()


def test_drawings_are_not_looked_at_again(tmp_path, capsys, monkeypatch):
    "A second run over the same folder finds the photo alone; a drawing that is given by name is a picture."
    scene(tmp_path / "1.png"), monkeypatch.chdir(tmp_path)
    for k in range(2): assert detect(capsys, ".")[0] == 0
    assert sorted(os.listdir("detections")) == ["1-2.png", "1.png"]
    status, _, said = detect(capsys, "detections")
    assert status == 2 and "no pictures in this folder but 2 drawing(s) of nanodetr detect, which are passed over" in said and detect(capsys, "detections/1.png")[0] == 0


def test_namesakes_get_names_of_their_own(tmp_path, capsys):
    "a/1.png, b/1.png, B/1.PNG and 1.jpg are four drawings; a second run writes four more."
    photos = [scene(tmp_path / name, k) for k, name in enumerate(("a/1.png", "b/1.png", "c/1.PNG", "a/1.jpg"))]
    for count in (4, 8):
        status, out, _ = detect(capsys, *photos, "--out", tmp_path / "drawn")
        assert status == 0 and len(list((tmp_path / "drawn").iterdir())) == count
    told = [line.rsplit(" ", 1)[1] for line in out.splitlines() if "drawn in" in line]
    assert len(set(told)) == 4 and all(Path(name).is_file() for name in told)


def test_results_of_others_are_kept(tmp_path, capsys):
    photo = scene(tmp_path / "1.png")
    for name in ("found.json", "report.png"): (tmp_path / name).write_text("mine")
    before = contents(tmp_path)
    status, _, err = detect(capsys, photo, "--coco", tmp_path / "found.json")
    assert status == 2 and "found.json" in err and "another name" in err
    status, _, err = run(capsys, "evaluate", "nano-shapes", "--plots", tmp_path / "report.png")
    assert status == 2 and "report.png" in err
    DETR(DETRConfig.preset("nano")).save_pretrained(tmp_path / "model")
    kept = contents(tmp_path / "model")
    status, _, err = run(capsys, "convert", "nano-shapes", tmp_path / "model")
    assert status == 2 and "not an empty folder" in err and contents(tmp_path / "model") == kept
    assert run(capsys, "convert", tmp_path / "model", tmp_path / "model/config.json")[0] == 2
    assert all(path.read_bytes() == data for path, data in before.items())
    status, _, err = detect(capsys, photo, "--out", photo)
    assert status == 2 and "is a file" in err


def test_a_failure_leaves_no_half_file(tmp_path, capsys):
    photo = scene(tmp_path / "1.png")
    photo.write_bytes(photo.read_bytes()[:100])
    assert detect(capsys, photo, "--coco", tmp_path / "found.json")[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["1.png"]


def test_a_killed_command_leaves_the_name_free(tmp_path):
    "kill -9 in the middle of the work: the same command can be typed again. A name that another command takes meanwhile stays that one's."
    out, done = tmp_path / "found.json", tmp_path / "done"

    def killed(place):
        place.write_text("half")
        os._exit(9)
    if hasattr(os, "fork"):
        if (child := os.fork()) == 0: write_new(out, killed)
        os.waitpid(child, 0)
    assert not out.exists() and write_new(out, lambda place: place.write_text("whole")).read_text() == "whole"

    def overtaken(place):
        place.write_text("mine")
        done.write_text("theirs")
    with pytest.raises(UsageError, match="done was made by another command.*what this one has written is in (.*)$") as error: write_new(done, overtaken)
    assert done.read_text() == "theirs" and Path(str(error.value).rsplit(" is in ", 1)[1]).read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="a small disk can only be mounted by root")
@pytest.mark.parametrize("words", ["detect nano-shapes 1.png --out {}/drawn", "detect nano-shapes 1.png --coco {}/found.json", "evaluate nano-shapes --draws 0 --plots {}/plots.png",
                                   "export nano-shapes {}/model.pt2", "train --overfit 2 --epochs 1 --out {}/run", "check photos --html {}/page.html"])
@pytest.mark.parametrize("disk", ["full", "ro"])
def test_a_disk_that_takes_nothing(words, disk, tmp_path, capsys, monkeypatch):
    "One line with the file, the reason and a remedy; and nothing stays there that keeps the next try from its name."
    monkeypatch.chdir(tmp_path)
    scene(Path("1.png")), scene(Path("photos/JPEGImages/1.png"))
    (tmp_path / "photos/Annotations").mkdir()
    (tmp_path / "photos/Annotations/1.xml").write_text("<annotation><object><name>cup</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>30</xmax><ymax>50</ymax></bndbox></object></annotation>")
    Path(disk).mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode: pytest.skip("a small disk cannot be mounted here")
    try:
        if disk == "full":
            try: Path("full/filler").write_bytes(bytes(70_000))
            except OSError: pass
        else: subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        status, _, err = run(capsys, *words.format(disk).split())
        last = err.strip().splitlines()[-1]
        assert status == 2 and disk in last and ("make room" in last if disk == "full" else "choose" in last) and "Errno" not in err
        assert not [path for path in Path(disk).rglob("*") if path.is_file() and path.name != "filler"]
    finally: subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of Unix")
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_detection_that_is_stopped_keeps_what_it_found(number, tmp_path):
    "COCO results of the pictures so far are whole, the exit status is 130; and before the first picture nothing stays."
    for k in range(4): scene(tmp_path / f"photos/{k}.png", k)
    script = ("import os, signal, sys\nfrom nanodetr.commands import detect\nfind, when = detect.find_objects, int(sys.argv[1])\n"
            "def one(model, shot, threshold):\n    if shot.name == str(when): os.kill(os.getpid(), getattr(signal, sys.argv[2]))\n    return find(model, shot, threshold)\n"
            "detect.find_objects = one\nfrom nanodetr.cli import main\nsys.exit(main(sys.argv[3:]))")
    for when, kept in ((0, None), (2, 2)):
        out = tmp_path / f"{when}.json"
        done = subprocess.run([sys.executable, "-c", script, str(when), number, "detect", "nano-shapes", tmp_path / "photos", "--coco", out, "--threshold", "0", "--quiet", "--device", "cpu"],
                              capture_output=True, text=True, preexec_fn=lambda: [signal.signal(getattr(signal, name), signal.SIG_DFL) for name in ("SIGINT", "SIGTERM", "SIGHUP")])
        assert done.returncode == 130 and "Traceback" not in done.stderr, done.stderr
        assert out.exists() == bool(kept) and (not kept or len({row["image_id"] for row in json.loads(out.read_text())}) == kept)
        assert not list(tmp_path.glob(".nanodetr*"))
    assert "interrupted after 2 pictures" in done.stderr


# --- what is given

def test_files_folders_and_patterns(tmp_path, capsys):
    for k, name in enumerate(("p/a.png", "p/q/b.JPG", "p/c [1].png", "x [y]/d.jfif", "p/._a.png", "p/notes.txt")):
        path = tmp_path / name
        scene(path if path.suffix in (".png", ".JPG") else path.with_suffix(".png"), k)
        if path.suffix == ".jfif": Image.open(path.with_suffix(".png")).save(path, format="JPEG"); path.with_suffix(".png").unlink()
    (tmp_path / "p/notes.png").unlink()
    found = lambda *given: [Path(entry["file"]).relative_to(tmp_path).as_posix() for entry in strict(detect(capsys, *(tmp_path / g for g in given), "--json")[1])["images"]]
    assert found("p") == ["p/a.png", "p/c [1].png", "p/q/b.JPG"]
    assert found("p/c [1].png") == ["p/c [1].png"] and found("x [y]") == found("x [y]/*") == found("x*/*.jfif") == ["x [y]/d.jfif"]
    assert found("p/*.png", "p/a.png") == ["p/a.png", "p/c [1].png"] and found("**/*.JPG") == ["p/q/b.JPG"]
    (tmp_path / "p/lost.png").symlink_to(tmp_path / "gone.png")
    status, out, err = detect(capsys, tmp_path / "p", "--json")
    assert status == 0 and len(strict(out)["images"]) == 3 and "left out of" in err and "1 link(s) that lead nowhere" in err and "lost.png" in err
    for wrong in ("nowhere.png", "p/*.gif", "p/[z].png"):
        status, out, err = detect(capsys, tmp_path / wrong, "--json")
        assert status == 2 and wrong in err and out == ""
    (tmp_path / "empty").mkdir()
    assert "no pictures in this folder" in detect(capsys, tmp_path / "empty")[2]


def test_a_broken_picture_does_not_end_the_rest(tmp_path, capsys):
    photos = [scene(tmp_path / f"{k}.png", k) for k in range(4)]
    photos[1].write_bytes(photos[1].read_bytes()[:200])
    photos[2].write_bytes(b"")
    status, out, err = detect(capsys, *photos, "--json", "--out", tmp_path / "drawn")
    assert status == 1 and "1.png" in err and "2.png" in err and "2 of 4" in err and "out of the set" not in err
    images = strict(out)["images"]
    assert [Path(entry["file"]).name for entry in images] == ["0.png", "3.png"] and all(Path(entry["drawn"]).is_file() for entry in images)
    status, out, err = detect(capsys, *photos[1:3])
    assert status == 2 and "none of 2" in err
    status, out, err = detect(capsys, photos[1])
    assert status == 2 and err.strip().splitlines()[-1].startswith("nanodetr: error: ") and "out of the" not in err


def test_pictures_of_every_shape_are_drawn_at_their_own_size(tmp_path, capsys):
    sizes = [(1, 1), (3, 2), (1, 3000), (3000, 8), (700, 500)]
    for k, (w, h) in enumerate(sizes): Image.fromarray(np.full((h, w, 3), 99, np.uint8)).save(tmp_path / f"{k}.png")
    status, out, _ = detect(capsys, *(tmp_path / f"{k}.png" for k in range(len(sizes))), "--out", tmp_path / "drawn", "--threshold", 0, "--json")
    assert status == 0 and [(e["width"], e["height"]) for e in strict(out)["images"]] == sizes
    assert [Image.open(tmp_path / f"drawn/{k}.png").size for k in range(len(sizes))] == sizes


def test_a_very_large_picture_names_the_limit_and_how_to_lift_it(tmp_path, capsys):
    Image.new("1", (3000, 2000), 1).save(tmp_path / "large.png")
    status, _, err = detect(capsys, tmp_path / "large.png", "--max-pixels", 5_000_000)
    assert status == 2 and "--max-pixels 6000000" in err and "environment" not in err
    assert detect(capsys, tmp_path / "large.png", "--max-pixels", 0, "--json")[0] == 0
    assert "--max-pixels is -1" in detect(capsys, tmp_path / "large.png", "--max-pixels", -1)[2]


def test_one_picture_is_held_at_a_time(tmp_path, capsys, monkeypatch):
    "While picture k is read, no earlier one is in memory."
    import gc
    import weakref

    import nanodetr.data as data
    real, alive = data.read_image, []

    def counting(path, **more):
        gc.collect()
        alive.append(sum(ref() is not None for ref in seen))
        image = real(path, **more)
        seen.append(weakref.ref(image))
        return image
    seen = []
    monkeypatch.setattr(data, "read_image", counting)
    photos = [scene(tmp_path / f"{k}.png", k) for k in range(4)]
    assert detect(capsys, *photos, "--out", tmp_path / "drawn")[0] == 0
    assert len(alive) == 4 and max(alive) == 0


def test_a_picture_that_does_not_fit_the_memory_is_named(tmp_path, capsys, monkeypatch):
    real = DETR.detect

    def full(self, images, *more):
        if images[0].shape[-1] > 100: raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return real(self, images, *more)
    monkeypatch.setattr(DETR, "detect", full)
    status, out, err = detect(capsys, scene(tmp_path / "1.png"), scene(tmp_path / "2.png", 1, 200), "--json")
    assert status == 1 and "2.png: 200 x 200 pixels need more memory" in err and len(strict(out)["images"]) == 1


# --- videos

def test_a_video_that_is_none(tmp_path, capsys, monkeypatch):
    (tmp_path / "clip.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + b"\x00" * 64)
    status, _, err = detect(capsys, tmp_path / "clip.mp4")
    assert status == 2 and "clip.mp4" in err and "video" in err
    photo = scene(tmp_path / "1.png")
    assert detect(capsys, tmp_path / "clip.mp4", photo, "--json")[0] == 1
    monkeypatch.setitem(sys.modules, "av", None)  # as where it is not installed
    assert 'pip install "nanodetr[video]"' in detect(capsys, tmp_path / "clip.mp4")[2]


def test_frames_of_a_video(tmp_path, capsys):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as video:
        stream = video.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 128
        stream.pix_fmt = "yuv420p"
        for k in range(7):
            pixels = (ShapesDataset("val", size=128, n=7)[k][0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")): video.mux(packet)
        for packet in stream.encode(): video.mux(packet)
    status, out, _ = detect(capsys, tmp_path / "clip.mp4", "--every", 3, "--json", "--out", tmp_path / "drawn")
    frames = strict(out)["images"]
    assert status == 0 and [entry["frame"] for entry in frames] == [0, 3, 6] and abs(frames[1]["time"] - 0.3) < 1e-6
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["clip-000000.png", "clip-000003.png", "clip-000006.png"]
    assert sum(len(entry["detections"]) for entry in frames) > 5
    assert "--every is 0" in detect(capsys, tmp_path / "clip.mp4", "--every", 0)[2]


# --- COCO

def test_coco_results_are_read_back(tmp_path, capsys):
    "Detect with the numbers of an annotations file, evaluate the results with it: the AP of the model itself."
    data, names = ShapesDataset("val", n=12), ShapesDataset("val", n=12).classes
    truth = {"images": [], "annotations": [], "categories": [{"id": 10 * (4 - k), "name": name.upper()} for k, name in enumerate(names)]}
    for k in range(12):
        scene(tmp_path / f"val/{k:03}.png", k)
        truth["images"].append({"id": 700 - k, "file_name": f"{k:03}.png", "width": 64, "height": 64})
        target = data.get_target(k)
        for label, (x0, y0, x1, y1) in zip(target["labels"].tolist(), target["boxes"].tolist()):
            truth["annotations"].append({"id": len(truth["annotations"]) + 1, "image_id": 700 - k, "category_id": 10 * (4 - label),
                                         "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0})
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    assert detect(capsys, tmp_path / "val", "--coco", tmp_path / "dt.json", "--annotations", tmp_path / "gt.json", "--threshold", 0)[0] == 0
    rows = strict((tmp_path / "dt.json").read_text())
    assert {row["image_id"] for row in rows} == set(range(689, 701)) and {row["category_id"] for row in rows} <= {10, 20, 30, 40}
    status, out, err = run(capsys, "evaluate", "--detections", tmp_path / "dt.json", "--annotations", tmp_path / "gt.json", "--json", "--plots", tmp_path / "report.png")
    scores = strict(out)
    assert status == 0 and scores["AP50"] > 0.9 and scores["images"] == 12 and "12 images, which is little" in err
    low, high = scores["intervals"]["AP50"]
    assert low <= scores["AP50"] <= high and Image.open(tmp_path / "report.png").size[0] > 900 and is_drawing(tmp_path / "report.png")
    shutil.copy(tmp_path / "val/000.png", tmp_path / "val/stranger.png")
    status, _, err = detect(capsys, tmp_path / "val", "--coco", tmp_path / "more.json", "--annotations", tmp_path / "gt.json", "--threshold", 0)
    assert status == 1 and "stranger.png" in err and len({row["image_id"] for row in strict((tmp_path / "more.json").read_text())}) == 12
    truth["categories"] = [{"id": 1, "name": "zebra"}]
    (tmp_path / "other.json").write_text(json.dumps({**truth, "annotations": []}))
    assert "none of its categories" in detect(capsys, tmp_path / "val", "--coco", tmp_path / "x.json", "--annotations", tmp_path / "other.json")[2]
    assert not (tmp_path / "x.json").exists()


def annotations(path: Path, *images) -> Path:
    "A COCO file that lists these pictures, and the shapes as its categories."
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(ShapesDataset("val", n=1).classes)]
    path.write_text(json.dumps({"images": list(images), "annotations": [], "categories": categories}))
    return path


def numbers(path: Path) -> dict: return {(row["file_name"].split("/")[-2], row["image_id"]) for row in strict(path.read_text())}


@pytest.mark.parametrize("name, given, wanted", [
    ("0.png", "val", {("val", 7)}), ("0.png", ".", set()), ("val/0.png", ".", {("val", 7)}), ("val/0.png", "train", set()),
    ("/home/me/photos/0.png", "val", {("val", 7)}), ("images/val/0.png", "val", {("val", 7)})])
def test_a_picture_gets_no_number_of_its_namesake(name, given, wanted, tmp_path, capsys):
    for k, split in enumerate(("train", "val")): scene(tmp_path / f"set/{split}/0.png", k)
    gt = annotations(tmp_path / "gt.json", {"id": 7, "file_name": name, "width": 64, "height": 64})
    status, _, err = detect(capsys, tmp_path / "set" / given, "--coco", tmp_path / "dt.json", "--annotations", gt, "--threshold", 0)
    assert (numbers(tmp_path / "dt.json") if wanted else set()) == wanted
    assert status == (2 if not wanted else 1 if given == "." else 0), err
    if given == ".": assert "train/0.png: " in err and ("has it as well" in err) != bool(wanted)


def test_the_longest_end_of_a_name_counts(tmp_path, capsys):
    for place in ("a", "b"): scene(tmp_path / place / "0.png")
    gt = annotations(tmp_path / "gt.json", {"id": 7, "file_name": "a/0.png"})
    status, _, err = detect(capsys, tmp_path / "a", tmp_path / "b", "--coco", tmp_path / "dt.json", "--annotations", gt, "--threshold", 0)
    assert status == 1 and numbers(tmp_path / "dt.json") == {("a", 7)} and "b/0.png: has the name 'a/0.png' of the --annotations" in err


def test_two_pictures_of_one_name_in_the_annotations_meet_by_their_folders(tmp_path, capsys):
    for split in ("train", "val"): scene(tmp_path / f"set/{split}/0.png")
    gt = annotations(tmp_path / "gt.json", *({"id": k, "file_name": f"{split}/0.png", "width": 64, "height": 64} for k, split in enumerate(("val", "train"))))
    assert detect(capsys, tmp_path / "set", "--coco", tmp_path / "dt.json", "--annotations", gt, "--threshold", 0)[0] == 0
    assert numbers(tmp_path / "dt.json") == {("val", 0), ("train", 1)}
    scene(tmp_path / "0.png")
    assert "not by that name alone" in detect(capsys, tmp_path / "0.png", "--coco", tmp_path / "no.json", "--annotations", gt)[2]


def test_the_size_that_the_annotations_state_is_obeyed(tmp_path, capsys):
    "A photo that was labelled as stored is read as stored; one of another size is refused."
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(scene(tmp_path / "a.png")).resize((96, 64)).save(tmp_path / "a.jpg", exif=exif)
    for name, (width, height), right in (("stored", (96, 64), True), ("shown", (64, 96), True), ("other", (50, 50), False)):
        gt = annotations(tmp_path / f"{name}.json", {"id": 1, "file_name": "a.jpg", "width": width, "height": height})
        status, out, err = detect(capsys, tmp_path / "a.jpg", "--coco", tmp_path / f"{name}-dt.json", "--annotations", gt, "--json")
        assert status == (0 if right else 2) and ("its annotation says 50 x 50" in err) != right
        if right: assert [strict(out)["images"][0][side] for side in ("width", "height")] == [width, height]


def test_videos_in_a_folder_and_further_frames_are_told(tmp_path, capsys):
    first = Image.open(scene(tmp_path / "mix/a.gif.png"))
    first.save(tmp_path / "mix/a.gif", save_all=True, append_images=[first.rotate(90), first.rotate(180)])
    for name in ("mix/c.mp4", "only/d.mov"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    status, _, err = detect(capsys, tmp_path / "mix", "--json", "--every", 3)
    assert "note: --every 3 is for the frames of videos" in err
    status, _, err = detect(capsys, tmp_path / "mix", "--json")
    assert "--every" not in err
    assert status == 0 and "1 video, " in err and "mix/*.mp4" in err and "a.gif holds 3 pictures" in err and "a.gif.png holds" not in err
    status, _, err = detect(capsys, tmp_path / "only")
    assert status == 2 and "no pictures in this folder, but 1 video" in err and len(err.splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
def test_a_name_of_a_picture_commands_no_terminal(tmp_path, capsys):
    scene(tmp_path / "a\x1b[31m\nb.png")
    status, out, _ = detect(capsys, tmp_path)
    assert status == 0 and "\x1b" not in out and r"a\x1b[31m\nb.png" in out.splitlines()[0]


def test_coco_without_annotations(tmp_path, capsys):
    photos = [scene(tmp_path / f"{k}.png", k) for k in range(2)]
    assert detect(capsys, *photos, "--coco", tmp_path / "dt.json")[0] == 0
    rows = strict((tmp_path / "dt.json").read_text())
    assert {(row["image_id"], Path(row["file_name"]).name) for row in rows} == {(1, "0.png"), (2, "1.png")}
    assert all(row["category"] == ShapesDataset("val", n=1).classes[row["category_id"] - 1] for row in rows)
    assert "--coco" in detect(capsys, photos[0], "--annotations", tmp_path / "gt.json")[2]


def test_a_crowd_and_a_warning_are_told_in_one_line_each(tmp_path, capsys):
    "More objects than COCO's rule looks at; and a library's warning has no place in the source for people."
    truth = {"images": [{"id": 1, "file_name": "a.jpg", "width": 900, "height": 900}], "categories": [{"id": 1, "name": "ant"}],
             "annotations": [{"id": k + 1, "image_id": 1, "category_id": 1, "bbox": [k % 30 * 20, k // 30 * 20, 9, 9], "area": 81, "iscrowd": 0} for k in range(150)]}
    rows = [{"image_id": 1, "category_id": 1, "bbox": row["bbox"], "score": 0.9} for row in truth["annotations"]]
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text(json.dumps(rows))
    files = "--detections", tmp_path / "dt.json", "--annotations", tmp_path / "gt.json"
    status, out, err = run(capsys, "evaluate", *files, "--json")
    assert status == 0 and strict(out)["AP50"] < 0.7 and "150 objects" in err and "voc2012" in err and "1 image, which" in err
    status, out, err = run(capsys, "evaluate", *files, "--json", "--protocol", "voc2012")
    assert strict(out)["AP50"] == 1 and "150 objects" not in err


# --- models

def test_a_model_of_shapes_says_so_for_a_photo(tmp_path, capsys):
    assert "drawn shapes" not in detect(capsys, scene(tmp_path / "scene.png"), "--json")[2]
    status, out, err = detect(capsys, *(scene(tmp_path / f"{k}.png", k, 200) for k in range(2)), "--json")
    assert status == 0 and err.count("knows only drawn shapes") == 1 and strict(out)


def test_nan_in_the_weights_is_refused(tmp_path, capsys):
    model = DETR(DETRConfig.preset("nano"))
    model.save_pretrained(tmp_path / "model")
    state = load_file(tmp_path / "model/model.safetensors")
    state["class_head.weight"][0, 0] = float("nan")
    save_file(state, tmp_path / "model/model.safetensors")
    for words in (("detect", tmp_path / "model", scene(tmp_path / "1.png")), ("evaluate", tmp_path / "model", "--data", "shapes")):
        status, out, err = run(capsys, *words)
        assert status == 2 and "class_head.weight" in err and "NaN" in err and not out
    assert not (tmp_path / "detections").exists()


def test_answers_that_overflow_are_refused(tmp_path, capsys):
    "Finite weights whose answers are none: refused, in place of an empty list or NaN in the JSON."
    model = DETR(DETRConfig.preset("nano"))
    with torch.no_grad(): model.class_head.weight.fill_(3e38)
    model.save_pretrained(tmp_path / "model")
    status, out, err = detect(capsys, scene(tmp_path / "1.png"), "--json", model=tmp_path / "model")
    assert status == 2 and "not numbers" in err and strict(out) == {"images": []}


def test_best_weights_by_default_and_the_last_where_asked(tmp_path, capsys):
    folder = tmp_path / "run"
    torch.manual_seed(0)
    DETR(DETRConfig.preset("nano", classes=ShapesDataset("val", n=1).classes)).save_pretrained(folder)
    from nanodetr.checkpoints.files import shipped_models
    shutil.copy(shipped_models()["nano-shapes"] / "model.safetensors", folder / "best.safetensors")
    photo = scene(tmp_path / "1.png", 3)
    count = lambda *more: len(strict(detect(capsys, photo, "--json", *more, model=folder)[1])["images"][0]["detections"])
    assert count() > 2 and count("--last") != count()
    from nanodetr.commands.evaluate import load_model
    for last, name in ((False, "best.safetensors"), (True, "model.safetensors")):
        assert torch.equal(load_model(folder, "cpu", last).class_head.weight, load_file(folder / name)["class_head.weight"])


def test_a_remedy_is_one_of_the_command(tmp_path, capsys):
    "No flag that it lacks, and no name that it does not take."
    scene(tmp_path / "photos/1.png")
    (tmp_path / "photos/1.xml").write_text("<annotation><object><name>ring</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>30</xmax><ymax>50</ymax></bndbox></object></annotation>")
    err = run(capsys, "evaluate", "nano-start", "--data", tmp_path / "photos")[2]
    assert "(there are all); name one that is there, as in --split all (which may hold pictures that the model has learned" in err
    assert run(capsys, "evaluate", "nano-start", "--data", tmp_path / "photos", "--split", "all", "--draws", "0")[0] == 0
    assert run(capsys, "evaluate", "--detections", tmp_path / "photos/1.xml", "--annotations", tmp_path / "none.json")[2].endswith("check the name\n")
    assert run(capsys, "check", "shapes")[2].endswith("no such folder; check the path\n")
    DETR(DETRConfig.preset("nano")).save_pretrained(tmp_path / "run")
    torch.save({"model": load_file(tmp_path / "run/model.safetensors")}, tmp_path / "run/checkpoint.pt")  # what --resume reads
    assert run(capsys, "detect", tmp_path / "run/checkpoint.pt", tmp_path / "photos/1.png")[2].endswith(f"give the folder it lies in, {tmp_path / 'run'}\n")
    assert run(capsys, "detect", "nano-shapes", tmp_path / "photos/1.png", "--coco", tmp_path / "found.json", "--annotations", tmp_path / "none.json")[2].endswith("check the name\n")


@pytest.mark.parametrize("name", ["gpu", "cuda:77", "meta", "tpu", ""])
def test_unknown_devices_are_refused(name, tmp_path, capsys):
    for words in (("detect", "nano-shapes", scene(tmp_path / "1.png")), ("evaluate", "nano-shapes")):
        status, _, err = run(capsys, *words, "--device", name)
        assert status == 2 and f"device is {name!r}" in err and "auto" in err


def photos_of(tmp_path, classes) -> Path:
    "A COCO folder with a picture for each class."
    root = tmp_path / "data"
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        for k in range(len(classes)): scene(root / f"{split}2017/{k}.jpg", k)
        rows = [{"id": k + 1, "image_id": k, "category_id": k, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0} for k in range(len(classes))]
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps({
            "images": [{"id": k, "file_name": f"{k}.jpg", "width": 64, "height": 64} for k in range(len(classes))], "annotations": rows,
            "categories": [{"id": k, "name": name} for k, name in enumerate(classes)]}))
    return root


def test_classes_meet_by_name(tmp_path, capsys):
    root = photos_of(tmp_path, ["zebra", "Cross", "ellipse"])
    status, out, err = run(capsys, "evaluate", "nano-shapes", "--data", root, "--json", "--device", "cpu")
    assert status == 0 and list(strict(out)["per_class"]) == ["Cross", "ellipse"] and "does not know zebra" in err and "2 of 3" in err
    assert all(row["objects"] == 1 for row in strict(out)["per_class"].values())
    shutil.rmtree(root)
    status, out, err = run(capsys, "evaluate", "nano-shapes", "--data", photos_of(tmp_path, ["zebra", "ant"]), "--json")
    assert status == 2 and not out and "rectangle, ellipse" in err and "zebra, ant" in err


def test_a_model_that_does_not_say_what_it_was_trained_on(tmp_path, capsys):
    DETR(DETRConfig.preset("nano", classes=["cat"])).save_pretrained(tmp_path / "model")
    status, _, err = run(capsys, "evaluate", tmp_path / "model")
    assert status == 2 and "--data" in err


def test_a_folder_of_checkpoints_names_them(tmp_path, capsys):
    for step in (500, 1000, 1500): DETR(DETRConfig.preset("nano")).save_pretrained(tmp_path / f"out/checkpoint-{step}")
    status, _, err = detect(capsys, scene(tmp_path / "1.png"), model=tmp_path / "out")
    assert status == 2 and "checkpoint-500, checkpoint-1000, checkpoint-1500" in err and err.strip().endswith("checkpoint-1500")


def hf_folder(tmp_path, processor=None, id2label=None) -> Path:
    "A small model in Hugging Face's layout, with another preprocessor_config.json (None: none)."
    folder = tmp_path / "hf"
    shutil.rmtree(folder, ignore_errors=True)
    DETR(DETRConfig(num_classes=3, classes=["a", "b", "c"], backbone="resnet18", dim=32, heads=2, ffn_dim=32, encoder_layers=1, decoder_layers=1,
                    num_queries=5, norm_first=False)).save_pretrained(folder, "hf")
    beside = folder / "preprocessor_config.json"
    if processor is None: beside.unlink()
    else: beside.write_text(json.dumps({**json.loads(beside.read_text()), **processor}))
    if id2label is not None:
        config = folder / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "id2label": id2label}))
    return folder


@pytest.mark.parametrize("size, wanted, note", [
    ({"shortest_edge": 60, "longest_edge": 90}, (60, 90), ""), ({"max_height": 90, "max_width": 90}, (90, 90), ""),
    ({"shortest_edge": 60}, (60, 6000), ""), ({"height": 60, "width": 50}, (60, 50), ""),
    ({"max_height": 60, "max_width": 90}, (60, 90), "fitted into"), (None, (800, 1333), "no preprocessor_config.json")])
def test_the_size_that_a_hugging_face_folder_says(size, wanted, note, tmp_path):
    said = []
    config = DETR.from_pretrained(hf_folder(tmp_path, None if size is None else {"size": size}), say=said.append).config
    assert (config.image_size, config.max_size) == wanted and config.stretch == ("height" in (size or {}))
    assert (note in said[0] and str(tmp_path) in said[0]) if note else said == []


@pytest.mark.parametrize("preset, backbone", [("nano", "conv"), ("photos", "resnet18"), ("paper", "resnet18")])
def test_validation_in_training_sees_what_evaluate_sees(preset, backbone, tmp_path):
    "The very pixels, so that the AP of the log is the one of `nanodetr evaluate`; --overfit too."
    from nanodetr.commands.evaluate import open_split
    from nanodetr.commands.train import prepare_data

    root = photos_of(tmp_path, ["a", "b"])
    for k, path in enumerate(sorted(root.rglob("*.jpg"))):  # larger than the copies that training keeps
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (200, 320, 3), dtype=np.uint8)).save(path)
    for path in root.rglob("*.json"): path.write_text(path.read_text().replace('"width": 64, "height": 64', '"width": 320, "height": 200'))
    model = DETR(DETRConfig(num_classes=2, classes=["a", "b"], backbone=backbone, dim=32, heads=2, ffn_dim=32, encoder_layers=1, decoder_layers=1, num_queries=5, image_size=48, max_size=80))
    _, val = prepare_data(str(root), preset, model.config)
    test, _ = open_split(str(root), "val", model)
    for _ in range(2):  # as read, and as kept
        for i in range(len(test)): assert val[i][0].equal(test[i][0]) and val[i][1]["boxes"].equal(test[i][1]["boxes"])
    assert main(["train", "--data", str(root), "--preset", preset, "--overfit", "2", "--epochs", "1", "--dry-run", *(["--backbone-weights", "none"] if backbone != "conv" else [])]) == 0


@pytest.mark.parametrize("preset", ["voc", "paper"])
def test_a_model_for_stretched_pictures_is_trained_and_measured_on_them(preset, tmp_path, capsys):
    "Detected, trained, validated and evaluated alike; the boxes are fractions and stay what they are."
    from nanodetr.commands.evaluate import open_split
    from nanodetr.commands.train import kept_config, prepare_data

    model = DETR.from_pretrained(hf_folder(tmp_path, {"size": {"height": 60, "width": 50}}), say=str)
    root = photos_of(tmp_path, ["a", "b"])
    train, val = prepare_data(str(root), preset, kept_config(model.config, str(root)))
    test, _ = open_split(str(root), "val", model)
    assert {model.resize(torch.rand(3, *sides)).shape for sides in ((9, 99), (70, 8), (60, 50))} == {(3, 60, 50)}
    assert {data[i][0].shape for data in (train, val, test) for i in (0, 1)} == {(3, 60, 50)}
    assert test[0][1]["boxes"].allclose(torch.tensor([[15 / 64, 15 / 64, 20 / 64, 20 / 64]])) and val[0][1]["boxes"].equal(test[0][1]["boxes"])


def test_notes_do_not_spoil_the_json(tmp_path, capsys):
    folder = hf_folder(tmp_path, {"size": {"max_height": 60, "max_width": 90}})
    capsys.readouterr()
    status, out, err = detect(capsys, scene(tmp_path / "1.png"), "--json", model=folder)
    assert status == 0 and "fitted into" in err and strict(out)["images"]


def test_names_by_number(tmp_path):
    said = []
    model = DETR.from_pretrained(hf_folder(tmp_path, {}, {"1": "cat", "2": "dog", "3": "hat"}), say=said.append)
    assert model.config.classes == ["N/A", "cat", "dog"] and "no name for 0" in said[0] and "3 (hat)" in said[0]


# --- the command line itself

@pytest.mark.parametrize("command", ["train", "evaluate", "detect", "check", "convert", "export", "follow"])
def test_help_has_an_example_and_the_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as end: main([command, "--help"])
    said = capsys.readouterr().out
    assert end.value.code == 0 and f"  nanodetr {command}" in said and "exit status:" in said
    with pytest.raises(SystemExit): main(["--help"])
    assert "130" in capsys.readouterr().out


def examples() -> list:
    from nanodetr.cli import EXAMPLES
    return [line.split("   ")[0].strip() for text in EXAMPLES.values() for line in text.splitlines() if line.startswith("  nanodetr")]


@pytest.mark.parametrize("line", examples())
def test_examples_are_understood(line):
    import shlex
    words = shlex.split(line.split(">")[0])
    assert parser().parse_args(words[1:]).command == words[1]


def test_python_m_nanodetr(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nanodetr", "detect"])
    with pytest.raises(SystemExit) as end: runpy.run_module("nanodetr", run_name="__main__")
    err = capsys.readouterr().err
    assert end.value.code == 2 and len(err.strip().splitlines()) == 1 and "MODEL" in err and "nanodetr detect --help" in err


@pytest.mark.parametrize("name", [b"caf\xe9.png", "\u732b.png".encode()])
def test_names_that_a_terminal_cannot_show(name, tmp_path, monkeypatch):
    "A file name that is no UTF-8, and one in Chinese, on a terminal of ASCII letters."
    photo, odd = scene(tmp_path / "1.png"), tmp_path / os.fsdecode(name)
    try: shutil.copy(photo, odd)
    except OSError: pytest.skip("this file system wants UTF-8")
    for stream in ("stdout", "stderr"): monkeypatch.setattr(sys, stream, io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert main(["detect", "nano-shapes", str(odd), "--out", str(tmp_path / "drawn"), "--device", "cpu"]) == 0
    sys.stdout.flush()
    said = sys.stdout.buffer.getvalue()
    assert b"\\udce9" in said or b"\\u732b" in said
    assert len(list((tmp_path / "drawn").iterdir())) == 1


WORDS = st.one_of(st.sampled_from(["train", "evaluate", "detect", "check", "convert", "nano-shapes", "nowhere", "*", "[", "--", "-", "", "~", "."]),
                  st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12), st.integers().map(str), st.floats().map(str))
FLAGS = ["--threshold", "--json", "--coco", "--annotations", "--detections", "--device", "--draws", "--split", "--protocol", "--plots", "--last", "--every",
         "--max-pixels", "--data", "--layout", "--quiet", "--out", "--nonsense", "--thresh", "--set", "--seed", "--lr", "--epochs", "--preset", "--weights", "--resume",
         "--overfit", "--num-queries", "--val-share", "--check", "--reveal", "--html"]


@pytest.mark.parametrize("words", [["convert", "nano-shapes", "--", "--"], ["check", "--", "--"], ["detect", "nano-shapes", "--", "--"], ["evaluate", "--", "--"], ["follow", "--", "--"]])
def test_a_second_double_dash_is_no_argument(words, capsys):
    try: status = main(words)
    except SystemExit as end: status = end.code
    out, err = capsys.readouterr()
    assert status == 2 and err.count("\n") == 1 and "Traceback" not in err


@settings(max_examples=MANY, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(command=st.sampled_from(["evaluate", "detect", "convert", "export", "check", "follow", "train --dry-run"]), words=st.lists(st.one_of(WORDS, st.sampled_from(FLAGS)), max_size=6))
def test_any_arguments_are_understood_or_refused_in_one_line(command, words, tmp_path, capsys, monkeypatch):
    "Never a traceback, and nothing is written where there is nothing to do."
    (tmp_path / "here").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "here")
    try: status = main([*command.split(), *words])
    except SystemExit as end: status = end.code
    out, err = capsys.readouterr()
    assert status in (0, 1, 2)
    if status == 2: assert sum(line.startswith("nanodetr: error: ") for line in err.splitlines()) == 1 and "Traceback" not in err
