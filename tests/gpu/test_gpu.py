"""The same numbers on a GPU as on a CPU; half precision; resuming; and no waiting for the GPU inside a step.

Run by tests/gpu/run.sh with `pytest -m gpu`. Skipped without CUDA; with NANODETR_REHEARSE=1 everything runs on the CPU.
"""
import json
import os
import traceback
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch

from nanodetr.benchmark import Settings, difference, our_model, step_batch
from nanodetr.data import ShapesDataset, collate
from nanodetr.evaluation import evaluate
from nanodetr.loss import SetCriterion
from nanodetr.matching import HungarianMatcher
from nanodetr.model import DETR, DETRConfig
from nanodetr.runs.run import RunTrainer, fit
from nanodetr.training import TrainConfig

DEVICE = "cuda" if torch.cuda.is_available() else "cpu" if os.environ.get("NANODETR_REHEARSE") else None
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(DEVICE is None, reason="no CUDA GPU here; NANODETR_REHEARSE=1 rehearses on the CPU")]
TINY = Settings(tiny=True)


@pytest.fixture(autouse=True)
def exact():
    "fp32 is fp32: no TF32, which keeps only 10 bits."
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def moved(targets: list) -> list:
    return [{name: value.to(DEVICE) if torch.is_tensor(value) else value for name, value in target.items()} for target in targets]


def named(model: str) -> DETR:
    return DETR.from_pretrained("nano-shapes") if model == "nano" else our_model(TINY)


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("model", ["nano", "resnet"])
def test_the_model_gives_the_same_answers(model, padded):
    here, images = named(model), torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 64, 96, dtype=torch.bool)
    mask[1, :, 70:] = True
    mask = mask if padded else None
    with torch.no_grad():
        cpu = here(images, mask)
        gpu = named(model).to(DEVICE)(images.to(DEVICE), mask)
    assert difference((gpu.logits, gpu.boxes), (cpu.logits, cpu.boxes)) < 1e-4


def test_gradients_losses_and_matches_are_the_same():
    batch = step_batch(TINY, "cpu")
    found = {}
    for device in ("cpu", DEVICE):
        model, criterion = our_model(TINY).to(device), SetCriterion(91).to(device)
        out = model(batch[0].to(device), batch[1])
        losses = criterion(out, batch[2] if device == "cpu" else moved(batch[2]))
        criterion.total(losses).backward()
        matches = HungarianMatcher()(out.logits, out.boxes, batch[2])
        found[device, "x"] = ({name: value.detach().cpu() for name, value in losses.items()}, [p.grad.cpu() for p in model.parameters() if p.grad is not None], matches)
        if device == "cpu": reference = found[device, "x"]
    losses, gradients, matches = found[DEVICE, "x"]
    assert difference(losses, reference[0]) < 1e-4
    assert difference(torch.cat([g.flatten() for g in gradients]), torch.cat([g.flatten() for g in reference[1]])) < 1e-3
    assert all(torch.equal(a, b) for one, other in zip(matches, reference[2]) for a, b in zip(one, other))


def test_the_evaluation_is_the_same():
    shapes = ShapesDataset("val", n=40)
    cpu, gpu = (evaluate(DETR.from_pretrained("nano-shapes"), shapes, device=device, progress=False) for device in ("cpu", DEVICE))
    assert cpu["AP"] > 0.5 and abs(cpu["AP"] - gpu["AP"]) < 2e-3 and abs(cpu["AP50"] - gpu["AP50"]) < 2e-3


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_learns(half):
    """Thirty steps on eight pictures (a rehearsal: two on two); fp16 needs its gradients scaled, and a step whose gradients overflow is left out."""
    steps, count = (30, 8) if DEVICE == "cuda" else (2, 2)
    torch.manual_seed(0)
    trainer = RunTrainer(DETR(DETRConfig.preset("nano")), TrainConfig(amp=True, device=DEVICE, warmup=0.0, lr=2e-3, backbone_lr=2e-3), steps)
    trainer.half, trainer.scaler = half, torch.amp.GradScaler(DEVICE, enabled=half == torch.float16, init_scale=2.0**12)
    shapes = ShapesDataset("train", n=count)
    batch = collate([shapes[i] for i in range(count)])
    losses = [trainer.train_step([batch])["loss"] for _ in range(steps)]
    assert all(loss == loss for loss in losses) and (DEVICE == "cpu" or sum(losses[-5:]) < 0.8 * sum(losses[:5]))
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in trainer.model.parameters())
    if half == torch.float16: assert trainer.scaler.get_scale() >= 1


def test_resume_goes_on_where_it_stopped(tmp_path):
    "Two epochs at once, and one and then another, give the same weights (to the GPU's order of additions); the file opens on a CPU."
    shapes, settings = ShapesDataset("train", n=16), dict(batch_size=8, device=DEVICE, seed=1)

    def model():
        torch.manual_seed(3)
        return DETR(DETRConfig.preset("nano"))
    whole = model()
    fit(whole, shapes, config=TrainConfig(epochs=2, **settings), out=tmp_path / "whole", progress=False)

    class Stop(Exception): pass

    def stop(*_): raise Stop
    part = model()
    with pytest.raises(Stop): fit(part, shapes, config=TrainConfig(epochs=2, **settings), out=tmp_path / "part", progress=False, on_epoch=stop)
    again = model()
    history = fit(again, shapes, config=TrainConfig(epochs=2, **settings), out=tmp_path / "part", resume=True, progress=False)
    assert history[-1]["step"] == 4
    # answers, not weights: where a gradient is 0 but for rounding (the bias of keys), Adam's first steps follow the rounding
    images = torch.stack([shapes[i][0] for i in range(8)])
    with torch.no_grad(): answers = [(lambda out: (out.logits, out.boxes))(each.cpu().eval()(images)) for each in (whole, again, part)]
    resumed, halfway = difference(answers[1], answers[0]), difference(answers[2], answers[0])
    if "OUT" in os.environ: (Path(os.environ["OUT"]) / "resume.json").write_text(json.dumps({"resumed": resumed, "one epoch less": halfway}))
    assert resumed < 0.1 * halfway
    DETR.from_pretrained(tmp_path / "part")
    assert torch.load(tmp_path / "part" / "checkpoint.pt", map_location="cpu", weights_only=True)["step"] == 4


def waits(work) -> Counter:
    "Which lines of the library waited for the GPU in work(), by torch's debug mode; nothing on a CPU."
    places = Counter()

    def note(message, *args, **more):
        frame = next((f for f in reversed(traceback.extract_stack()) if "nanodetr" in f.filename), None)
        if frame: places[f"{Path(frame.filename).name}:{frame.lineno} {frame.line}"] += 1
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        if DEVICE == "cuda": torch.cuda.set_sync_debug_mode("warn")
        try: work()
        finally:
            if DEVICE == "cuda": torch.cuda.set_sync_debug_mode("default")
    return places


def test_nothing_but_the_matcher_waits_for_the_gpu():
    """Forward and backward pass never wait. The loss waits for the costs that the matcher needs on the CPU, and hands its matches back.

    A training step waits for three things more: the mask goes over, the loss must be finite before weights change, and the log
    wants its numbers.
    Which lines waited how often is written to $OUT/syncs.json.
    """
    model, (images, mask, targets) = our_model(TINY).to(DEVICE).train(), step_batch(TINY, DEVICE)
    targets, criterion = moved(targets), SetCriterion(91).to(DEVICE)
    model(images, mask).logits.sum().backward()  # the first pass loads kernels
    if DEVICE == "cuda": torch.cuda.synchronize()
    assert not waits(lambda: model(images, mask).logits.sum().backward())
    out = model(images, mask)
    loss = waits(lambda: criterion.total(criterion(out, targets)).backward())
    trainer = RunTrainer(our_model(TINY), TrainConfig.preset("paper", device=DEVICE, batch_size=2, accumulate=1), 100)
    batch = step_batch(TINY, "cpu")  # as a loader hands it over
    trainer.train_step([step_batch(TINY, DEVICE)])  # the pictures on the GPU, their boxes not: that works, too
    trainer.train_step([batch])
    step = waits(lambda: trainer.train_step([batch]))
    if "OUT" in os.environ: (Path(os.environ["OUT"]) / "syncs.json").write_text(json.dumps({"loss": loss, "step": step}, indent=1))
    strangers = [place for place in loss if not place.startswith(("matching.py", "loss.py"))]
    strangers += [place for place in step if not place.startswith(("matching.py", "loss.py", "training.py", "model.py"))]  # model.py: the mask
    assert not strangers
