"What notebook 11 and nbs/runs cannot show in a cell: half precision, loader processes, imports, older runs."
import os
import signal
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Subset

from nanodetr.data import ShapesDataset, collate
from nanodetr.dropout import MANY
from nanodetr.encoder import EncoderBlock
from nanodetr.errors import DataError
from nanodetr.model import DETR, DETRConfig
from nanodetr.runs.grouping import grouped_batches, image_sizes, padded_share
from nanodetr.runs.run import fit, live_plots, wrong_kind
from nanodetr.training import TrainConfig, Trainer, TrainingError, epoch_batches, train_epoch


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


PICTURE, TARGET = torch.rand(3, 64, 64), {"labels": torch.tensor([1]), "boxes": torch.full((1, 4), 0.5), "orig_size": torch.tensor([64, 64])}


@pytest.mark.parametrize("sample, said", [
    ((PICTURE.numpy(), TARGET), "its picture is a ndarray"), ((PICTURE.permute(1, 2, 0), TARGET), r"has shape \(64, 64, 3\)"), ((PICTURE[:1], TARGET), r"has shape \(1, 64, 64\)"),
    ((PICTURE, {**TARGET, "boxes": [[0.5] * 4]}), "its boxes are a list"), ((PICTURE, {"boxes": TARGET["boxes"]}), "its labels are missing"),
    ((PICTURE, {**TARGET, "labels": TARGET["labels"].int()}), r"its labels are int32: whole numbers are wanted"), ((PICTURE, {**TARGET, "labels": TARGET["labels"] > 0}), "its labels are bool"),
    ((PICTURE, {**TARGET, "boxes": TARGET["boxes"].long()}), "its boxes are int64: floats are wanted"), (PICTURE, r"a pair \(image, target\) is wanted")])
@pytest.mark.parametrize("workers, val", [(0, False), (0, True), (1, False)])
def test_samples_of_another_kind_are_refused_by_name(sample, said, workers, val):
    "In training and in validation, here and in a loader process: one line, not a traceback from the middle of PyTorch."
    good, bad = [(PICTURE, TARGET)] * 2, [(PICTURE, TARGET), sample]
    with pytest.raises(DataError, match=f"^image 1: .*{said}"):
        fit(new_model(), *((good, bad) if val else (bad,)), config=TrainConfig(epochs=1, batch_size=2, workers=workers, device="cpu"), progress=False)


@pytest.mark.parametrize("sample, said", [((255 * PICTURE, TARGET), "divided by 255"), ((PICTURE, {**TARGET, "boxes": 64 * TARGET["boxes"]}), "not pixels")])
def test_validation_looks_at_its_samples(sample, said):
    with pytest.raises(DataError, match=f"^image 0: .*{said}"):
        fit(new_model(), [(PICTURE, TARGET)] * 2, [sample], TrainConfig(epochs=1, batch_size=2, device="cpu"), progress=False)


def test_narrow_pictures_and_narrow_features_are_of_the_right_kind():
    for image in (torch.rand(3, 144, 3), torch.rand(3, 160, 4), 4 * torch.rand(2048, 42, 4), torch.rand(512, 9, 12)): assert not wrong_kind((image, TARGET))


def test_empty_data_is_refused(tmp_path):
    config = TrainConfig(epochs=1, batch_size=2, device="cpu")
    with pytest.raises(DataError, match="train_data has no picture"): fit(new_model(), [], config=config)
    with pytest.raises(DataError, match="val_data has no picture"): fit(new_model(), [(PICTURE, TARGET)] * 2, [], config)
    with pytest.raises(TrainingError, match="out is an empty name"): fit(new_model(), [(PICTURE, TARGET)] * 2, config=config, out="")


def test_images_without_objects_train():
    data = [(torch.rand(3, 64, 64), {"labels": torch.zeros(0, dtype=torch.long), "boxes": torch.zeros(0, 4), "image_id": i}) for i in range(4)]
    row = fit(new_model(), data, config=TrainConfig(epochs=1, batch_size=2, device="cpu"), progress=False)[-1]
    assert row["loss_giou"] == 0 and 0 < row["loss"] < 100


@pytest.mark.parametrize("broken", ["target", "weight"])
def test_a_loss_that_is_not_finite_stops_before_the_weights(broken):
    "The message names the step and its images, and the optimiser has not moved."
    trainer = Trainer(new_model(), TrainConfig(device="cpu"), total_steps=10)
    part = collate([ShapesDataset("train", n=2)[i] for i in range(2)])
    trainer.train_step([part])
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    if broken == "target": part[2][0]["boxes"][0, 0] = float("nan")
    else: trainer.criterion.class_weight.fill_(float("inf"))
    with pytest.raises(TrainingError, match=r"^step 2, images \[0, 1\]: "): trainer.train_step([part])
    assert trainer.step == 1 and all(torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())


def test_the_plain_loop_is_fit():
    "`Trainer` and `train_epoch` alone end at the weights of `fit`, bit for bit."
    data, config = ShapesDataset("train", n=24), TrainConfig(epochs=2, batch_size=4, accumulate=2, device="cpu")
    by_fit, by_hand = new_model(), new_model()
    fit(by_fit, data, config=config, progress=False)
    torch.manual_seed(config.seed)
    trainer = Trainer(by_hand, config, total_steps=6)
    for epoch in range(2): assert len(list(train_epoch(trainer, data, epoch_batches(24, config, epoch)))) == 3
    assert all(torch.equal(a, b) for a, b in zip(by_fit.state_dict().values(), by_hand.state_dict().values()))


def test_core_imports_no_pictures():
    "The core runs where there is no matplotlib, ipywidgets or fastcore."
    names = "boxes data backbone position attention encoder decoder model matching loss training evaluation".split()
    code = f"""
import sys
for name in ("matplotlib", "ipywidgets", "fastcore", "IPython", "nbdev"): sys.modules[name] = None
for name in {names}: __import__("nanodetr." + name)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- batches of like shapes

class Pictures:
    "Blank pictures of given (height, width), which notes the order in which they are asked for."
    classes = ["thing"]

    def __init__(self, sizes): self.shapes, self.asked = list(sizes), []

    def __len__(self): return len(self.shapes)

    def __getitem__(self, i):
        self.asked.append(i)
        target = {"labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.5, 0.5]]), "image_id": i}
        return torch.full((3, *self.shapes[i]), 0.5), target


class KnownPictures(Pictures):
    "The same, with sizes that can be asked for."
    def sizes(self): return self.shapes


def mixed_sizes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.tensor([[480, 640], [640, 480], [480, 720], [560, 560], [480, 1000]])
    return [tuple(size) for size in kinds[torch.randint(5, (count,), generator=generator)].tolist()]


@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 4), st.integers(0, 50), st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_grouped_batches_hold_the_images_of_ungrouped_ones(count, batch_size, accumulate, epoch, seed):
    "As many batches of the same lengths over the same images, each image once, and a function of seed and epoch alone."
    sizes = mixed_sizes(count, seed)
    plain, grouped = (grouped_batches(count, TrainConfig(batch_size=batch_size, accumulate=accumulate, seed=seed, group_by_aspect=group), epoch, sizes)
                      for group in (False, True))
    assert sorted(map(len, plain)) == sorted(map(len, grouped))
    assert sorted(sum(plain, [])) == sorted(sum(grouped, [])) and len(set(sum(grouped, []))) == len(sum(grouped, []))
    again = TrainConfig(batch_size=batch_size, accumulate=accumulate, seed=seed, group_by_aspect=True)
    torch.manual_seed(epoch + 1)  # the global generator plays no part
    assert grouped_batches(count, again, epoch, sizes) == grouped


def test_grouping_saves_padding_and_stays_random():
    sizes = mixed_sizes(1600)
    settings_ = [TrainConfig(batch_size=8, group_by_aspect=group) for group in (False, True)]
    plain, grouped = ([grouped_batches(1600, config, epoch, sizes) for epoch in range(4)] for config in settings_)
    for a, b in zip(plain, grouped): assert padded_share(sizes, b) < 0.25 * padded_share(sizes, a)
    assert len({frozenset(batch) for batches in grouped for batch in batches}) == 800  # no two batches alike in four epochs
    aspects = torch.tensor([sizes[batch[0]][0] / sizes[batch[0]][1] for batch in grouped[0]])
    steps = torch.arange(len(aspects)).float()  # the batches of one shape do not come at one end of the epoch
    assert torch.corrcoef(torch.stack([aspects, steps]))[0, 1].abs() < 0.25


def test_without_grouping_nothing_changed():
    "The order of an epoch is what it was before there were groups."
    assert epoch_batches(7, TrainConfig(batch_size=2), 3) == grouped_batches(7, TrainConfig(batch_size=2), 3, mixed_sizes(7))
    generator = torch.Generator().manual_seed(5 * 100_003 + 3)
    order = torch.randperm(7, generator=generator).tolist()
    assert sum(epoch_batches(7, TrainConfig(batch_size=2, seed=5), 3), []) == order[:6]


def test_sizes_are_found():
    shapes = ShapesDataset("train", n=5, size=48)
    assert image_sizes(shapes) == [(48, 48)] * 5 and shapes._drawn == {}
    assert image_sizes(Subset(KnownPictures([(3, 4), (5, 6), (7, 8)]), [2, 0])) == [(7, 8), (3, 4)]

    class Targets(Pictures):
        def get_target(self, i): return {"orig_size": torch.tensor(self.shapes[i])}
    assert image_sizes(Targets([(3, 4), (5, 6)])) == [(3, 4), (5, 6)]
    for data in (Pictures([(3, 4)]), Subset(Pictures([(3, 4)]), [0]), [1, 2]):
        with pytest.raises(TrainingError, match=r"sizes\(\).*group_by_aspect"): image_sizes(data)


def test_a_set_that_cannot_tell_sizes_is_refused_before_training():
    data = Pictures([(40, 56)] * 4)
    with pytest.raises(TrainingError, match="Pictures cannot tell"):
        fit(new_model(), data, config=TrainConfig(epochs=1, batch_size=2, group_by_aspect=True, device="cpu"), progress=False)
    assert data.asked == []


def test_grouped_training_resumes_bit_for_bit(tmp_path):
    "With accumulation, and stopped between two epochs; every epoch shows each image once."
    sizes = [(40, 56), (56, 40), (48, 48), (40, 72)] * 4
    config = TrainConfig(epochs=3, batch_size=2, accumulate=2, group_by_aspect=True, device="cpu")
    straight, resumed, first = new_model(), new_model(), new_model()
    data = KnownPictures(sizes)
    fit(straight, data, config=config, progress=False)
    assert all(sorted(data.asked[i:i + 16]) == list(range(16)) for i in (0, 16, 32))
    assert data.asked == [i for epoch in range(3) for batch in grouped_batches(16, config, epoch, sizes) for i in batch]

    with pytest.raises(KeyboardInterrupt):
        fit(first, KnownPictures(sizes), config=config, out=tmp_path, progress=False,
            on_epoch=lambda model, history: os.kill(os.getpid(), signal.SIGINT) if history[-1]["epoch"] == 1 else None)
    fit(resumed, KnownPictures(sizes), config=config, out=tmp_path, resume=True, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(straight.state_dict().values(), resumed.state_dict().values()))
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["config"]["group_by_aspect"] is True


def as_of_old(folder, state):
    "What older versions did not write: sums, a plan, and what only newer ones keep."
    for name in ("manifest.json", "previous.pt"): (folder / name).unlink(missing_ok=True)
    for name in ("plan", "window", "pending", "best", "stale", "stopped"): del state[name]


def test_a_checkpoint_from_before_a_setting_resumes(tmp_path):
    "A run saved by an older version lacks the newer settings; it had their defaults. Another value is refused by name."
    data = ShapesDataset("train", n=8)
    config = dict(epochs=1, batch_size=4, device="cpu")
    fit(new_model(), data, config=TrainConfig(**config), out=tmp_path, progress=False)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    as_of_old(tmp_path, state)
    del state["config"]["group_by_aspect"]
    state["config"]["decay"] = state["config"].pop("cooldown")  # its earlier name
    torch.save(state, tmp_path / "checkpoint.pt")
    fit(new_model(), data, config=TrainConfig(**config), out=tmp_path, resume=True, progress=False)
    with pytest.raises(TrainingError, match="group_by_aspect was False and is now True"):
        fit(new_model(), data, config=TrainConfig(**config, group_by_aspect=True), out=tmp_path, resume=True, progress=False)


def test_the_earlier_name_of_cooldown_is_understood(tmp_path):
    "In Python, on the command line, and in a checkpoint, where another value is refused as before."
    from nanodetr.cli import settings as read_settings

    assert TrainConfig(decay=0.2) == TrainConfig(cooldown=0.2) and TrainConfig.preset("voc", decay=0.5).cooldown == 0.5
    assert read_settings(["decay=0.25"], TrainConfig) == {"cooldown": 0.25}
    data, config = ShapesDataset("train", n=8), dict(epochs=1, batch_size=4, device="cpu")
    fit(new_model(), data, config=TrainConfig(**config), out=tmp_path, progress=False)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    as_of_old(tmp_path, state)
    del state["config"]["cooldown"]
    state["config"]["decay"] = 0.1
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match="cooldown was 0.1 and is now 0.3"):
        fit(new_model(), data, config=TrainConfig(**config), out=tmp_path, resume=True, progress=False)


@pytest.mark.parametrize("gpu", ["cuda", "mps", None])
def test_one_place_chooses_the_device(gpu, monkeypatch):
    "auto is the GPU that torch finds, whichever kind it is; what torch does not see is refused."
    from nanodetr.training import choose_device

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: gpu and torch.device(gpu))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: int(gpu is not None))
    assert choose_device("auto").type == (gpu or "cpu") and choose_device("cpu").type == "cpu"
    for name in ("cuda", "mps", "cuda:0", "cuda:1", "gpu"):
        if gpu and name in (gpu, f"{gpu}:0"): assert choose_device(name) == torch.device(name)
        else:
            with pytest.raises(TrainingError, match=f"device is '{name}'.*choose one of auto, cpu"): choose_device(name)


def test_the_watcher_draws_anew_outside_of_a_notebook_too(capsys):
    draw, model, row = live_plots(ShapesDataset("val", n=2)), DETR(DETRConfig.preset("nano")), {"step": 1, "epoch": 1, "loss": 2.0, "val_loss": 3.0}
    draw(model, [row])
    draw(model, [row, {**row, "step": 2}])
    assert capsys.readouterr().out.count("Image object") == 4  # losses and detections, twice


def test_dropout_of_large_tensors_in_every_way_to_train():
    "The library's own dice (tensors of MANY numbers and more): seeded, recomputed by a checkpoint, under torch.func and 16 bits."
    block, pos = EncoderBlock(64, 8, 256, dropout=0.1).train(), torch.randn(1, 300, 64)
    x = torch.randn(2, 300, 64, requires_grad=True)
    assert 2 * 8 * 300 * 300 >= MANY

    def step(run):
        torch.manual_seed(0)
        y = run(x)
        return y, torch.autograd.grad(y.sum(), x)[0]
    plain, again = step(lambda x: block(x, pos)[0]), step(lambda x: checkpoint(lambda x: block(x, pos)[0], x, use_reentrant=False))
    assert all(map(torch.equal, plain, again)) and not torch.equal(plain[0], block(x, pos)[0])
    torch.manual_seed(0)
    assert torch.allclose(torch.func.grad(lambda x: block(x, pos)[0].sum())(x.detach()), plain[1], atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16): rough = step(lambda x: block(x, pos)[0].float())
    assert all(value.isfinite().all() for value in rough)
    block.eval()
    assert torch.equal(block(x, pos)[0], block(x, pos)[0])


def test_padding_is_not_seen_where_dropout_is_ours():
    "With the same dice, what stands in padded tokens changes nothing for the real ones, and the real ones do see each other."
    block, pos, padding = EncoderBlock(64, 8, 256, dropout=0.1).train(), torch.randn(1, 300, 64), torch.arange(300).expand(2, -1) >= 200
    x = torch.randn(2, 300, 64)

    def answers(x):
        torch.manual_seed(0)
        return block(x, pos, padding)[0][:, :100]
    before, other_padding, other_token = answers(x), x.clone(), x.clone()
    other_padding[:, 200:] += 1
    other_token[:, 150] += 1
    assert torch.equal(answers(other_padding), before) and not torch.allclose(answers(other_token), before)
