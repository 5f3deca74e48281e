"""torchvision's Faster R-CNN on a folder of photos, as a peer for notebook 14's table: same backbone, same seconds.

    python tests/peer_faster_rcnn.py FOLDER --backbone-weights FILE [--stride-first] --seconds 1800

`fasterrcnn_resnet50_fpn` with a frozen ResNet-50 from FILE (torchvision's keys), photos augmented as `nanodetr train
--turns` does, SGD with torchvision's reference settings for two images a step, the rate a tenth in the last quarter.
The budget is processor time of this one thread, augmentation included. Neighbours on the machine still slow a thread
down (they share its memory and caches), so `--steps` sets the steps instead, found from an earlier pace. Prints AP and AP50 on val and test, as `nanodetr.evaluation` measures them.
"""
import argparse
import random
import time

import torch
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor

from nanodetr.backbone import build_resnet, freeze_batch_norm, read_weights
from nanodetr.boxes import cxcywh_to_xyxy
from nanodetr.data import Dihedral, light_augment, open_dataset
from nanodetr.evaluation import evaluate_detections


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--backbone-weights", required=True)
    parser.add_argument("--stride-first", action="store_true")
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--steps", type=int, help="a budget of steps in place of seconds, for a busy machine")
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--lr", type=float, default=0.005)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def build(args, count: int) -> FasterRCNN:
    "The detector for `count` classes, its backbone frozen."
    resnet = build_resnet("resnet50", stride_first=args.stride_first)
    resnet.load_state_dict({name: tensor.float() for name, tensor in read_weights(args.backbone_weights).items()}, strict=False)
    # the extractor is how torchvision builds fasterrcnn_resnet50_fpn from its own weights
    model = FasterRCNN(_resnet_fpn_extractor(freeze_batch_norm(resnet), 0), count + 1, min_size=args.size, max_size=args.size * 5 // 3)
    return model.to(memory_format=torch.channels_last)


def scores(model, data) -> dict:
    "AP and AP50 in the data's own numbering of classes; the model counts background as 0."
    detections = []
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for i in range(len(data)):
            found = model([data[i][0]])[0]
            detections.append({"scores": found["scores"].float(), "labels": found["labels"] - 1, "boxes": found["boxes"].float()})
    measured = evaluate_detections(detections, [data.get_target(i) for i in range(len(data))])
    return {name: round(measured[name], 3) for name in ("AP", "AP50")}


def main():
    args = options()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    turn, augment = Dihedral(), light_augment(args.size, train=True)
    train = open_dataset(args.data, "train", transforms=lambda image, target: augment(*turn(image, target)))
    model = build(args, len(train.classes))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=args.lr, momentum=0.9, weight_decay=5e-4)
    started, step, order = time.process_time(), 0, []
    seconds = lambda: time.process_time() - started
    spent = lambda: step / args.steps if args.steps else seconds() / args.seconds
    model.train()
    while spent() < 1:
        if len(order) < 2: order = random.sample(range(len(train)), len(train))
        images, targets = [], []
        for image, target in (train[order.pop()] for _ in range(2)):
            height, width = image.shape[-2:]
            images.append(image)
            targets.append({"boxes": cxcywh_to_xyxy(target["boxes"]) * torch.tensor([width, height, width, height]), "labels": target["labels"] + 1})
        for group in optimizer.param_groups: group["lr"] = args.lr * min(1, (step + 1) / 100) * (0.1 if spent() > 0.75 else 1)
        with torch.autocast("cpu", torch.bfloat16): losses = model(images, targets)
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 50 == 0: print(f"step {step}, {seconds():.0f} s, loss {loss.item():.3f}", flush=True)
    print(f"{args.data}: {step} steps of 2 images in {seconds():.0f} s of one thread, "
          f"val {scores(model, open_dataset(args.data, 'val'))}, test {scores(model, open_dataset(args.data, 'test'))}", flush=True)


if __name__ == "__main__":
    main()
