"Seed of nanodetr.loss."
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanodetr.boxes import cxcywh_to_xyxy, paired_giou
from nanodetr.matching import HungarianMatcher


@dataclass
class Normalisers:
    "What the losses of a whole batch are divided by: boxes, and the summed class weights of all its queries."
    num_boxes: float
    class_weight: float


class SetCriterion(nn.Module):
    "Match, then compare (paper, section 3.1, equation 2)."

    def __init__(self, num_classes, matcher=None, no_object_weight=0.1, loss_weights=None):
        super().__init__()
        self.num_classes, self.matcher = num_classes, matcher or HungarianMatcher()
        self.no_object_weight = no_object_weight
        self.loss_weights = loss_weights or {"class": 1.0, "l1": 5.0, "giou": 2.0}
        weight = torch.ones(num_classes + 1)
        weight[-1] = no_object_weight
        self.register_buffer("class_weight", weight)

    def normalisers(self, targets: list, num_queries: int) -> Normalisers:
        "Known before the model has run: every object is matched once, all other queries are no-object."
        boxes = sum(len(t["labels"]) for t in targets)
        empty = len(targets) * num_queries - boxes
        return Normalisers(max(boxes, 1), boxes + self.no_object_weight * empty)

    def forward(self, output, targets: list, normalisers: Normalisers = None) -> dict:
        layers = [*output.aux, output]
        logits = torch.stack([o.logits for o in layers]).float()  # (L,B,Q,C+1)
        boxes = torch.stack([o.boxes for o in layers]).float()    # (L,B,Q,4)
        L, B, Q = logits.shape[:3]
        normalisers = normalisers or self.normalisers(targets, Q)
        matched = self.matcher(logits, boxes, targets)
        # flat indices of all matched pairs, layer by layer
        layer, image, query, label, box = [], [], [], [], []
        for l, pairs in enumerate(matched):
            for b, (q, t) in enumerate(pairs):
                layer.append(torch.full_like(q, l)), image.append(torch.full_like(q, b)), query.append(q)
                label.append(targets[b]["labels"][t]), box.append(targets[b]["boxes"][t])
        layer, image, query = (torch.cat(x).to(logits.device) for x in (layer, image, query))
        label, box = torch.cat(label).to(logits.device), torch.cat(box).to(boxes)
        classes = torch.full((L, B, Q), self.num_classes, device=logits.device)
        classes[layer, image, query] = label
        ce = F.cross_entropy(logits.flatten(0, 2), classes.flatten(), self.class_weight, reduction="none").view(L, -1).sum(1)
        mine = boxes[layer, image, query]
        l1 = (mine - box).abs().sum(-1)
        giou = 1 - paired_giou(cxcywh_to_xyxy(mine), cxcywh_to_xyxy(box))
        zero = logits.new_zeros(L)
        parts = {"class": ce / normalisers.class_weight, "l1": zero.index_add(0, layer, l1) / normalisers.num_boxes,
                 "giou": zero.index_add(0, layer, giou) / normalisers.num_boxes}
        losses = {}
        for l in range(L):
            suffix = "" if l == L - 1 else f"_{l}"
            losses |= {f"loss_{name}{suffix}": value[l] for name, value in parts.items()}
        with torch.no_grad():
            last = layer == L - 1
            right = logits[-1][image[last], query[last]].argmax(-1) == label[last]
            losses["class_error"] = 100 * (1 - right.float().mean()) if len(right) else logits.new_zeros(())
            counts = torch.tensor([len(t["labels"]) for t in targets], device=logits.device)
            seen = (logits[-1].argmax(-1) != self.num_classes).sum(1)
            losses["cardinality_error"] = (seen - counts).abs().float().mean()
        return losses

    def total(self, losses: dict) -> Tensor:
        return sum(self.loss_weights[name.split("_")[1]] * value for name, value in losses.items() if name.startswith("loss_"))
