"""Trainings on real photos, each for so many seconds: DETR by several recipes, and torchvision's Faster R-CNN beside it.

    python tests/gpu/photos.py gpu_inputs --seconds 60 --out OUT
    python tests/gpu/photos.py gpu_inputs --seconds 60 --out OUT --recipes cures cures-dc5 --splits val      to choose one
    python tests/gpu/photos.py gpu_inputs --pretrain 100 --recipes cures-deformable-256 --out OUT      then the same with --head
    python tests/gpu/photos.py gpu_inputs --rehearse --out OUT      the same steps on a CPU, tiny

Everybody starts from the same ImageNet backbone, of which all but the stem and the first stage are trained, sees the same
augmented photos and computes in bf16. RECIPES says what differs. Batches have one size, with a mask. Writes photos.json, and
per training a curve and a sheet of detections as PNG. Seconds are those of training alone, after some steps that do not count.
--pretrain teaches a recipe's transformer on drawn scenes, through the same backbone, frozen, and keeps it in the cache folder as
`nanodetr pretrain` does; with --head, a training of that recipe starts from it.
"""
import argparse
import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader, RandomSampler
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.transforms.v2 import ColorJitter

sys.path.insert(0, str(Path(__file__).parent))
from prepare import from_bytes  # noqa: E402

from nanodetr.backbone import ResNetBackbone, build_resnet, freeze_batch_norm  # noqa: E402
from nanodetr.boxes import cxcywh_to_xyxy  # noqa: E402
from nanodetr.data import light_augment, open_dataset  # noqa: E402
from nanodetr.evaluation import evaluate, evaluate_detections, predict  # noqa: E402
from nanodetr.model import DETR, DETRConfig  # noqa: E402
from nanodetr.plots import plot_losses, plot_pred  # noqa: E402
from nanodetr.runs.heads import load_head, save_head
from nanodetr.runs.run import RunTrainer  # noqa: E402
from nanodetr.training import TrainConfig  # noqa: E402

# (preset, what differs from it, learning rate; the backbone's is a tenth). `paper` is the paper's model, `photos` the small
# transformer of this library's preset; `cures` have proposals and conditional attention (notebook 15)
RECIPES = {
    "paper": ("paper", {}, 2e-4),
    "photos": ("photos", {}, 5e-4),
    "cures": ("photos-fast", {}, 5e-4),
    "cures-dc5": ("photos-fast", dict(dilation=True), 5e-4),
    "cures-256": ("photos-fast", dict(dim=256, heads=8, ffn_dim=1024), 4e-4),
    "cures-deformable": ("photos-fast", dict(cross_attention="deformable", levels=2), 5e-4),
    "cures-deformable-256": ("photos-fast", dict(cross_attention="deformable", levels=2, dim=256, heads=8, ffn_dim=1024), 4e-4),
    "cures-quality": ("photos-fast", dict(scores="quality"), 5e-4),
    "faster-rcnn": None,
}


class Canvas:
    "A collate function: every batch as images (B,3,S,S) and mask (B,S,S), True = padding."

    def __init__(self, side: int): self.side = side

    def __call__(self, items: list) -> tuple:
        images = torch.zeros(len(items), 3, self.side, self.side)
        mask = torch.ones(len(items), self.side, self.side, dtype=torch.bool)
        for i, (image, _) in enumerate(items):
            h, w = image.shape[-2:]
            images[i, :, :h, :w], mask[i, :h, :w] = image, False
        return images, mask, [target for _, target in items]


class FastTrainer(RunTrainer):
    "A trainer whose forward and backward pass are compiled, and replayed as CUDA graphs: the processor then starts a few graphs, not thousands of kernels."

    def __init__(self, model, config, total, compiled: bool):
        super().__init__(model, config, total)
        self.fast = torch.compile(self.model, mode="reduce-overhead", fullgraph=True) if compiled else self.model

    def forward(self, images, mask):
        targets, peeks = getattr(self.model, "targets", None), hasattr(self.model, "peek")
        if peeks: self.model.peek([])  # no two batches have as many objects: a graph that knew them would be compiled anew for each
        torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(self.device.type, self.half, enabled=self.config.amp):
            out = self.fast(images.contiguous(memory_format=torch.channels_last), mask.to(self.device))
        for group in getattr(out, "extra", []): group.targets = targets
        return out


def batches(data, args, collate):
    "Endless batches of augmented photos."
    sampler = RandomSampler(data, replacement=True, num_samples=10**7, generator=torch.Generator().manual_seed(args.seed))
    return iter(DataLoader(data, args.batch, sampler=sampler, collate_fn=collate, num_workers=args.workers, pin_memory=args.device == "cuda",
                           persistent_workers=args.workers > 0))


def timed_training(step, seconds: float, args) -> tuple:
    "Call step(progress in 0..1) for so many seconds, after a few steps that do not count. Returns (rows of the log, steps, seconds)."
    warm = 1 if args.rehearse else 5  # steps that are not timed: the first ones compile and record graphs
    rows = [step(0.0) for _ in range(warm)]
    start = time.perf_counter()
    spent = lambda: (time.perf_counter() - start) / seconds
    while spent() < 1: rows.append({"step": len(rows), **step(min(spent(), 1.0))})
    return rows[warm:], len(rows) - warm, time.perf_counter() - start


def build(recipe: str, classes: list, weights: Path, stages: int, args) -> tuple:
    "(model, learning rate) of a recipe for these classes, on the backbone of which the last `stages` stages learn."
    preset, changes, lr = RECIPES[recipe]
    changes = changes | dict(num_classes=len(classes), classes=list(classes), stride_first=not args.rehearse, seal_padding=False, trainable_stages=stages,
                             backbone=args.backbone, image_size=args.size, max_size=args.canvas, num_queries=100)
    if args.rehearse: changes |= dict(dim=32, heads=4, ffn_dim=64, encoder_layers=1, decoder_layers=2, num_queries=40)
    config = DETRConfig.preset(preset, **{name: value for name, value in changes.items() if name != "dilation" or not args.rehearse})
    torch.manual_seed(args.seed)
    backbone = ResNetBackbone(args.backbone, weights, stages, seal_padding=False, stride_first=not args.rehearse, dilation=config.dilation)
    return DETR(config, backbone), lr


def learn(model: DETR, lr: float, loader, seconds: float, compiled: bool, args) -> tuple:
    "Train for so many seconds. Returns (rows of the log, steps, seconds)."
    settings = TrainConfig(batch_size=args.batch, amp=not args.rehearse, device=args.device, warmup=0.03, cooldown=0.3, lr=lr, backbone_lr=lr / 10)
    trainer = FastTrainer(model, settings, 10_000, compiled)

    def step(progress):
        trainer.step = round(progress * trainer.total_steps)  # the schedule follows the clock
        return trainer.train_step([next(loader)])
    return timed_training(step, seconds, args)


def pretrain(recipe: str, weights: Path, args) -> dict:
    "Teach a recipe's head on drawn scenes, and keep it in the cache folder. Returns how it was made."
    side, batch = (64, 2) if args.rehearse else (384, 48)
    scenes = open_dataset("shapes-wild", "train", size=side, n=10**6, seed=args.seed)
    model, lr = build(recipe, scenes.classes, weights, 0, args)
    loader = batches(scenes, argparse.Namespace(**{**vars(args), "batch": batch}), Canvas(side))
    rows, steps, seconds = learn(model, lr, loader, args.pretrain, False, args)
    scores = evaluate(model, open_dataset("shapes-wild", "val", size=side, n=4 if args.rehearse else 200, seed=args.seed), batch_size=batch, progress=False)
    made = {"data": "shapes-wild", "size": side, "batch": batch, "steps": steps, "seconds": round(seconds, 1), "seed": args.seed, "AP": scores["AP"], "AP50": scores["AP50"]}
    save_head(model, made)
    return {"pretrained": recipe, **made}


def train_detr(recipe: str, data, weights: Path, args) -> tuple:
    model, lr = build(recipe, data.classes, weights, 3, args)
    if args.head and load_head(model) is None: raise RuntimeError(f"--head: no head is kept for {recipe}: make it with --pretrain SECONDS --recipes {recipe}")
    rows, steps, seconds = learn(model, lr, batches(data, args, Canvas(args.canvas)), args.seconds, args.compile, args)
    model.eval()
    return model, lambda split: predict(model, split, 8, args.device, progress=False), rows, steps, seconds


def train_faster_rcnn(data, weights: Path, args) -> tuple:
    resnet = build_resnet(args.backbone, stride_first=not args.rehearse)
    resnet.load_state_dict(from_bytes(args.folder / "backbone.safetensors"), strict=False)
    torch.manual_seed(args.seed)
    model = FasterRCNN(_resnet_fpn_extractor(freeze_batch_norm(resnet), 3), len(data.classes) + 1, min_size=args.size, max_size=args.canvas).to(args.device)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.02 * args.batch / 16, momentum=0.9, weight_decay=1e-4)
    loader, done = batches(data, args, list), [0]

    def step(progress):
        images, targets = [], []
        for image, target in next(loader):
            height, width = image.shape[-2:]
            corners = cxcywh_to_xyxy(target["boxes"]) * torch.tensor([width, height, width, height])
            images.append(image.to(args.device))
            targets.append({"boxes": corners.to(args.device), "labels": (target["labels"] + 1).to(args.device)})
        done[0] += 1
        for group in optimizer.param_groups: group["lr"] = 0.02 * args.batch / 16 * min(1, done[0] / 100) * (0.1 if progress > 0.75 else 1)
        model.train()
        with torch.autocast(args.device, torch.bfloat16, enabled=not args.rehearse): losses = model(images, targets)
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        return {"loss": loss.item()}
    rows, steps, seconds = timed_training(step, args.seconds, args)
    model.eval()

    @torch.no_grad()
    def detections(split):
        found = []
        for image, target in (split[i] for i in range(len(split))):
            with torch.autocast(args.device, torch.bfloat16, enabled=not args.rehearse): out = model([image.to(args.device)])[0]
            height, width = image.shape[-2:]
            real = target["orig_size"].tolist()
            scale = torch.tensor([real[1] / width, real[0] / height] * 2)
            found.append({"scores": out["scores"].float().cpu(), "labels": out["labels"].cpu() - 1, "boxes": out["boxes"].float().cpu() * scale})
        return found, [split.get_target(i) for i in range(len(split))]
    return model, detections, rows, steps, seconds


def without_hue(pipeline):
    "The pipeline without the turn of hues, which takes half of its time: a GPU must not wait for photos."
    for part in pipeline.steps.transforms:
        if isinstance(part, ColorJitter): part.hue = None
    return pipeline


def train(name: str, recipe: str, weights: Path, args) -> dict:
    "One training: its figures, with its curve and its detections in the folder `out`."
    data = open_dataset(str(args.folder / name), "train", transforms=without_hue(light_augment(args.size, args.canvas)))
    if args.device == "cuda": torch.cuda.reset_peak_memory_stats()
    make = train_faster_rcnn if recipe == "faster-rcnn" else lambda *rest: train_detr(recipe, *rest)
    model, detections, rows, steps, seconds = make(data, weights, args)
    memory = torch.cuda.max_memory_allocated() / 1e6 if args.device == "cuda" else None
    scores = {}
    for split in args.splits:
        held = open_dataset(str(args.folder / name), split, transforms=light_augment(args.size, args.canvas, train=False))
        found, truth = detections(held)
        scores[split] = {key: round(value, 4) for key, value in evaluate_detections(found, truth, classes=held.classes).items() if key in ("AP", "AP50", "APs", "APm")}
    plot_losses(rows, ["loss"], f"{name}, {recipe}").savefig(args.out / f"{name}-{recipe}-loss.png", dpi=100)
    photos = open_dataset(str(args.folder / name), args.splits[-1])
    plot_pred([photos[i][0] for i in range(min(8, len(photos)))], found[:8], classes=list(photos.classes)).savefig(args.out / f"{name}-{recipe}.png", dpi=80)
    return {"data": name, "recipe": recipe, "head": bool(args.head and recipe != "faster-rcnn"), "seed": args.seed, "steps": steps, "seconds": round(seconds, 1), "images_per_second": round(steps * args.batch / seconds, 1),
            "batch": args.batch, "size": args.size, "canvas": args.canvas, "peak_MB": memory, **scores}


def main(arguments: list = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="what prepare.py made")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=50)
    parser.add_argument("--data", nargs="+", default=["bccd", "cards"])
    parser.add_argument("--recipes", nargs="+", default=["paper", "cures", "faster-rcnn"], choices=RECIPES)
    parser.add_argument("--splits", nargs="+", default=["val", "test"], choices=("val", "test"), help="choose recipes on val; touch test once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="torch.compile and CUDA graphs for DETR's forward and backward pass")
    parser.add_argument("--pretrain", type=float, metavar="SECONDS", help="no photos: teach each recipe's head on drawn scenes for so long")
    parser.add_argument("--head", action="store_true", help="start DETR from the head that --pretrain has kept")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--canvas", type=int, default=640)
    parser.add_argument("--workers", type=int, default=14)
    parser.add_argument("--rehearse", action="store_true")
    args = parser.parse_args(arguments)
    args.device, args.backbone = ("cpu", "resnet18") if args.rehearse else ("cuda", "resnet50")
    if args.rehearse: args.seconds, args.batch, args.size, args.canvas, args.workers, args.pretrain = 0.1, 2, 48, 64, 0, args.pretrain and 0.1
    args.out.mkdir(parents=True, exist_ok=True)
    weights = args.out / "backbone.safetensors"
    save_file(from_bytes(args.folder / "backbone.safetensors"), weights)
    results = []
    if args.pretrain: args.data, run = [None], lambda name, recipe: pretrain(recipe, weights, args)
    else: run = lambda name, recipe: train(name, recipe, weights, args)
    try:
        for name in args.data:
            for recipe in args.recipes:
                try: results.append(run(name, recipe))
                except Exception as error:  # the others are worth having
                    if args.rehearse: raise
                    results.append({"data": name, "recipe": recipe, "failed": f"{type(error).__name__}: {error}"})
                print(json.dumps(results[-1]), flush=True)
                card = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
                (args.out / "photos.json").write_text(json.dumps({"device": card, "torch": torch.__version__, "trainings": results}, indent=1))
    finally: weights.unlink()
    return int(any("failed" in result for result in results))


if __name__ == "__main__": sys.exit(main())
