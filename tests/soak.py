"""Works for hours and prints the memory over time (not a test, CI does not run it). It ends with status 1 when memory goes on rising.

    python tests/soak.py detect SECONDS     the command `detect`, round after round
    python tests/soak.py boxes COUNT        the same with --threshold 0, until it has written and drawn so many boxes
    python tests/soak.py train SECONDS [WORDS]      `train` in a process of its own, stopped with Ctrl-C and resumed at half time (Linux);
                                                    WORDS: what to train instead of 640 shapes, so that a long training is a soak as well

The pictures are drawn anew all the time, of many sizes, in JPEG and PNG, one in fifty broken; each round runs the command itself, with drawings and
COCO results. A training (640 shapes, so that epochs are short) validates, saves, draws and logs after every epoch. Memory rises when the last
quarter of what was measured lies more than 50 MB above the second.
"""
import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from nanodetr.cli import main
from nanodetr.data import ShapesDataset

ROUND = 100


def resident(pid="self") -> float:
    "Memory of a process now, in MB."
    try: return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:  # not Linux: the most so far
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def judge_memory(measured: list, what: str) -> int:
    "Print the medians of the second and the last quarter; 1 when the last is more than 50 MB above."
    quarter = max(1, len(measured) // 4)
    second, last = (float(np.median(part)) for part in (measured[quarter:2 * quarter] or measured, measured[-quarter:]))
    print(f"{what}: {second:.0f} MB in the second quarter, {last:.0f} MB in the last, at most {max(measured):.0f} MB", flush=True)
    return int(last > second + 50)


def draw_pictures(folder: Path, scenes: ShapesDataset, random: np.random.Generator) -> None:
    "A round's pictures, sides from 20 to 1,500 pixels."
    for k in range(ROUND):
        image = Image.fromarray((scenes[int(random.integers(len(scenes)))][0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
        path = folder / f"{k:03}{('.png', '.jpg')[k % 2]}"
        image.resize(tuple(int(x) for x in random.integers(20, 300 if k % 10 else 1500, 2))).save(path)
        if k % 50 == 7: path.write_bytes(path.read_bytes()[:60])


def soak_detect(seconds: float = float("inf"), boxes: float = float("inf"), threshold: str = "0.5") -> int:
    random, scenes = np.random.default_rng(0), ShapesDataset("val", n=200)
    started, measured, done, found, lines = time.perf_counter(), [], 0, 0, 0
    while (spent := time.perf_counter() - started) < seconds and found < boxes:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            (Path(folder) / "in").mkdir()
            draw_pictures(Path(folder) / "in", scenes, random)
            status = main(["detect", "nano-shapes", f"{folder}/in", "--out", f"{folder}/out", "--coco", f"{folder}/found.json", "--threshold", threshold,
                           "--device", "cpu", "--quiet"])
            assert status == 1 and len(list((Path(folder) / "out").iterdir())) == ROUND - 2, "the broken ones are left out, the others drawn"
            found += len(json.loads((Path(folder) / "found.json").read_text()))
        done += ROUND
        measured.append(resident())
        if max(spent / seconds, found / boxes) >= lines / 20:
            print(f"{time.perf_counter() - started:6.0f} s   {done:7,} pictures   {found:7,} boxes   {measured[-1]:6.0f} MB", flush=True)
            lines += 1
    return judge_memory(measured, f"{done:,} pictures, {found:,} boxes in {time.perf_counter() - started:.0f} s")


def soak_train(seconds: float, words: list = ()) -> int:
    with tempfile.TemporaryDirectory() as folder:
        out, started, status = Path(folder) / "run", time.perf_counter(), 0
        if "--out" in words: out = Path(words[words.index("--out") + 1])
        command = [sys.executable, "-m", "nanodetr", "train", "--device", "cpu", "--quiet", "--evaluate-every", "1",
                   *(words or ["--epochs", "100000", "--overfit", "640"]), *([] if "--out" in words else ["--out", str(out)])]
        for until, more in ((seconds / 2, []), (seconds, ["--resume"])):  # each process is judged by itself
            process, measured, last, lines = subprocess.Popen([*command, *more]), [], {"epoch": None, "step": None}, 0
            while time.perf_counter() - started < until and process.poll() is None:
                time.sleep(2)
                try: rows = list(csv.DictReader((out / "log.csv").read_text().splitlines()))
                except OSError: continue
                if not rows or rows[-1]["step"] == last["step"] or (memory := resident(process.pid)) == 0: continue
                last, spent = rows[-1], time.perf_counter() - started
                measured.append(memory)
                if spent >= lines * seconds / 40:
                    print(f"{spent:6.0f} s   epoch {last['epoch']:>5}   step {last['step']:>7}   loss {float(last['loss']):6.3f}   {memory:6.0f} MB   "
                          f"files {sum(path.stat().st_size for path in out.rglob('*') if path.is_file()) / 1e6:5.1f} MB", flush=True)
                    lines = int(spent / seconds * 40) + 1
            ended = process.poll()
            if ended is None: process.send_signal(signal.SIGINT)
            code = process.wait(600)
            assert code == (130 if ended is None else 0), f"Ctrl-C ends a training with status 130, its last epoch with 0, this one ended with {code}"
            status |= judge_memory(measured, f"to epoch {last['epoch']}, at {time.perf_counter() - started:.0f} s")
        return status


if __name__ == "__main__":
    mode, amount, *words = sys.argv[1:]
    if mode == "train": sys.exit(soak_train(float(amount), words))
    sys.exit({"detect": soak_detect, "boxes": lambda count: soak_detect(boxes=count, threshold="0")}[mode](float(amount)))
