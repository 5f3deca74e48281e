"The models that come with the library are the files that the manifest says, and as good as it says."
import hashlib
import json
from pathlib import Path

import pytest
import torch

import nanodetr
from nanodetr.data import open_dataset
from nanodetr.evaluation import evaluate
from nanodetr.errors import CheckpointError
from nanodetr.checkpoints.files import shipped_models
from nanodetr.model import DETR

WEIGHTS = Path(nanodetr.__file__).parent / "weights"
MANIFEST = json.loads((WEIGHTS / "manifest.json").read_text())


def test_manifest_and_folders_agree():
    assert sorted(MANIFEST) == sorted(shipped_models()) == ["nano-shapes", "nano-start"]


@pytest.mark.parametrize("name", MANIFEST)
def test_files_are_those_of_the_manifest(name):
    files = {str(path.relative_to(WEIGHTS / name)): path for path in (WEIGHTS / name).rglob("*") if path.is_file()}
    assert {file: hashlib.sha256(path.read_bytes()).hexdigest() for file, path in files.items()} == MANIFEST[name]["sha256"]
    assert {"command", "seed", "commit", "figures"} <= MANIFEST[name].keys()  # how to train it again: that command, in a checkout of that commit
    assert files["model.safetensors"].stat().st_size <= 4_000_000


@pytest.mark.parametrize("name", ["nano-shapes", pytest.param("nano-start", marks=pytest.mark.weekly)])
def test_scores_are_those_of_the_manifest(name):
    "On all 500 test pictures; machines differ in the last digits, and a detection or two may change sides."
    scores = evaluate(DETR.from_pretrained(name), open_dataset(MANIFEST[name]["data"], "test"), batch_size=50, progress=False)
    for key, value in MANIFEST[name]["figures"]["test"].items(): assert scores[key] == pytest.approx(value, abs=0.003), key


def test_easy_shapes_are_learned():
    figures = MANIFEST["nano-shapes"]["figures"]["test"]
    assert figures["AP"] >= 0.85 and figures["AP50"] >= 0.985


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = DETR.from_pretrained("nano-shapes")
    with torch.no_grad(): model.class_head.bias.zero_()
    model.save_pretrained("nano-shapes")
    assert DETR.from_pretrained("nano-shapes").class_head.bias.abs().max() == 0


def test_a_name_that_is_not_there_lists_what_is():
    with pytest.raises(CheckpointError, match="nano-shapes"): DETR.from_pretrained("nano-shape")
