"""The numbers behind the explorers of the site: what the trained nano model says about a few pictures, as small JSON.

The pages hold them, and the programs beside them (explorers/*.js) only look them up: no kernel, no server.
"""
import base64
import io
import json
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nanodetr.boxes import cxcywh_to_xyxy
from nanodetr.data import ShapesDataset
from nanodetr.explorers import greedy_pairs
from nanodetr.matching import HungarianMatcher
from nanodetr.checkpoints.files import load_model_weights, shipped_models
from nanodetr.model import DETR

NAME, LEVELS = "nano-shapes", 63
LIMIT = 300_000  # bytes of JSON an explorer may have


def png(image: torch.Tensor) -> str:
    "(3,H,W) in 0..1 as a data address."
    file = io.BytesIO()
    Image.fromarray((image.permute(1, 2, 0) * 255).round().byte().numpy()).save(file, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def packed(weights: torch.Tensor) -> str:
    """Attention weights (L,H,N,N) in base64 of deflated bytes: the largest of every row in 255ths, (L,H,N),
    then every weight in 63rds of its row's largest, (L,H,N,N)."""
    largest = (weights.amax(-1) * 255).ceil().clamp(1, 255)
    share = (weights / (largest / 255)[..., None] * LEVELS).round().clamp(0, LEVELS)
    numbers = torch.cat([largest.flatten(), share.flatten()]).byte().numpy().tobytes()
    return base64.b64encode(zlib.compress(numbers, 9)).decode()


def rounded(x: torch.Tensor, digits: int = 4) -> list:
    return np.round(x.double().numpy(), digits).tolist()


def scenes(model, count: int, objects: range, n: int = 60, rank=None) -> list:
    "The first `count` validation scenes with so many objects, or those that `rank` puts first: (image, target) pairs."
    dataset = ShapesDataset("val", size=model.config.image_size, n=n)
    found = [pair for pair in (dataset[i] for i in range(n)) if len(pair[1]["labels"]) in objects]
    return sorted(found, key=rank)[:count] if rank else found[:count]


@torch.no_grad()
def attention() -> dict:
    "Three pictures, each as it is and in a wider, padded canvas, with the mask and without."
    model = DETR.from_pretrained(NAME)
    pictures, names = [], model.config.classes
    for image, target in scenes(model, 3, range(3, 5)):
        size = image.shape[-1]
        wide = torch.zeros(3, size, size + size // 2)
        wide[..., :size] = image
        padding = torch.zeros(1, *wide.shape[1:], dtype=torch.bool)
        padding[..., size:] = True
        views = []
        for canvas, mask in ((image, None), (wide, padding), (wide, None)):
            seen = model(canvas[None], mask, need_weights=True).attention
            rows, columns = seen["shape"]
            views.append({"rows": rows, "columns": columns, "weights": packed(torch.cat(seen["encoder"]))})
        boxes = cxcywh_to_xyxy(target["boxes"]) * size
        pictures.append({"png": png(image), "size": size, "boxes": rounded(boxes, 1), "views": views,
                         "names": [names[i] for i in target["labels"]]})
    return {"layers": model.config.encoder_layers, "heads": model.config.heads, "levels": LEVELS, "pictures": pictures}


def snapshots() -> list:
    "(what to call it, model): one early in training, where the shipped folder has snapshots, and the trained model."
    model, folder = DETR.from_pretrained(NAME), Path(shipped_models()[NAME])
    found = sorted((folder / "snapshots").glob("*.safetensors"))[:3]
    early = [(f"early in training, after epoch {int(file.stem.split('-')[-1])}",
              load_model_weights(DETR(model.config), file).float().eval()) for file in found[-1:]]
    return [*early, ("trained", model)]


@torch.no_grad()
def matching() -> dict:
    "Four pictures, on which greedy loses most with the early model, and what both models say about them."
    models, matcher = snapshots(), HungarianMatcher()

    def gain(pair):
        image, target = pair
        out = models[0][1](image[None])
        cost = sum(matcher.cost_parts(out.logits, out.boxes, target["labels"][None], target["boxes"][None]).values())[0]
        i, j = matcher(out.logits, out.boxes, [target])[0]
        return cost[i, j].sum().item() - sum(cost[pair].item() for pair in greedy_pairs(cost))

    chosen = scenes(models[-1][1], 4, range(3, 6), 200, gain)
    says = lambda out: {"probs": rounded(out.logits[0].softmax(-1)), "boxes": rounded(out.boxes[0])}
    return {"classes": models[-1][1].config.classes,
            "pictures": [{"png": png(image), "size": image.shape[-1], "labels": target["labels"].tolist(),
                          "boxes": rounded(target["boxes"])} for image, target in chosen],
            "models": [{"name": name, "says": [says(model(image[None])) for image, _ in chosen]} for name, model in models]}


def data(kind: str) -> str:
    "The JSON of the explorer `kind`."
    text = json.dumps({"attention": attention, "matching": matching}[kind](), separators=(",", ":"))
    if len(text) > LIMIT: raise SystemExit(f"the {kind} explorer's data take {len(text)} bytes, more than {LIMIT}: take fewer pictures")
    return text
