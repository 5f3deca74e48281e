"""Does a transformer that has learned drawn shapes start better on photos? The experiment of notebook 14.

    python tests/shapes_start.py FOLDER --backbone-weights FILE [--stride-first] [--epochs 60]

A frozen ResNet-50 and the preset `photos`. One model learns 2,000 scenes of `shapes-hard` (256 pixels, 2,000 steps). Then, on
the same cached features of the photos (320 pixels, 4 copies each), two starts: a new transformer, and the one that learned
shapes, with a new class head (`adapt`). The same steps, rates and seeds for both; AP50 on validation on the way and AP and
AP50 on test at the end. One thread.
"""
import argparse
import copy
import time

import torch

from nanodetr.backbone import ResNetBackbone
from nanodetr.data import Dihedral, ShapesDataset, light_augment, open_dataset
from nanodetr.evaluation import evaluate
from nanodetr.model import DETR, DETRConfig
from nanodetr.pretrained import OnFeatures, adapt, cache_features
from nanodetr.training import TrainConfig, fit

SIZE, LONGEST, COPIES = 320, 534, 4


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--backbone-weights", required=True)
    parser.add_argument("--stride-first", action="store_true")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    torch.set_num_threads(1)

    def new(classes, backbone):
        return DETR(DETRConfig.preset("photos", classes=list(classes), image_size=SIZE, max_size=LONGEST, stride_first=args.stride_first), backbone)

    def cached(data, copies=1): return cache_features(shapes, data, copies, progress=False)

    scenes = ShapesDataset("train", size=256, n=2000, level="hard")
    torch.manual_seed(0)
    shapes = new(scenes.classes, ResNetBackbone("resnet50", args.backbone_weights, 0, stride_first=args.stride_first))
    fit(OnFeatures(shapes), cached(scenes), None, TrainConfig.preset("photos", epochs=16), progress=False)
    held_out = evaluate(OnFeatures(shapes), cached(ShapesDataset("test", size=256, n=200, level="hard")), progress=False)
    print(f"shapes-hard, 200 held-out scenes: AP50 {held_out['AP50']:.3f}", flush=True)

    turn, augment, fixed = Dihedral(), light_augment(SIZE, LONGEST), light_augment(SIZE, LONGEST, train=False)
    train = cached(open_dataset(args.data, "train", transforms=lambda image, target: augment(*turn(image, target))), COPIES)
    val, test = (cached(open_dataset(args.data, split, transforms=fixed)) for split in ("val", "test"))
    for seed in args.seeds:
        for start in ("new", "shapes"):
            torch.manual_seed(100 + seed)
            model = adapt(shapes, train.classes, say=lambda line: None) if start == "shapes" else new(train.classes, copy.deepcopy(shapes.backbone))
            curve, began = [], time.process_time()
            fit(OnFeatures(model), train, None, TrainConfig.preset("photos", epochs=args.epochs, seed=seed), progress=False,
                evaluate=lambda net: evaluate(net, val, progress=False), evaluate_every=max(1, args.epochs // 6),
                on_epoch=lambda net, history: curve.append((history[-1]["step"], round(history[-1]["AP50"], 3))) if "AP50" in history[-1] else None)
            scores = evaluate(OnFeatures(model), test, progress=False)
            print(f"{start:6} seed {seed}: validation AP50 {curve}, test AP {scores['AP']:.3f} AP50 {scores['AP50']:.3f}, "
                  f"{time.process_time() - began:.0f} s of one thread", flush=True)


if __name__ == "__main__":
    main()
