"""Put a trained run into the library: `python .ci/ship_model.py RUN NAME`, after

    OMP_NUM_THREADS=1 nanodetr train --epochs 64 --seed 0 --set ema=0.999 --snapshots 0,1,2,4,8,16,32 --out RUN       nano-shapes
    OMP_NUM_THREADS=1 nanodetr train --data shapes-wild --preset nano-fast --epochs 12 --seed 0 --set ema=0.999 --out RUN       nano-start

Copies configuration, weights and snapshots to nanodetr/weights/NAME, measures the model on the validation and the test
pictures, and writes command, figures and hashes into nanodetr/weights/manifest.json. tests/test_shipped.py holds the
files to it.
"""
import argparse
import csv
import hashlib
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from nanodetr.commands.train import FLAGS
from nanodetr.data import open_dataset
from nanodetr.evaluation import evaluate
from nanodetr.model import DETR

WEIGHTS = Path(__file__).resolve().parent.parent / "nanodetr" / "weights"


def copy(run: Path, to: Path) -> dict:
    "The files of a model from the folder of its run; returns their hashes."
    shutil.rmtree(to, ignore_errors=True)
    files = [run / "config.json", run / "model.safetensors", *sorted(run.glob("snapshots/*.safetensors"))]
    for file in files:
        (to / file.relative_to(run)).parent.mkdir(parents=True, exist_ok=True)
        (to / file.relative_to(run)).write_bytes(file.read_bytes())  # not its permissions
    return {str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def command(run: dict) -> str:
    "The command line that made a run, from its run.json."
    words = [f"--{name.replace('_', '-')}" + (f" {value}" if value is not True else "") for name, value in run.items()
             if name in FLAGS and value is not None and value is not False and name not in ("set", "quiet", "save_minutes", "evaluate_every") and (name, value) != ("preset", "nano")]
    return " ".join(["nanodetr train", *words, *(f"--set {pair}" for pair in run["set"] or [])])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    args = parser.parse_args()
    run, finished = json.loads((args.run / "run.json").read_text()), (args.run / "evaluation.json").exists()
    if finished: done = json.loads((args.run / "evaluation.json").read_text())
    else:  # a run that was stopped: what it has saved
        with open(args.run / "log.csv", newline="") as log: *_, last = csv.DictReader(log)
        done = {"steps": json.loads((args.run / "manifest.json").read_text())["step"], "minutes": float(last["seconds"]) / 60}
    hashes = copy(args.run, WEIGHTS / args.name)
    model = DETR.from_pretrained(WEIGHTS / args.name)
    figures = {split: evaluate(model, open_dataset(run["data"], split), batch_size=50, progress=False) for split in ("val", "test")}
    entry = {
        "command": command(run), "seed": run["seed"] or 0, "data": run["data"], "steps": done["steps"], **({} if finished else {"stopped": True}),
        "minutes": round(done["minutes"], 1), "threads": torch.get_num_threads(), "torch": torch.__version__, "machine": platform.machine(),
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=WEIGHTS, capture_output=True, text=True).stdout.strip(),  # what the command means
        "parameters": sum(p.numel() for p in model.parameters()),
        "figures": {split: {name: round(scores[name], 4) for name in ("AP", "AP50", "AP75")} for split, scores in figures.items()},
        "sha256": hashes,
    }
    path = WEIGHTS / "manifest.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, args.name: entry}, indent=1) + "\n")
    print(json.dumps(entry, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
