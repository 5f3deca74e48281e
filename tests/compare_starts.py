"""What a folder of photos is best begun with: random weights, nano-shapes, nano-start or other weights, with and without mosaics, and a peer.

    OMP_NUM_THREADS=1 python tests/compare_starts.py FOLDER --minutes 15 --seeds 0 1 2 --split test --turns \\
        --peer resnet50_v1.safetensors --stride-first

Each run has the same budget of processor time on one thread: one epoch and three are timed, and as many are trained as fit;
--epochs sets their number instead (on a busy machine, from an earlier pace). The
best weights by validation count. --split val (the default) is for choosing, and test is for once, at the end. --peer: also
torchvision's Faster R-CNN on a frozen ResNet-50 from FILE, with the same minutes (tests/peer_faster_rcnn.py). Runs and
their scores stay in --out, so an interrupted comparison goes on where it stopped. On a shared machine, processor time
is not the same from one hour to the next: run it on a quiet one.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from nanodetr.cli import main as nanodetr
from nanodetr.commands.evaluate import load_model, open_split
from nanodetr.evaluation import evaluate

STARTS = {"scratch": ["--from-scratch"], "nano-shapes": ["--weights", "nano-shapes"], "nano-start": ["--weights", "nano-start"]}


def options(words=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, help="in place of what fits into the minutes")
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--starts", nargs="+", default=list(STARTS), help="scratch, nano-shapes, nano-start, or what --weights takes: the folder of a run")
    parser.add_argument("--mosaics", type=float, nargs="+", default=[0.0, 0.5])
    parser.add_argument("--turns", action="store_true")
    parser.add_argument("--set", action="append", default=[], help="handed on to nanodetr train")
    parser.add_argument("--out", type=Path, default=Path("comparison"))
    parser.add_argument("--peer", metavar="FILE", help="weights of a ResNet-50 for the peer")
    parser.add_argument("--stride-first", action="store_true")
    return parser.parse_args(words)


def train(args, start: str, mosaic: float, seed: int, out: Path, epochs: int) -> float:
    "One training; its seconds of processor time."
    begun = time.process_time()
    words = ["train", "--data", args.data, *STARTS.get(start, ["--weights", start]), "--epochs", str(epochs), "--seed", str(seed), "--device", "cpu", "--quiet", "--out", str(out),
             *(["--mosaic", str(mosaic)] if mosaic else []), *(["--turns"] if args.turns else []), *(word for pair in args.set for word in ("--set", pair))]
    if nanodetr(words): raise SystemExit(f"stopped: nanodetr {' '.join(words)}")
    return time.process_time() - begun


def pilot_epochs(args, start: str, mosaic: float, seed: int) -> int:
    "How many epochs fit into the minutes."
    pilot = args.out / f"pilot-{time.time_ns()}"
    train(args, start, mosaic, seed, pilot / "0", 1)  # the first training in a process is slower: it would make the next ones look fast
    one, three = train(args, start, mosaic, seed, pilot / "1", 1), train(args, start, mosaic, seed, pilot / "3", 3)
    return max(1, 1 + int((60 * args.minutes - one) / max((three - one) / 2, 1e-3)))


def run(args, start: str, mosaic: float, seed: int) -> dict:
    "The scores of one run, trained now or found in --out."
    out = args.out / f"{Path(args.data).name}-{Path(start).name}-mosaic{mosaic:g}-seed{seed}"
    done = out / f"{args.split}.json"
    if done.exists(): return json.loads(done.read_text())
    if not (out / "model.safetensors").exists():
        epochs = args.epochs or pilot_epochs(args, start, mosaic, seed)
        seconds = train(args, start, mosaic, seed, out, epochs)
        (out / "spent.json").write_text(json.dumps({"seconds": seconds, "epochs": epochs}))
    data, model = open_split(args.data, args.split, load_model(out, "cpu"))
    scores = evaluate(model, data, batch_size=4, progress=False)
    found = {**{name: scores[name] for name in ("AP", "AP50")}, **json.loads((out / "spent.json").read_text())}
    done.write_text(json.dumps(found))
    return found


def main(words=None) -> int:
    args = options(words)
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for start in args.starts:
        for mosaic in args.mosaics:
            runs = [run(args, start, mosaic, seed) for seed in args.seeds]
            columns = [f"{name} {statistics.mean(r[name] for r in runs):.3f} ({min(r[name] for r in runs):.3f}-{max(r[name] for r in runs):.3f})" for name in ("AP", "AP50")]
            print(f"{start:12s} mosaic {mosaic:g}   {'   '.join(columns)}   {args.split}, {len(runs)} seeds, {runs[0]['epochs']} epochs in {runs[0]['seconds']:.0f} s", flush=True)
    for seed in args.seeds if args.peer else ():
        subprocess.run([sys.executable, str(Path(__file__).with_name("peer_faster_rcnn.py")), args.data, "--backbone-weights", args.peer, "--seconds", str(60 * args.minutes),
                        "--seed", str(seed), *(["--stride-first"] if args.stride_first else [])], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
