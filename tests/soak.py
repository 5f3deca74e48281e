"""Detects on pictures for some minutes and prints the memory over time: `python tests/soak.py 300` (seconds; not a test, CI does not run it).

The pictures are drawn anew all the time, of many sizes, in JPEG and PNG, one in fifty broken; each round runs the command itself, with drawings and COCO results.
It ends with status 1 when the memory of the last quarter is more than 50 MB above that of the second.
"""
import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from nanodetr.cli import main
from nanodetr.data import ShapesDataset

ROUND = 100


def resident() -> float:
    "Memory of this process now, in MB."
    try: return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:  # not Linux: the most so far
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def draw_pictures(folder: Path, scenes: ShapesDataset, random: np.random.Generator) -> None:
    "A round's pictures, sides from 20 to 1,500 pixels."
    for k in range(ROUND):
        image = Image.fromarray((scenes[int(random.integers(len(scenes)))][0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
        path = folder / f"{k:03}{('.png', '.jpg')[k % 2]}"
        image.resize(tuple(int(x) for x in random.integers(20, 300 if k % 10 else 1500, 2))).save(path)
        if k % 50 == 7: path.write_bytes(path.read_bytes()[:60])


def soak(seconds: float, model: str = "nano-shapes") -> int:
    random, scenes = np.random.default_rng(0), ShapesDataset("val", n=200)
    started, measured, done, lines = time.perf_counter(), [], 0, 0
    while time.perf_counter() - started < seconds:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            (Path(folder) / "in").mkdir()
            draw_pictures(Path(folder) / "in", scenes, random)
            status = main(["detect", model, f"{folder}/in", "--out", f"{folder}/out", "--coco", f"{folder}/found.json", "--device", "cpu", "--quiet"])
            assert status == 1 and len(list((Path(folder) / "out").iterdir())) == ROUND - 2, "the broken ones are left out, the others drawn"
        done += ROUND
        measured.append(resident())
        if time.perf_counter() - started >= lines * seconds / 20:
            print(f"{time.perf_counter() - started:6.0f} s   {done:7,} pictures   {measured[-1]:6.0f} MB", flush=True)
            lines += 1
    quarter = max(1, len(measured) // 4)
    second, last = (float(np.median(part)) for part in (measured[quarter:2 * quarter] or measured, measured[-quarter:]))
    print(f"{done:,} pictures in {time.perf_counter() - started:.0f} s: {second:.0f} MB in the second quarter, {last:.0f} MB in the last")
    return int(last > second + 50)


if __name__ == "__main__": sys.exit(soak(float(sys.argv[1]) if len(sys.argv) > 1 else 300, *sys.argv[2:3]))
