"The wild world, mosaics, and the model that has learned on drawings: what photos begin with."
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file

from nanodetr.boxes import cxcywh_to_xyxy
from nanodetr.checkpoints.adapt import adapt
from nanodetr.checkpoints.config import DETRConfig
from nanodetr.checkpoints.files import shipped_models
from nanodetr.cli import main
from nanodetr.data import DataError, ShapesDataset, Stream, open_dataset
from nanodetr.datasets.augment import Mosaic, piece
from nanodetr.model import DETR
from nanodetr.datasets.voc import write_voc
from nanodetr.datasets.wild import CIRCLE, FAMILIES, WildDataset, bounds, claim, draw_wild, join, place, rasterise, visible_box

PRINTS = {"train": "6499c9a07711618f", "val": "b9828788d72c8c17", "test": "6ff4167a8f25a047"}


# ---------------------------------------------------------------- the world

@pytest.mark.parametrize("split", PRINTS)
def test_pixels_labels_and_boxes_are_the_same_on_every_machine(split):
    data, found = WildDataset(split, n=40), hashlib.sha256()
    for i in range(40):
        image, target, boxes = data._draw(i)
        for part in (image, target["labels"], target["boxes"], boxes): found.update(part.numpy().tobytes())
    assert found.hexdigest()[:16] == PRINTS[split]


def test_pictures_depend_on_nothing_but_their_number():
    one, other = WildDataset(n=5), open_dataset("shapes-wild")
    other[17]
    for i in (4, 0, 2): assert torch.equal(one[i][0], other[i][0]) and torch.equal(one[i][1]["boxes"], other[i][1]["boxes"])
    assert not torch.equal(WildDataset(n=5, seed=1)[0][0], one[0][0])


def test_what_the_world_promises():
    "0 to 30 objects, sizes of 4 to 90 % of the side, every family, and boxes within the picture."
    data = WildDataset("val")
    targets = [data.get_target(i) for i in range(250)]
    counts, boxes = [len(t["labels"]) for t in targets], torch.cat([t["boxes"] for t in targets])
    longer = (boxes[:, 2:] - boxes[:, :2]).amax(1) / data.size
    assert min(counts) == 0 and 25 <= max(counts) <= data.most == 30
    assert longer.min() < 0.05 and 0.8 < longer.max() <= 1 and (boxes >= 0).all() and (boxes <= data.size).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    assert set(torch.cat([t["labels"] for t in targets]).tolist()) == set(range(len(FAMILIES))) and data.classes == list(FAMILIES)


@pytest.mark.parametrize("n, turn", [(4, (1, 0)), (7, (0.6, 0.8)), (32, (0.8, -0.6))])
def test_an_outline_covers_its_area(n, turn):
    placed = place(join(CIRCLE[n]), 13.3, 9.1, turn, 17.2, 16.9)
    exact = n / 2 * 2 * CIRCLE[n][1][1] / 2 * 13.3 * 9.1  # n triangles with the sine of one angle
    cover = rasterise(placed, 0, 0, 36, 36, 8)
    assert cover.sum() == pytest.approx(exact, rel=5e-3) and cover.min() == 0 and cover.max() == 1
    x0, y0, x1, y1 = bounds(placed)
    rows, columns = cover.nonzero()
    drawn = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert np.abs(np.array(drawn) - (x0, y0, x1, y1)).max() < 1.2  # a sharp corner may lie between two lines


def test_a_hole_is_a_loop_the_other_way_round():
    whole, hole = (rasterise(place(join(CIRCLE[32], *more), 10, 10, (1, 0), 12, 12), 0, 0, 24, 24) for more in ((), (CIRCLE[32][::-1] * 0.5,)))
    assert whole[12, 12] == 1 and hole[12, 12] == 0 and hole.sum() == pytest.approx(0.75 * whole.sum(), rel=0.01)
    twice = rasterise(place(join(CIRCLE[32], CIRCLE[32] * 0.5), 10, 10, (1, 0), 12, 12), 0, 0, 24, 24)
    assert np.array_equal(twice, whole)  # the same way round: nothing is counted twice


def at(cx, cy, half, size=40):
    "A disc, as `propose` makes an object."
    from types import SimpleNamespace
    placed = place(join(CIRCLE[32]), half, half, (1, 0), cx, cy)
    box = bounds(placed)
    return SimpleNamespace(placed=placed, box=box, left=int(box[0]), top=int(box[1]), w=int(box[2]) + 1 - int(box[0]), h=int(box[3]) + 1 - int(box[1]))


def test_boxes_are_those_of_what_can_be_seen():
    owner, things = np.zeros((40, 40), np.uint8), []
    first, second, third = at(15, 20, 10), at(29, 20, 9), at(16, 20, 9.5)
    assert claim(first, owner, things) and visible_box(owner, 1, first) == first.box
    assert claim(second, owner, things)
    x0, y0, x1, y1 = visible_box(owner, 1, first)
    assert (x0, y0, y1) == (first.box[0], first.box[1], first.box[3]) and 20 <= x1 <= 25
    assert not claim(third, owner, things) and len(things) == 2  # it would hide the first
    assert visible_box(owner, 2, second) == second.box


def test_hidden_objects_keep_two_fifths(monkeypatch):
    import nanodetr.datasets.wild as module
    claimed, put = [], module.claim
    monkeypatch.setattr(module, "claim", lambda new, owner, things: put(new, owner, things) and not claimed.append((new, owner)))
    for i in range(60):
        claimed.clear()
        _, labels, boxes = draw_wild(Stream(0, 0, 2, 64, i), 64)
        assert len(claimed) == len(labels) == len(boxes)
        for k, (new, owner) in enumerate(claimed, 1): assert 5 * int((owner == k).sum()) >= 2 * int((new.cover >= 0.5).sum())


@pytest.mark.parametrize("wrong", [dict(split="trial"), dict(level="easy"), dict(size=8), dict(n=0), dict(seed=-1)])
def test_nonsense_is_refused(wrong):
    with pytest.raises(DataError, match=str(list(wrong.values())[0])): WildDataset(**wrong)


# ---------------------------------------------------------------- mosaics

def test_a_piece_moves_its_boxes():
    "A white rectangle on black: the box fits it in every window."
    image, target = torch.zeros(3, 80, 120), {"labels": torch.tensor([3]), "boxes": torch.tensor([[0.5, 0.5, 0.5, 0.5]]), "iscrowd": torch.tensor([0])}
    image[:, 20:60, 30:90], kept = 1, 0
    torch.manual_seed(0)
    for k in range(60):
        h, w = 20 + k, 50 - k % 30
        out, moved = piece(image, target, h, w, 0.4 + k / 60)
        assert out.shape == (3, h, w) and len(moved["labels"]) == len(moved["boxes"]) == len(moved["iscrowd"])
        if not len(moved["boxes"]): continue
        y, x = (out[0] > 0.5).nonzero().T
        assert torch.allclose(moved["boxes"][0], torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float(), atol=1.01)
        kept += 1
    assert kept > 20


def test_a_mosaic_goes_with_its_data():
    data = ShapesDataset("train", n=5, level="hard")
    mosaic, plain = Mosaic(data, 1.0, 96), Mosaic(data, 0.0, 96)
    assert len(mosaic) == 5 and mosaic.classes == data.classes and torch.equal(plain[3][0], data[3][0])
    assert torch.equal(mosaic.get_target(2)["boxes"], data.get_target(2)["boxes"])
    torch.manual_seed(1)
    image, target = mosaic[3]
    assert image.shape == (3, 96, 96) and target["image_id"] == 3 and tuple(target["size"]) == (96, 96)
    assert len({len(target[name]) for name in ("labels", "boxes", "area", "iscrowd")}) == 1
    corners = cxcywh_to_xyxy(target["boxes"])
    assert corners.min() >= 0 and corners.max() <= 1 + 1e-6
    torch.manual_seed(1)
    assert torch.equal(mosaic[3][0], image)


# ---------------------------------------------------------------- what photos begin with

@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("wild") / "photos"
    data = ShapesDataset("train", n=12, seed=4)
    data.classes = ["a", "b", "c", "d"]
    write_voc(root, data, {"train": range(8), "val": range(8, 12)})
    return str(root)


def train(*words) -> int: return main(["train", "--quiet", *map(str, words)])


@pytest.mark.parametrize("name, words", [("nano-start", ()), ("nano-shapes", ("--preset", "nano"))])
def test_photos_begin_from_what_has_learned(photos, tmp_path, capsys, name, words):
    out = tmp_path / "run"
    assert train("--data", photos, *words, "--epochs", 1, "--snapshots", 0, "--out", out) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"start   from {name}")]
    assert len(said) == 1 and "--from-scratch" in said[0]
    first, start = load_file(out / "snapshots/epoch-0000.safetensors"), load_file(shipped_models()[name] / "model.safetensors")
    same = {name for name in first if first[name].shape == start[name].shape and torch.equal(first[name], start[name].half())}
    assert {name for name in first if name not in same and not name.startswith("query_embed")} == {name for name in first if "class_head" in name}
    saved = json.loads((out / "run.json").read_text())
    assert (saved["weights"], saved["preset"]) == (name, "nano-fast" if name == "nano-start" else "nano")
    before = load_file(out / "model.safetensors")
    assert train("--resume", "--out", out) == 0 and "start   from" not in capsys.readouterr().out
    assert all(torch.equal(value, before[name]) for name, value in load_file(out / "model.safetensors").items())


def test_resume_finds_the_run_without_its_preset(photos, tmp_path, capsys, monkeypatch):
    "A run on a folder is called after the preset that its start chose; `the same command and --resume` names none."
    monkeypatch.chdir(tmp_path)
    assert train("--data", photos, "--preset", "nano", "--epochs", 1) == 0  # an older one, of another preset
    assert train("--data", photos, "--epochs", 1) == 0
    old, new = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert new == f"{old}-fast"
    os.utime(tmp_path / "runs" / old / "run.json", (1, 1)), os.utime(tmp_path / "runs" / old / "checkpoint.pt", (1, 1))
    capsys.readouterr()
    assert main(["train", "--data", str(photos), "--epochs", "1", "--resume"]) == 0
    assert f"runs/{new}" in capsys.readouterr().out
    assert main(["train", "--data", str(photos), "--preset", "nano", "--epochs", "1", "--resume"]) == 0
    out = capsys.readouterr().out
    assert f"runs/{old}" in out and new not in out


def test_a_run_that_never_saved_gives_its_folder_back(tmp_path):
    from nanodetr.errors import UsageError
    from nanodetr.runs.folder import claim_folder

    for name in ("train.txt", "val.txt"): (tmp_path / name).write_text("a\n")
    (tmp_path / "run.json").write_text('{"plan": {}, "lists": {"train.txt": "", "val.txt": ""}}')
    assert claim_folder(tmp_path) == tmp_path
    (tmp_path / "run.json").unlink()  # then the lists are somebody's own
    with pytest.raises(UsageError, match="holds other things"): claim_folder(tmp_path)


def test_a_full_disk_leaves_no_lock(tmp_path, monkeypatch):
    from nanodetr.runs.folder import claim_folder, locked

    whole = Path.write_text

    def full(path, text, **named):
        whole(path, "", **named)  # the name is made, and then there is no space
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        with locked(tmp_path): pass
    assert not list(tmp_path.iterdir()) and claim_folder(tmp_path) == tmp_path


@pytest.mark.parametrize("words", [["--from-scratch"], ["--set", "dim=16"], ["--weights", "nano-shapes"], ["--preset", "voc", "--backbone-weights", "none"]])
def test_what_is_asked_for_comes_first(photos, tmp_path, capsys, words):
    assert train("--data", photos, "--dry-run", *words) == 0
    out = capsys.readouterr().out
    assert "start   from nano" not in out and ("start   from nothing" in out) == (words[0] == "--set")


@pytest.mark.parametrize("preset", ["photos", "photos-fast"])
def test_a_refused_run_does_not_say_where_it_starts(photos, capsys, preset):
    assert train("--data", photos, "--preset", preset, "--dry-run") == 2
    said = capsys.readouterr()
    assert "start   from" not in said.out and "--backbone-weights" in said.err


@pytest.mark.parametrize("data", ["shapes", "shapes-hard", "shapes-wild"])
def test_drawings_begin_from_nothing(data, capsys, monkeypatch):
    monkeypatch.setattr(WildDataset, "splits", {"train": 20, "val": 8, "test": 8})
    assert train("--data", data, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "start   from" not in out and ("45 object queries" in out) == (data == "shapes-wild")


def test_from_scratch_and_weights_contradict_each_other(photos, capsys):
    assert train("--data", photos, "--from-scratch", "--weights", "nano-shapes") == 2
    assert "--from-scratch" in capsys.readouterr().err


def test_other_settings_win_over_those_of_nano_start(photos, tmp_path, capsys):
    assert train("--data", photos, "--dry-run", "--set", "image_size=64", "--num-queries", 50) == 0
    out = capsys.readouterr().out
    plan = json.loads(out[out.index("{"):])
    assert plan["model"]["image_size"] == 64 and plan["model"]["num_queries"] == 50 and plan["model"]["classes"] == ["a", "b", "c", "d"]


def test_mosaic_is_a_flag_of_a_run(photos, tmp_path, capsys):
    out = tmp_path / "run"
    assert train("--data", photos, "--mosaic", 0.5, "--turns", "--epochs", 1, "--out", out) == 0
    assert json.loads((out / "run.json").read_text())["plan"]["asked"]["mosaic"] == 0.5
    assert train("--resume", "--out", out) == 0
    assert train("--resume", "--mosaic", 1, "--out", out) == 2 and "mosaic was 0.5" in capsys.readouterr().err
    assert train("--data", photos, "--mosaic", 2) == 2 and "--mosaic is 2" in capsys.readouterr().err


# ---------------------------------------------------------------- nanodetr pretrain

@pytest.mark.parametrize("preset", [pytest.param("photos", marks=pytest.mark.weekly), "photos-fast"])
def test_a_head_is_made_once_and_photos_start_from_it(photos, tmp_path, capsys, monkeypatch, preset):
    monkeypatch.setenv("NANODETR_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    resnet = torchvision.models.resnet18()
    torch.save(resnet.state_dict(), tmp_path / "r18.pth")
    small = [word for pair in ("backbone=resnet18", "dim=32", "heads=2", "ffn_dim=32", "encoder_layers=1", "decoder_layers=1") for word in ("--set", pair)]
    behind = ["--preset", preset, "--backbone-weights", tmp_path / "r18.pth", *small]
    run = ["--data", photos, *behind, "--epochs", 1, "--cache", 1, "--set", "image_size=64", "--set", "max_size=96", "--device", "cpu", "--snapshots", 0]
    pretrain = ["pretrain", "--quiet", *map(str, behind), "--images", "16", "--size", "64", "--epochs", "1", "--device", "cpu"]
    assert train(*run, "--dry-run") == 0 and "nanodetr pretrain" in capsys.readouterr().out
    assert main(pretrain) == 0 and "kept" in capsys.readouterr().out
    assert main(pretrain) == 0 and "there" in capsys.readouterr().out
    assert train(*run, "--out", tmp_path / "run") == 0 and "16 drawn scenes" in capsys.readouterr().out
    assert train(*run, "--from-scratch", "--dry-run") == 0 and "drawn scenes" not in capsys.readouterr().out
    kept = load_file(next((tmp_path / "cache/heads").iterdir()) / "head.safetensors")
    first = load_file(tmp_path / "run/snapshots/epoch-0000.safetensors")
    same = {name for name in kept if first[name].shape == kept[name].shape and torch.equal(first[name], kept[name].half())}
    fresh = {name for name in kept if name not in same}
    assert "input_proj.weight" in same and fresh <= {name for name in kept if "class_head" in name or name == "query_embed.weight"}
    assert json.loads((tmp_path / "run/run.json").read_text())["plan"]["model"]["queries"] == ("proposals" if preset == "photos-fast" else "learned")
    key = json.loads((tmp_path / "run/run.json").read_text())["head"]
    assert (tmp_path / "cache/heads" / key).is_dir() and train("--resume", "--out", tmp_path / "run") == 0
    (tmp_path / "cache/heads" / key / "head.safetensors").write_bytes(b"broken")
    assert train(*run, "--dry-run") == 2 and "nanodetr pretrain" in capsys.readouterr().err


@pytest.mark.parametrize("words, hint", [(["--images", "3"], "--images is 3"), (["--set", "backbone=conv"], "nano-start"), (["--set", "dim=7"], "dim is 7")])
def test_pretrain_refuses_nonsense(tmp_path, capsys, words, hint):
    assert main(["pretrain", "--backbone-weights", str(tmp_path / "none.pth"), *words]) == 2 and hint in capsys.readouterr().err


@pytest.mark.parametrize("cures", [dict(queries="proposals", cross_attention="conditional"), dict(queries="anchors", denoising=2, groups=2, scores="quality")])
def test_cured_models_are_adapted_too(cures):
    "Only what knows the classes is new, wherever it stands; queries fit in number, in each of their groups."
    torch.manual_seed(0)
    old = DETR(DETRConfig.preset("nano", classes=["a", "b", "c"], dim=16, ffn_dim=16, num_queries=6, **cures))
    new = adapt(old, ["x", "y"], 8, say=lambda line: None)
    before, after = old.state_dict(), new.state_dict()
    fresh = {name for name in after if "class_head" in name or name == "label_embed.weight"}
    assert all(torch.equal(before[name], after[name]) for name in before if name not in fresh and name != "query_embed.weight")
    assert all(after[name].shape != before[name].shape for name in fresh) and any("class_head" in name for name in fresh)
    for k in range(old.config.groups):
        assert torch.equal(after["query_embed.weight"][8 * k:8 * k + 6], before["query_embed.weight"][6 * k:6 * k + 6])
    assert len(new.eval()(torch.rand(1, 3, 64, 64)).boxes[0]) == 8


def test_the_comparison_of_starts_runs_and_goes_on(photos, tmp_path, capsys):
    import compare_starts

    words = [photos, "--minutes", "0.001", "--starts", "nano-shapes", "--mosaics", "0.5", "--out", str(tmp_path / "runs")]
    assert compare_starts.main(words) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("nano-shapes  mosaic 0.5") and "AP50" in line and "1 seeds, 1 epochs" in line
    assert compare_starts.main(words) == 0 and capsys.readouterr().out.splitlines() == [line]  # found, not trained again
