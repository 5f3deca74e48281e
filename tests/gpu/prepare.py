"""What travels to the GPU machine, which has no network: one folder that git ignores, of at most 45 MB.

    python tests/gpu/prepare.py gpu_inputs --data DIR --backbone-weights FILE [--peers DIR] [--quality N]
    python tests/gpu/prepare.py gpu_inputs --tiny        drawn pictures and random weights, for the rehearsal

DIR holds bccd/ and cards/ in Pascal VOC's layout; FILE is a headless or whole torchvision ResNet-50. Pictures are made smaller
(long side at most 640) and saved again as JPEG. Convolutions are stored in 8 bits with one scale per output channel, the
rest in 32: fp16 would be 47 MB. The official code is copied, too, when --peers or NANODETR_PEERS leads to it.
"""
import argparse
import json
import os
import shutil
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.models import resnet18

LIMIT = 45_000_000


def shrink(source: Path, target: Path, side: int = 640, quality: int = 55) -> None:
    "A data set in Pascal VOC's layout, its pictures at most `side` pixels long. Boxes shrink along."
    import xml.etree.ElementTree as ET

    for folder in ("JPEGImages", "Annotations"): (target / folder).mkdir(parents=True, exist_ok=True)
    shutil.copytree(source / "ImageSets", target / "ImageSets", dirs_exist_ok=True)
    for path in sorted((source / "JPEGImages").iterdir()):
        picture = Image.open(path).convert("RGB")
        factor = min(1.0, side / max(picture.size))
        size = tuple(round(factor * s) for s in picture.size)
        if factor < 1: picture = picture.resize(size, Image.Resampling.LANCZOS)
        picture.save(target / "JPEGImages" / path.name, quality=quality)
        tree = ET.parse(source / "Annotations" / f"{path.stem}.xml")
        if factor < 1:
            for tag in ("xmin", "ymin", "xmax", "ymax"):
                for corner in tree.iter(tag): corner.text = str(round(factor * float(corner.text), 2))
            for tag, value in zip(("width", "height"), size):
                for one in tree.iter(tag): one.text = str(value)
        tree.write(target / "Annotations" / f"{path.stem}.xml")


def to_bytes(state: dict) -> dict:
    "Convolutions in 8 bits, `name` and `name.scale` (one per output channel); everything else as it is, the classifier left out."
    small = {}
    for name, tensor in state.items():
        if name.startswith("fc.") or name.endswith("num_batches_tracked"): continue
        tensor = tensor.float()
        if tensor.dim() == 4:
            scale = tensor.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12) / 127
            small[name], small[f"{name}.scale"] = (tensor / scale).round().to(torch.int8), scale
        else: small[name] = tensor
    return small


def from_bytes(path: Path) -> dict:
    "The weights that `to_bytes` stored, as float tensors under torchvision's names."
    small = load_file(path)
    return {name: tensor.float() * small[f"{name}.scale"] if f"{name}.scale" in small else tensor
            for name, tensor in small.items() if not name.endswith(".scale")}


def draw(target: Path, count: int = 6) -> None:
    "A small data set of drawn shapes in Pascal VOC's layout."
    from nanodetr.data import ShapesDataset

    shapes = ShapesDataset("train", size=96, n=count)
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"): (target / folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        truth, rows = shapes.get_target(i), []
        Image.fromarray((shapes[i][0] * 255).byte().permute(1, 2, 0).numpy()).save(target / "JPEGImages" / f"{i}.jpg")
        for k, box in zip(truth["labels"].tolist(), truth["boxes"].tolist()):
            corners = "".join(f"<{tag}>{value:.0f}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box))
            rows.append(f"<object><name>{shapes.classes[k]}</name><bndbox>{corners}</bndbox></object>")
        (target / "Annotations" / f"{i}.xml").write_text(f"<annotation><filename>{i}.jpg</filename><size><width>96</width><height>96</height><depth>3</depth></size>{''.join(rows)}</annotation>")
    for split, names in (("train", range(count // 2)), ("val", range(count // 2, count)), ("test", range(count // 2, count))):
        (target / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(map(str, names)))


def main(arguments: list = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--backbone-weights", type=Path)
    parser.add_argument("--peers", type=Path, default=os.environ.get("NANODETR_PEERS"))
    parser.add_argument("--quality", type=int, default=55, help="of the JPEGs, 1 to 95")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args(arguments)
    if not args.tiny and not (args.data and args.backbone_weights): parser.error("give --data and --backbone-weights, or --tiny")
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in ("bccd", "cards"):
        draw(args.folder / name) if args.tiny else shrink(args.data / name, args.folder / name, quality=args.quality)
    state = resnet18().state_dict() if args.tiny else load_file(args.backbone_weights)
    save_file(to_bytes(state), args.folder / "backbone.safetensors")
    if args.peers and not (args.folder / "peers").exists(): shutil.copytree(args.peers, args.folder / "peers", ignore=shutil.ignore_patterns("__pycache__"))
    total = sum(path.stat().st_size for path in args.folder.rglob("*") if path.is_file())
    print(json.dumps({"folder": str(args.folder), "MB": round(total / 1e6, 1), "files": sum(path.is_file() for path in args.folder.rglob("*"))}))
    if total > LIMIT: raise SystemExit(f"{args.folder} has {total / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}: lower the quality or the side of the pictures")


if __name__ == "__main__": main()
