"""Notebook 16 from first cell to last, on VOCdevkit trees: stopped and resumed, both years from scratch, real VOC pictures.

Each run executes the notebook in a kernel of its own, about 20 seconds on one core; runs after the first leave out the estimate. So they are
slow tests, NANODETR_SLOW=1: nbdev_test runs the notebook once, and tests/test_faults.py stops and resumes runs.
"""
import csv
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from nanodetr.data import VOC_CLASSES, ShapesDataset, VOCDataset, check_dataset

pytestmark = pytest.mark.skipif("NANODETR_SLOW" not in os.environ, reason="runs of the whole notebook 16: NANODETR_SLOW=1")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOK = Path(__file__).resolve().parents[1] / "nbs" / "16_voc.ipynb"
REAL = Path(os.environ.get("NANODETR_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
NAMES = ("person", "dog", "bus", "chair")  # for the four shapes


def write_picture(folder, number, name):
    "Scene `number`, cut to 96 x 120, in VOC's layout; its first object is marked difficult."
    scenes = ShapesDataset("test", size=120, n=number + 1)
    target, rows = scenes.get_target(number), []
    for i, (k, (x0, y0, x1, y1)) in enumerate(zip(target["labels"].tolist(), target["boxes"].tolist())):
        if y0 > 90: continue
        corners = {"xmin": int(x0) + 1, "ymin": int(y0) + 1, "xmax": round(x1), "ymax": min(round(y1), 96)}
        box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in corners.items())
        rows.append(f"<object><name>{NAMES[k]}</name><difficult>{int(i == 0)}</difficult><bndbox>{box}</bndbox></object>")
    pixels = (scenes[number][0][:, :96] * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(folder / "JPEGImages" / f"{name}.jpg")
    size = "<size><width>120</width><height>96</height><depth>3</depth></size>"
    (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{''.join(rows)}</annotation>")


def write_year(root, year, splits, first=0):
    "root/VOCdevkit/VOC<year> with the splits {name: pictures}."
    folder = root / "VOCdevkit" / f"VOC{year}"
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"): (folder / part).mkdir(parents=True)
    for split, count in splits.items():
        names = [f"{year}_{first + i:06d}" for i in range(count)]
        for i, name in enumerate(names): write_picture(folder, first + i, name)
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names))
        first += count


def without_estimate(cells):
    "All cells but those between the headings of the estimate and of the training."
    heading = lambda text: next(i for i, cell in enumerate(cells) if cell.source.startswith(text))
    return cells[:heading("## How long will it take?")] + cells[heading("## Training"):]


@pytest.fixture
def execute(tmp_path, monkeypatch):
    "A function that runs the notebook on the folder `data` and returns what it printed."
    def run(data, hours=None, estimate=True, changes=()):
        monkeypatch.setenv("IN_TEST", "1")
        monkeypatch.setenv("NANODETR_VOC", str(data))
        monkeypatch.setenv("NANODETR_RUNS", str(tmp_path / "runs"))
        monkeypatch.delenv("NANODETR_HOURS", raising=False)
        if hours is not None: monkeypatch.setenv("NANODETR_HOURS", str(hours))
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        if not estimate: notebook.cells = without_estimate(notebook.cells)
        for cell in notebook.cells:
            for old, new in changes: cell.source = cell.source.replace(old, new)
        resources = {"metadata": {"path": str(NOTEBOOK.parent)}}
        nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        assert sum("image/png" in output.get("data", {}) for output in outputs) >= 7
        return "".join(output.get("text", "") for output in outputs)
    return run


def only_run(tmp_path):
    "The folder of the only run."
    folder, = (tmp_path / "runs").iterdir()
    return folder


def test_a_stopped_run_is_resumed_by_running_the_notebook_again(tmp_path, execute):
    data = tmp_path / "data"
    write_year(data, "2012", {"train": 13, "val": 5})
    first = execute(data, hours=0)  # over after the first epoch
    assert "starting" in first and "the time is up" in first and "done:" not in first
    assert "ESTIMATES" in first and "T4" in first and "A100" in first
    folder = only_run(tmp_path)
    assert json.loads((folder / "plan.json").read_text())["epochs"] == 2
    second = execute(data, estimate=False)
    assert "resuming after step 3" in second and "done: step 6 of epoch 2" in second and "before training" not in second
    assert only_run(tmp_path) == folder
    with open(folder / "log.csv") as file: steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == [1, 2, 3, 4, 5, 6]
    verdict = json.loads((folder / "verdict.json").read_text())
    assert list(verdict["voc2012"]["per_class"]) == VOC_CLASSES and -1 <= verdict["coco"]["AP"] <= 1


def test_both_years_from_scratch(tmp_path, execute):
    data = tmp_path / "data"
    write_year(data, "2007", {"trainval": 6, "test": 4})
    write_year(data, "2012", {"trainval": 6}, first=10)
    text = execute(data, estimate=False, changes=[("from_scratch = False", "from_scratch = True"), ('years = ("2012",)', 'years = ("2007", "2012")')])
    assert "12 pictures to train on, 4 to test on" in text and "new head" not in text and "done: step 6" in text
    assert only_run(tmp_path).name.startswith("voc2007+2012-scratch")


def devkit_of(source, root):
    "A VOCdevkit/VOC2012 with the pictures of a folder in VOC's layout."
    folder = root / "VOCdevkit" / "VOC2012"
    for part in ("JPEGImages", "Annotations", "ImageSets"): shutil.copytree(source / part, folder / part)
    return folder


@pytest.mark.skipif(not (REAL / "voc100").is_dir(), reason="real VOC pictures not found: set NANODETR_DATA to the folder that holds voc100")
def test_real_voc_pictures(tmp_path, execute):
    folder = devkit_of(REAL / "voc100", tmp_path / "data")
    counts = {}
    for split, count in (("train", 12), ("val", 6)):  # a tiny budget: the first pictures of each
        path = folder / "ImageSets" / "Main" / f"{split}.txt"
        path.write_text("\n".join(path.read_text().split()[:count]))
        counts[split] = len(VOCDataset(tmp_path / "data", split))
    assert counts == {"train": 12, "val": 6} and check_dataset(tmp_path / "data").ok
    text = execute(tmp_path / "data", estimate=False)
    assert "12 pictures to train on, 6 to test on" in text and "done: step 6 of epoch 2" in text
    saved = torch.load(only_run(tmp_path) / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 6
