"""Several processes train as one: the same order, the same gradients, the same scores, and an end of all when one ends.

The processes here are real and talk through gloo, as torchrun would start them; they are forked from a server that has imported
torch once. One test runs torchrun itself, and every week (NANODETR_SLOW=1) another.
"""
import json
import multiprocessing
import os
import signal
import re
import subprocess
import sys
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from nanodetr.cli import main
from nanodetr.data import Dihedral, ShapesDataset, collate
from nanodetr.checkpoints.files import read_safetensors
from nanodetr.errors import ConfigError, DataError
from nanodetr.evaluation import evaluate, evaluate_detections, predict, target_to_pixels
from nanodetr.loss import SetCriterion
from nanodetr.model import DETR, DETRConfig
from nanodetr.runs.grouping import grouped_batches
from nanodetr.runs.parallel import GroupTrainer, joined, launch_name, mixed, own_run, own_threads, place, share_batches
from nanodetr.runs.run import RunTrainer, fit
from nanodetr.training import TrainConfig, mean_loss

PATIENCE = 120  # seconds after which processes that should have ended are killed, and their test fails


# --- processes -------------------------------------------------------------------------------------------------------

def worker(rank, size, port, folder, check, arguments):
    "In a process of its own: run `check`, and leave what it returns, or how it failed, in a file."
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                      TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RUN_ID="a-launch")
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # for loaders; here it would be forkserver, and each of them would import torch anew
    said, code = StringIO(), 0
    try:
        with redirect_stderr(said): result = check(*arguments)
    except SystemExit as error: result, code = None, error.code
    except BaseException as error: result, code = f"{type(error).__name__}: {error}\n{traceback.format_exc()}", 1
    torch.save({"result": result, "code": code, "said": said.getvalue()}, folder / f"{rank}.pt")
    os._exit(code)  # as abrupt as a process can be


def start(size, folder, check, *arguments):
    "The store that torchrun would keep, and `size` processes that run `check`."
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["torch.distributed", "nanodetr.cli", "nanodetr.runs.parallel", "nanodetr.commands.train", "nanodetr.plots", "scipy.optimize"])
    store = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    folder.mkdir(parents=True, exist_ok=True)
    processes = [forks.Process(target=worker, args=(rank, size, store.port, folder, check, arguments)) for rank in range(size)]
    for process in processes: process.start()
    return store, processes


def finish(size, folder, processes):
    "Wait for the processes; [{result, code, said}] of those that wrote it. A process that hangs fails the test."
    end = time.monotonic() + PATIENCE
    for process in processes: process.join(max(0.1, end - time.monotonic()))
    hanging = [rank for rank, process in enumerate(processes) if process.is_alive()]
    for rank in hanging: processes[rank].kill()
    assert not hanging, f"processes {hanging} of {size} hang"
    return [torch.load(folder / f"{rank}.pt", weights_only=False) if (folder / f"{rank}.pt").exists() else {"code": processes[rank].exitcode} for rank in range(size)]


def together(size, folder, check, *arguments):
    "What `check` returned in each of `size` processes; a failure in one fails the test."
    store, processes = start(size, folder, check, *arguments)
    found = finish(size, folder, processes)
    for answer in found: assert answer["code"] == 0, answer
    return [answer["result"] for answer in found]


# --- what is compared ------------------------------------------------------------------------------------------------

SMALL = dict(conv_widths=(8, 16), dim=16, heads=2, ffn_dim=32, num_classes=4, num_queries=6)


def small_model(**changes):
    torch.manual_seed(3)
    return DETR(DETRConfig.preset("nano", **{**SMALL, "classes": ["a", "b", "c", "d"], **changes}))


class Mixed:
    "Pictures of two sizes with 0 to 5 objects: the second has none, the last has most."
    classes = ["a", "b", "c", "d"]
    counts = [1, 0, 2, 1, 3, 1, 2, 5]

    def __init__(self, n=8, counts=None): self.n, self.counts = n, counts or self.counts

    def __len__(self): return self.n

    def __getitem__(self, i):
        source = torch.Generator().manual_seed(100 + i)
        return torch.rand(3, 32, (32, 40)[i % 3 == 0], generator=source), self.target(i)

    def get_target(self, i): return target_to_pixels(self.target(i))

    def target(self, i):
        source, count = torch.Generator().manual_seed(i), self.counts[i % len(self.counts)]
        boxes = torch.cat([torch.rand(count, 2, generator=source) * 0.5 + 0.25, torch.rand(count, 2, generator=source) * 0.3 + 0.1], 1)
        height, width = 32, (32, 40)[i % 3 == 0]
        return {"boxes": boxes, "labels": torch.randint(4, (count,), generator=source), "image_id": i, "orig_size": torch.tensor([height, width])}


CONFIG = dict(batch_size=4, accumulate=2, epochs=2, lr=3e-3, backbone_lr=3e-3, device="cpu", ema=0.9)
STEPS = {"all in one": ([0, 1, 2, 3, 4, 5, 6, 7], 8, 1), "micro-batches": ([0, 1, 2, 3, 4, 5, 6, 7], 2, 4), "uneven": ([0, 1, 2, 3, 4, 5, 6], 2, 4), "nothing here": ([1, 9, 17, 0], 4, 1),
         "nothing anywhere": ([1, 9, 17], 2, 2)}
KINDS = {"matrix": {}, "abstraction": {"attention": "abstraction"}, "learned": {"positions": "learned", "query_start": "zero", "norm_first": False}}


def gradients_of(trainer, data, steps):
    "Losses and gradients of one step, with the weights left alone."
    trainer.model.train()
    trainer.optimizer.zero_grad()
    losses = trainer.gradients([collate([data[i] for i in batch]) for batch in steps])
    return {name: value.item() for name, value in losses.items()}, {name: p.grad.clone() for name, p in trainer.model.named_parameters()}


def batches_of(images, batch_size): return [images[k:k + batch_size] for k in range(0, len(images), batch_size)]


def group_checks(size, folder):
    "Everything that a group of `size` processes is asked, in one start."
    with joined("cpu") as group:
        assert (group.size, group.rank, group.first) == (size, int(os.environ["RANK"]), os.environ["RANK"] == "0")
        found = {"gradients": {}}
        for name, (images, batch_size, accumulate) in STEPS.items():
            config = TrainConfig(batch_size=batch_size, accumulate=accumulate, device="cpu")
            trainer = GroupTrainer(small_model(), config, 10, group)
            (mine,) = share_batches(batches_of(images, batch_size), config, group.rank, size)
            found["gradients"][name] = (mine, *gradients_of(trainer, Mixed(20), mine))
        for kind, changes in KINDS.items():
            trainer = GroupTrainer(small_model(**changes), TrainConfig(batch_size=8, device="cpu"), 10, group)
            (mine,) = share_batches([list(range(8))], trainer.config, group.rank, size)
            found["gradients"][kind] = (mine, *gradients_of(trainer, Mixed(), mine))
        # scores: 13 pictures in batches of 3, or in fewer batches than processes; without get_target
        model, data = DETR.from_pretrained("nano-shapes"), ShapesDataset("val", n=13)
        found["AP"] = [group.evaluate(model, data, batch) for batch in (3, 20)]
        found["targets"] = group.predict(model, [data[i] for i in range(13)], 3)
        found["val_loss"] = [group.mean_loss(model, SetCriterion(4), data, batch) for batch in (3, 20)]
        # a training, with a validation in each epoch; augmentation draws numbers
        model = small_model()
        data = ShapesDataset("train", n=20, transforms=Dihedral())
        history = fit(model, data, Mixed(5), TrainConfig(**CONFIG), folder / "run", evaluate=lambda net: group.evaluate(net, Mixed(5), 2), log_every=1, progress=True, group=group)
        found["fit"] = {name: value.clone() for name, value in model.state_dict().items()}, history
        # dropout differs between processes and steps, and returns with the same seed
        drawn = []
        for step in (0, 1, 0):
            torch.manual_seed(mixed(0, step, group.rank))
            drawn.append(torch.rand(4).tolist())
        found["drawn"] = drawn
        try: group.check_step(size - 1)
        except ConfigError as error: found["refused"] = str(error)
        try: group.check_same_step(group.rank, "runs/a")
        except ValueError as error: found["other steps"] = str(error)
        return found


@pytest.fixture(scope="module", params=[pytest.param(2, marks=pytest.mark.weekly), 3])
def answers(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"group-of-{request.param}")
    return request.param, together(request.param, folder, group_checks, request.param, folder), folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    "The same training in one process that torchrun started."
    return together(1, tmp_path_factory.mktemp("alone"), train_alone)[0]


def train_alone():
    with joined("cpu") as group:
        model, data = small_model(), ShapesDataset("train", n=20, transforms=Dihedral())
        history = fit(model, data, Mixed(5), TrainConfig(**CONFIG), evaluate=lambda net: group.evaluate(net, Mixed(5), 2), log_every=1, progress=False, group=group)
        return model.state_dict(), history


# --- the order -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("count, batch_size, accumulate", [(64, 16, 1), (64, 2, 8), (50, 3, 2), (10, 16, 1), (11, 4, 4), (12, 4, 3)])
@pytest.mark.parametrize("grouped", [False, True])
def test_no_sample_is_lost_or_doubled(count, batch_size, accumulate, grouped):
    config = TrainConfig(batch_size=batch_size, accumulate=accumulate, group_by_aspect=grouped)
    sizes = [(10 + i % 7, 20) for i in range(count)]
    for epoch in (0, 3):
        whole = grouped_batches(count, config, epoch, sizes)
        steps = [[i for batch in whole[k:k + accumulate] for i in batch] for k in range(0, len(whole), accumulate)]
        for size in (1, 2, 3, 6):
            parts = [share_batches(whole, config, rank, size) for rank in range(size)]
            for k, images in enumerate(steps):
                mine = [[i for batch in part[k] for i in batch] for part in parts]
                assert sum(mine, []) == images  # the very images of one process's step, in its order
                assert max(map(len, mine)) - min(map(len, mine)) <= 1 and min(map(len, mine)) >= 1
                assert max(len(batch) for part in parts for batch in part[k]) <= batch_size
            for part in parts: assert len({len(step) for step in part}) == 1  # train_epoch takes so many for each step
        assert [batch for step in share_batches(whole, config, 0, 1) for batch in step] == whole or grouped


def test_shares_are_whole_micro_batches_where_they_can_be():
    config = TrainConfig(batch_size=2, accumulate=8)
    whole = [[2 * k, 2 * k + 1] for k in range(16)]
    for size in (1, 2, 4, 8):
        for rank in range(size):
            for step in share_batches(whole, config, rank, size): assert all(batch in whole for batch in step)


# --- gradients -------------------------------------------------------------------------------------------------------

def whole_gradients(name):
    images, batch_size, accumulate = STEPS.get(name, (list(range(8)), 8, 1))
    trainer = RunTrainer(small_model(**KINDS.get(name, {})), TrainConfig(batch_size=batch_size, accumulate=accumulate, device="cpu"), 10)
    return gradients_of(trainer, Mixed(20 if name in STEPS else 8), batches_of(images, batch_size))


@pytest.mark.parametrize("name", [*STEPS, *KINDS])
def test_gradients_are_those_of_one_process(answers, name):
    losses, gradients = whole_gradients(name)
    length = torch.cat([g.flatten() for g in gradients.values()]).norm()
    for mine, theirs, found in (answer["gradients"][name] for answer in answers[1]):
        assert found.keys() == gradients.keys()
        for key in gradients: assert (found[key] - gradients[key]).abs().max() <= 1e-6 * length, key
        for key in losses:
            if key != "class_error": assert theirs[key] == pytest.approx(losses[key], rel=1e-5, abs=1e-6), key  # a mean over the matched of each micro-batch
    shares = [answer["gradients"][name][0] for answer in answers[1]]
    assert sorted(i for part in shares for batch in part for i in batch) == sorted(STEPS.get(name, (range(8),))[0])


def test_the_gradients_are_the_same_everywhere(answers):
    for name in (*STEPS, *KINDS):
        first, *others = (answer["gradients"][name][2] for answer in answers[1])
        for other in others: assert all(torch.equal(first[key], other[key]) for key in first)


def test_the_plain_mean_would_be_wrong():
    "What the normalisers are for: the mean of two processes' gradients, each with its own count."
    data, exact = Mixed(), whole_gradients("all in one")[1]
    parts = [gradients_of(RunTrainer(small_model(), TrainConfig(device="cpu"), 10), data, [list(part)])[1] for part in (range(4), range(4, 8))]
    off = sum((((parts[0][key] + parts[1][key]) / 2 - exact[key]) ** 2).sum() for key in exact).sqrt()
    assert off > 0.05 * sum((value ** 2).sum() for value in exact.values()).sqrt()


def on_a_gpu():
    with joined() as group:
        trainer = GroupTrainer(small_model(), TrainConfig(batch_size=8), 10, group)
        losses, gradients = gradients_of(trainer, Mixed(), [list(range(8))])
        return str(group.device), losses, {name: value.cpu() for name, value in gradients.items()}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_process_on_a_gpu_with_nccl(tmp_path):
    ((device, losses, gradients),) = together(1, tmp_path, on_a_gpu)
    whole, exact = whole_gradients("all in one")
    assert device == "cuda:0" and losses["loss"] == pytest.approx(whole["loss"], rel=1e-3) and close(gradients, exact, 1e-2)


# --- scores ----------------------------------------------------------------------------------------------------------

def test_scores_are_those_of_one_process(answers):
    model, data = DETR.from_pretrained("nano-shapes"), ShapesDataset("val", n=13)
    AP, losses = [evaluate(model, data, batch_size=batch, progress=False) for batch in (3, 20)], [mean_loss(model, SetCriterion(4), data, batch) for batch in (3, 20)]
    assert 0.3 < AP[0]["AP"] < 1
    for answer in answers[1]: assert answer["AP"] == AP and answer["val_loss"] == losses


def test_detections_come_in_the_order_of_the_data_set(answers):
    detections, targets = answers[1][0]["targets"]
    assert [answer["targets"] for answer in answers[1][1:]] == [([], [])] * (answers[0] - 1)
    data = ShapesDataset("val", n=13)
    alone = predict(DETR.from_pretrained("nano-shapes"), [data[i] for i in range(13)], 3, progress=False)
    for mine, theirs in ((detections, alone[0]), (targets, alone[1])):
        assert len(mine) == 13
        for one, other in zip(mine, theirs): assert one.keys() == other.keys() and all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in ("labels", "boxes"))


# --- training --------------------------------------------------------------------------------------------------------

def close(one, other, tolerance=2e-4):
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one) <= tolerance


def test_training_follows_that_of_one_process(answers, alone):
    weights, history = alone
    for answer in answers[1]:
        theirs, log = answer["fit"]
        assert close(weights, theirs)
        assert all(torch.equal(theirs[name], answers[1][0]["fit"][0][name]) for name in theirs)
        assert len(log) == len(history) == 4 and [row["step"] for row in log] == [1, 2, 3, 4]
        for mine, whole in zip(log, history): assert mine["loss"] == pytest.approx(whole["loss"], rel=1e-3) and mine.get("val_loss", 0) == pytest.approx(whole.get("val_loss", 0), rel=1e-3)
    assert not close(weights, small_model().state_dict(), 1e-2)  # it has moved


def test_one_process_writes_and_prints(answers):
    size, found, folder = answers
    assert {path.name for path in (folder / "run").iterdir()} == {"best.safetensors", "checkpoint.pt", "config.json", "log.csv", "manifest.json", "model.safetensors", "previous.pt"}
    assert json.loads((folder / "run" / "manifest.json").read_text())["processes"] == size
    said = [torch.load(folder / f"{rank}.pt", weights_only=False)["said"] for rank in range(size)]
    assert "4/4" in said[0] and said[1:] == [""] * (size - 1)


def test_random_numbers_differ_between_processes_and_come_again(answers):
    rows = [row for answer in answers[1] for row in answer["drawn"][:2]]
    assert len({tuple(row) for row in rows}) == 2 * answers[0]
    for answer in answers[1]: assert answer["drawn"][0] == answer["drawn"][2]


def test_what_cannot_work_is_refused(answers):
    size, found, _ = answers
    assert found[0]["refused"] == f"a step has {size - 1} image{'s' * (size > 2)} and there are {size} processes: start at most {size - 1}, or give a larger --batch-size or --accumulate"
    assert "checkpoints of different steps" in found[0]["other steps"] and "0, 1" in found[0]["other steps"]


# --- stopping, failing, going on -------------------------------------------------------------------------------------

class Trouble(Mixed):
    "Training data whose fifth picture causes trouble when it is read in a process that is not the first."

    def __init__(self, kind): self.kind, self.n = kind, 12

    def __getitem__(self, i):
        image, target = super().__getitem__(i)
        if i == 5 and self.kind == "data": raise DataError("five.jpg: cannot be read: copy it again")
        if i == 5 and self.kind == "many": return image, {**target, "boxes": torch.full((9, 4), 0.3), "labels": torch.zeros(9, dtype=torch.int64)}
        if i == 5 and self.kind == "bug": return 1 / 0
        if i == 5 and self.kind == "killed": os.kill(os.getpid(), signal.SIGKILL)
        return image, target


class Endless(GroupTrainer):
    "Its loss is infinite."

    def __init__(self, *settings):
        super().__init__(*settings)
        self.criterion.criterion.class_weight.fill_(float("inf"))


class Stopping(GroupTrainer):
    "Somebody presses Ctrl-C in this process, in the middle of the step with number `at`, and torchrun passes it on a second time."

    def backward(self, loss):
        if self.step == self.at:
            for number in (signal.SIGINT, signal.SIGTERM): os.kill(os.getpid(), number)
        super().backward(loss)


def fail(kind, folder):
    from nanodetr.cli import print_note

    config = TrainConfig(batch_size=6, epochs=9, lr=1e-3, device="cpu", workers=1 if kind == "worker" else 0)
    try:
        with joined("cpu") as group:
            model = small_model()
            if kind == "nan" and group.rank == 1: group.trainer = lambda *settings: Endless(*settings, group)
            if kind == "disk" and group.first:  # a file where the first thing that is saved wants to be a folder
                (folder / "run").mkdir(), (folder / "run" / ".saving").write_text("")
            fit(model, Trouble("data" if kind == "worker" else kind), None, config, folder / "run", progress=False, group=group)
    except (ValueError, OSError) as error:
        print_note("nanodetr: error:", error)
        raise SystemExit(2)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind, words", [("data", "five.jpg: cannot be read: copy it again"), ("nan", "the loss is"), ("many", "has 9 objects"), ("worker", "five.jpg: cannot be read"),
                                         ("disk", ".saving: cannot be saved"), ("bug", "ZeroDivisionError"), ("killed", "another process of this training was killed")])
def test_an_error_in_one_process_ends_all_with_its_line(tmp_path, kind, words, size):
    if size == (2 if kind in ("data", "killed") else 3) and "NANODETR_SLOW" not in os.environ: pytest.skip("the other number of processes tells")
    store, processes = start(size, tmp_path, fail, kind, tmp_path)
    found = finish(size, tmp_path, processes)
    said = [answer.get("said", "") + str(answer.get("result") or "") for answer in found]
    assert sum(bool(text) for text in said) == 1, said  # one line, from the process that failed
    assert words in "".join(said)
    assert all(answer["code"] for answer in found)


def train_a_while(folder, resume, at, ranks):
    "The training of `train_alone`, until Ctrl-C in the processes `ranks` at step `at`."
    with joined("cpu") as group:
        if group.rank in ranks:
            Stopping.at = at
            group.trainer = lambda *settings: Stopping(*settings, group)
        model, data = small_model(), ShapesDataset("train", n=20, transforms=Dihedral())
        try: fit(model, data, Mixed(5), TrainConfig(**CONFIG), folder, resume, lambda net: group.evaluate(net, Mixed(5), 2), log_every=1, progress=False, group=group)
        except KeyboardInterrupt as stop: return str(stop)
        return model.state_dict()


def test_a_run_goes_on_with_another_number_of_processes(alone, tmp_path):
    run = tmp_path / "run"
    assert together(1, tmp_path / "1", train_a_while, run, False, 0, [0]) == ["stopped at step 1 of 4"]
    assert together(2, tmp_path / "2", train_a_while, run, True, 1, [0, 1]) == ["stopped at step 2 of 4"] * 2  # the end of an epoch: its validation is done first
    assert together(2, tmp_path / "3", train_a_while, run, True, 2, [1]) == ["stopped at step 3 of 4"] * 2  # pressed in one, stopped in both
    for weights in together(3, tmp_path / "4", train_a_while, run, True, None, []): assert close(weights, alone[0])
    assert close(read_safetensors(run / "model.safetensors"), alone[0])


# --- the command -----------------------------------------------------------------------------------------------------

TINY = ["train", "--overfit", "8", "--batch-size", "4", "--set", "dim=16", "--set", "heads=2", "--set", "ffn_dim=16", "--set", "conv_widths=[8,8,8]", "--quiet", "--device", "cpu"]


def command(*arguments):
    "What the command line prints in this process."
    said = StringIO()
    with redirect_stdout(said): code = main(list(arguments))
    if code: raise SystemExit(code)
    return said.getvalue()


def test_a_dry_run_says_how_many_processes_there_are(tmp_path):
    first, second = together(2, tmp_path, command, *TINY, "--dry-run")
    assert re.search(r"^shared  2 processes on this machine, on CPUs, gloo, \d+ threads? each: each takes its part of the 4 images of a step$", first, re.M) and second == ""
    assert "shared" not in command(*TINY, "--dry-run")


@pytest.mark.parametrize("flags, words", [(["--data", "/nowhere"], "/nowhere"), (["--batch-size", "1"], "a step has 1 image and there are 2 processes"), (["--device", "cuda:1"], "is one device")])
def test_a_wrong_argument_is_one_line(tmp_path, flags, words):
    taken = {"--data": "--overfit"}.get(flags[0], flags[0])  # what these flags stand in place of, with its value
    store, processes = start(2, tmp_path, command, *(word for before, word in zip(["", *TINY], TINY) if taken not in (before, word)), *flags)
    found = finish(2, tmp_path, processes)
    lines = "".join(answer["said"] for answer in found).strip().split("\n")
    assert [answer["code"] for answer in found] == [2, 2] and words in lines[0] and len(lines) <= (2 if "--device" in flags else 1), lines


def test_devices_and_threads(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(place(name, 1, 2)) for name in (None, "auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cuda:1", "cpu"] and str(place("cuda:0", 0, 1)) == "cuda:0"
    for name, rank, size, words in (("cuda:1", 0, 2, "is one device"), ("auto", 2, 3, "there are 3 processes and 2 GPUs on this machine: start one per GPU (--nproc-per-node 2), or give --device cpu")):
        with pytest.raises(ConfigError) as error: place(name, rank, size)
        assert words in str(error.value)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "getppid", lambda: -1)  # whose environment nobody can read
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [own_threads(size) for size in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert own_threads(2) == torch.get_num_threads()


def test_a_launch_finds_its_own_run_alone(tmp_path, monkeypatch):
    for name, launch in (("a", "one"), ("b", "two"), ("c", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"launch": launch} if launch else {}))
    for launch, out, found in (("two", None, "b"), ("two", "b", "b"), ("two", "a", None), ("three", None, None), ("", None, None)):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", launch)
        assert own_run(out and tmp_path / out, tmp_path) == (tmp_path / found if found else None)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert str(os.getppid()) in launch_name()


def launch(*arguments, **more):
    "torchrun with two processes, in a group of its own as a shell would start it."
    return subprocess.Popen([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments], start_new_session=True, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}, **more)


def worker_of(torchrun, rank):
    "The process id of a worker."
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"\0RANK={rank}\0".encode() in path.read_bytes() and int((path.parent / "stat").read_text().rsplit(")", 1)[1].split()[1]) == torchrun.pid: return int(path.parent.name)
        except OSError: pass  # it has gone


def wait_for(path, torchrun):
    end = time.monotonic() + 90
    while not path.exists() and torchrun.poll() is None and time.monotonic() < end: time.sleep(0.01)
    assert path.exists(), torchrun.communicate()[1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    "The weights of a run in one process."
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert main([*TINY, "--epochs", "6", "--out", str(folder)]) == 0
    return read_safetensors(folder / "model.safetensors")


@pytest.mark.weekly
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the workers in /proc")
def test_torchrun_starts_again_after_a_kill_and_the_run_goes_on(undisturbed, tmp_path):
    torchrun = launch("--max-restarts", "1", "-m", "nanodetr", *TINY, "--epochs", "6", "--save-minutes", "0", "--out", str(tmp_path / "run"))
    try:
        wait_for(tmp_path / "run" / "checkpoint.pt", torchrun)
        os.kill(worker_of(torchrun, 1), signal.SIGKILL)
        out, said = torchrun.communicate(timeout=150)
    finally:
        if torchrun.poll() is None: os.killpg(torchrun.pid, signal.SIGKILL)
    assert torchrun.returncode == 0, said
    assert out.count("shared  2 processes") == 2 and out.count("done    12 steps") == 1 and said.count("nanodetr: error: another process of this training was killed") == 1
    assert close(undisturbed, read_safetensors(tmp_path / "run" / "model.safetensors"))


def test_ctrl_c_to_all_saves_and_the_run_goes_on_alone(undisturbed, tmp_path):
    torchrun = launch("-m", "nanodetr", *TINY, "--epochs", "6", "--save-minutes", "0", "--out", str(tmp_path / "run"))
    try:
        wait_for(tmp_path / "run" / "checkpoint.pt", torchrun)
        os.killpg(torchrun.pid, signal.SIGINT)
        out, said = torchrun.communicate(timeout=90)
    finally:
        if torchrun.poll() is None: os.killpg(torchrun.pid, signal.SIGKILL)
    assert torchrun.returncode and len(re.findall(r"^nanodetr: stopped at step \d+ of 12; go on with the same command and --resume$", said, re.M)) == 1, said
    assert main(["train", "--resume", "--quiet", "--out", str(tmp_path / "run")]) == 0
    assert close(undisturbed, read_safetensors(tmp_path / "run" / "model.safetensors"))


def test_nothing_of_a_group_outlives_python(tmp_path):
    "A circle of references, such as DDP's, is collected before Python takes itself apart: gloo's threads may abort a process that frees them later."
    (tmp_path / "script.py").write_text("""
import sys
from nanodetr.runs.parallel import joined

class Circle:
    def __init__(self): self.me = self
    def __del__(self): print("freed late" if sys.is_finalizing() else "freed in time", flush=True)

def train():
    with joined("cpu"): Circle()

train()
""")
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", tmp_path / "script.py"], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0 and done.stdout.split("\n")[-2] == "freed in time", done
