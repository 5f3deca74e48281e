"What notebook 11 cannot show in a cell: half precision, loader processes, imports."
import subprocess
import sys

import torch

from nanodetr.data import ShapesDataset
from nanodetr.model import DETR, DETRConfig
from nanodetr.training import TrainConfig, fit


def new_model():
    torch.manual_seed(0)
    return DETR(DETRConfig.preset("nano"))


def test_bf16_training_stays_close():
    "Two epochs in bf16 end near the same two epochs in float32."
    data = ShapesDataset("train", n=16)
    ends = [fit(new_model(), data, config=TrainConfig(epochs=2, batch_size=8, amp=amp, device="cpu"), progress=False)[-1] for amp in (False, True)]
    assert abs(ends[0]["loss"] - ends[1]["loss"]) < 0.05 * ends[0]["loss"]


def test_loader_processes_give_the_same_images():
    "Without random transforms, loading in two processes changes nothing."
    data = ShapesDataset("train", n=16)
    models = [new_model(), new_model()]
    for model, workers in zip(models, (0, 2)):
        fit(model, data, config=TrainConfig(epochs=1, batch_size=4, workers=workers, device="cpu"), progress=False)
    assert all(torch.equal(a, b) for a, b in zip(models[0].state_dict().values(), models[1].state_dict().values()))


def test_images_without_objects_train():
    data = [(torch.rand(3, 64, 64), {"labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4), "image_id": i}) for i in range(4)]
    row = fit(new_model(), data, config=TrainConfig(epochs=1, batch_size=2, device="cpu"), progress=False)[-1]
    assert row["loss_giou"] == 0 and 0 < row["loss"] < 100


def test_core_imports_no_pictures():
    "The core runs where there is no matplotlib, ipywidgets or fastcore."
    names = "boxes data backbone position attention encoder decoder model matching loss training evaluation".split()
    code = f"""
import sys
for name in ("matplotlib", "ipywidgets", "fastcore", "IPython", "nbdev"): sys.modules[name] = None
for name in {names}: __import__("nanodetr." + name)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
