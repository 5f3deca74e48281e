"""The table of notebook 15: every cure alone, and one after the other, on drawn shapes at equal processor time.

    python tests/cures.py --speed 20 --times times.json                    a step's time, and against plain's, in pairs one after the other
    python tests/cures.py --minutes 2 --seeds 0 1 2 --out cures.jsonl      trains what the file does not hold yet, one line for each run
    python tests/cures.py --out cures.jsonl --table                        prints it

Measure the times first, on a machine that does nothing else: with `--times`, a run has the steps that fit into its minutes, so what else
the machine does later changes nothing, and the same seed gives the same weights. Without, a run measures its own steps and plans as it goes.
Everything is on one thread. `--split val` is for choosing, and `test` is for one look at the end.
"""
import argparse
import json
import sys
import time
from pathlib import Path
from statistics import mean, median, pstdev

CURES = {
    "plain": {},
    "conditional attention": dict(cross_attention="conditional"),
    "anchors": dict(queries="anchors"),
    "DAB": dict(queries="anchors", cross_attention="conditional"),
    "denoising": dict(denoising=3),
    "groups": dict(groups=3),
    "focal loss": dict(scores="sigmoid"),
    "quality": dict(scores="quality"),
    "deformable": dict(cross_attention="deformable"),
    "deformable, 3 levels": dict(cross_attention="deformable", levels=3),
    "proposals": dict(queries="proposals"),
    "DAB + denoising": dict(queries="anchors", cross_attention="conditional", denoising=3),
    "proposals + conditional": dict(queries="proposals", cross_attention="conditional"),
    "proposals + conditional + quality": dict(queries="proposals", cross_attention="conditional", scores="quality"),
    "proposals + conditional + denoising": dict(queries="proposals", cross_attention="conditional", denoising=3),
    "proposals + conditional + denoising + groups": dict(queries="proposals", cross_attention="conditional", denoising=3, groups=2),
    "proposals + quality": dict(queries="proposals", scores="quality"),
    "proposals + deformable": dict(queries="proposals", cross_attention="deformable"),
    "proposals + deformable + denoising": dict(queries="proposals", cross_attention="deformable", denoising=3),
}


def run(name: str, minutes: float, seed: int, level: str, split: str, images: int, steps: int = None, lr: float = None) -> dict:
    "Trains one model and scores it."
    import torch
    from nanodetr.data import Dihedral, ShapesDataset
    from nanodetr.evaluation import evaluate
    from nanodetr.model import DETR, DETRConfig
    from nanodetr.training import TrainConfig, Trainer, epoch_batches, train_epoch

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    data = ShapesDataset("train", level=level, transforms=Dihedral())
    config = TrainConfig.preset("nano", seed=seed, device="cpu", **({"lr": lr, "backbone_lr": lr} if lr else {}))
    trainer, started, epoch = Trainer(DETR(DETRConfig.preset("nano", num_classes=len(data.classes), **CURES[name])), config, 10 ** 9), time.process_time(), 0
    trainer.total_steps = steps or 1000
    while trainer.step < trainer.total_steps:
        for _ in train_epoch(trainer, data, epoch_batches(len(data), config, epoch)):
            if trainer.step == 30 and not steps:  # the warm-up is over 30 steps long in every run, so the plan changes nothing of what was
                trainer.total_steps = max(60, round(60 * minutes / ((time.process_time() - started) / 30)))
            elif not steps and trainer.step % 50 == 0:  # steps get slower and faster with the machine: keep to the minutes
                left = (60 * minutes - (time.process_time() - started)) / ((time.process_time() - started) / trainer.step)
                trainer.total_steps = max(trainer.step + 1, trainer.step + round(left))
            if trainer.step >= trainer.total_steps: break
        epoch += 1
    seconds = time.process_time() - started
    scores = evaluate(trainer.model, ShapesDataset(split, n=images, level=level), progress=False)
    return {"name": name, "minutes": minutes, "seed": seed, "level": level, "split": split, "steps": trainer.step, "seconds": round(seconds, 1), "lr": config.lr,
            "ms": round(1000 * seconds / trainer.step, 1), "AP": round(scores["AP"], 4), "AP50": round(scores["AP50"], 4), "cures": CURES[name]}


def speed(name: str, pairs: int, level: str = "easy") -> tuple:
    """(seconds of a training step, their ratio to plain's): medians of the processor time of `pairs` steps taken in turn, each with drawing
    its batch of 16 scenes."""
    import torch
    from nanodetr.data import Dihedral, ShapesDataset, collate
    from nanodetr.model import DETR, DETRConfig
    from nanodetr.training import TrainConfig, Trainer

    torch.set_num_threads(1)
    data = ShapesDataset("train", n=16, level=level, transforms=Dihedral())
    seconds, ratios = [], []
    trainers = [Trainer(DETR(DETRConfig.preset("nano", num_classes=len(data.classes), **cures)), TrainConfig(device="cpu"), 1000) for cures in ({}, CURES[name])]
    for k in range(pairs + 1):
        times = []
        for trainer in trainers:
            started = time.process_time()
            trainer.train_step([collate([data[i] for i in range(16)])])
            times.append(time.process_time() - started)
        if k: seconds, ratios = [*seconds, times[1]], [*ratios, times[1] / times[0]]  # the first step is slow in its own way
    return median(seconds), median(ratios)


def rows_of(path: Path) -> list: return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(rows: list, level: str, split: str) -> str:
    "Markdown: a line for each cure, a column for each budget; mean and spread of AP over the seeds."
    rows = [row for row in rows if row["level"] == level and row["split"] == split]
    budgets = sorted({row["minutes"] for row in rows})
    lines = ["| cures | " + " | ".join(f"{b:g} min" for b in budgets) + " | steps | ms per step |", "|---|" + "---|" * (len(budgets) + 2)]
    for name in CURES:
        found = {b: [row for row in rows if row["name"] == name and row["minutes"] == b] for b in budgets}
        cells = []
        for b in budgets:
            aps = [row["AP"] for row in found[b]]
            cells.append(f"{mean(aps):.3f} / {mean(row['AP50'] for row in found[b]):.3f}" + (f" ± {pstdev(aps):.3f} ({len(aps)})" if len(aps) > 1 else "") if aps else "not yet run")
        those = [row for some in found.values() for row in some]
        lines.append(f"| {name} | " + " | ".join(cells) + (f" | {those[0]['steps']} | {mean(row['ms'] for row in those):.0f} |" if those else " | | |"))
    return "\n".join(lines)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--minutes", type=float, nargs="*", default=[2], help="minutes of processor time for each run")
    ask.add_argument("--seeds", type=int, nargs="*", default=[0])
    ask.add_argument("--only", nargs="*", help="some of the names", choices=list(CURES))
    ask.add_argument("--level", default="easy", choices=("easy", "hard"))
    ask.add_argument("--split", default="val", choices=("val", "test"))
    ask.add_argument("--images", type=int, default=500, help="images to score on")
    ask.add_argument("--steps", type=int, help="steps instead of minutes, for a look")
    ask.add_argument("--lr", type=float)
    ask.add_argument("--speed", type=int, help="pairs of steps to time, and train nothing")
    ask.add_argument("--times", type=Path, help="JSON: what --speed measured, and runs plan by")
    ask.add_argument("--out", type=Path, default=Path("cures.jsonl"))
    ask.add_argument("--table", action="store_true", help="print what the file holds, and train nothing")
    args = ask.parse_args()
    if args.speed:
        times = {}
        for name in args.only or CURES:
            times[name], ratio = speed(name, args.speed, args.level)
            print(f"{name:46} {1000 * times[name]:6.1f} ms   {ratio:.2f}", flush=True)
            if args.times: args.times.write_text(json.dumps({"level": args.level, "seconds": times}, indent=1))
        return None
    if args.table: return print(table(rows_of(args.out), args.level, args.split))
    times = json.loads(args.times.read_text()) if args.times else None
    if times and times["level"] != args.level: ask.error(f"{args.times} has the times of {times['level']}, and these runs are on {args.level}")
    for seed in args.seeds:  # one seed of everything before the next
        for minutes in args.minutes:
            for name in args.only or CURES:
                asked = {"name": name, "minutes": minutes, "seed": seed, "level": args.level, "split": args.split}
                if not args.lr and not args.steps and any(all(row[key] == value for key, value in asked.items()) for row in rows_of(args.out)): continue
                row = run(name, minutes, seed, args.level, args.split, args.images, args.steps or (times and round(60 * minutes / times["seconds"][name])), args.lr)
                with args.out.open("a") as file: file.write(json.dumps(row) + "\n")
                print(f"{name}: {row['steps']} steps in {row['seconds']:.0f} s of processor time, AP {row['AP']:.3f}, AP50 {row['AP50']:.3f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
