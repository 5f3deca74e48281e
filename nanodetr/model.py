"Seed of nanodetr.model."
import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nanodetr.attention import HeadwiseAttention, MultiHeadAttention
from nanodetr.backbone import ConvBackbone, ResNetBackbone
from nanodetr.boxes import NanodetrError, cxcywh_to_xyxy
from nanodetr.data import collate
from nanodetr.decoder import Decoder
from nanodetr.encoder import Encoder
from nanodetr.position import LearnedPositions, sinusoidal_pos_encode_2d


class ConfigError(NanodetrError):
    "A configuration that makes no model."


class CheckpointError(NanodetrError):
    "A file that does not hold the weights of this model."


@dataclass
class DETRConfig:
    "Everything that shapes a DETR; JSON in and out."
    num_classes: int = 91
    classes: list = None
    backbone: str = "resnet50"
    conv_widths: tuple = (24, 48, 96)
    trainable_stages: int = 3
    dilation: bool = False
    dim: int = 256
    heads: int = 8
    ffn_dim: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 6
    num_queries: int = 100
    dropout: float = 0.1
    norm_first: bool = False
    attention: str = "matrix"
    positions: str = "sine"
    temperature: float = 10000.0
    query_start: str = "zero"
    image_size: int = 800
    max_size: int = 1333
    image_mean: tuple = (0.485, 0.456, 0.406)
    image_std: tuple = (0.229, 0.224, 0.225)

    def __post_init__(self):
        if self.classes is not None and len(self.classes) != self.num_classes:
            raise ConfigError(f"num_classes is {self.num_classes} but {len(self.classes)} class names are given: make them agree")
        if self.dim % self.heads or self.dim % 4:
            raise ConfigError(f"dim {self.dim} must be a multiple of 4 (positions) and of heads {self.heads}")

    @classmethod
    def preset(cls, name: str, **changes):
        if name not in PRESETS:
            raise ConfigError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name], **changes})

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str):
        values = json.loads(text)
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ConfigError(f"unknown configuration key {sorted(unknown)[0]!r}: written by another version?")
        return cls(**{k: tuple(v) if isinstance(v, list) and k != "classes" else v for k, v in values.items()})


PRESETS = {
    "nano": dict(num_classes=4, backbone="conv", dim=64, heads=4, ffn_dim=128, encoder_layers=2, decoder_layers=3,
                 num_queries=12, dropout=0.0, norm_first=True, temperature=20.0, query_start="query", image_size=64, max_size=64,
                 image_mean=(0.5, 0.5, 0.5), image_std=(0.25, 0.25, 0.25)),
    "voc": dict(num_classes=20, image_size=480, max_size=800),
    "paper": dict(num_classes=91),
}


@dataclass
class DETROutput:
    "logits (B,Q,C+1); boxes (B,Q,4) cxcywh 0..1; aux: the same for each earlier decoder layer; attention when asked for."
    logits: Tensor
    boxes: Tensor
    aux: list = field(default_factory=list)
    attention: dict = None


class BoxHead(nn.Sequential):
    "Three linear layers to 4 numbers."

    def __init__(self, dim: int):
        super().__init__(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 4))


class DETR(nn.Module):
    "Image to a set of boxes."

    def __init__(self, config: DETRConfig, backbone: nn.Module = None):
        super().__init__()
        self.config = c = config
        if backbone is None:
            backbone = ConvBackbone(c.conv_widths) if c.backbone == "conv" else ResNetBackbone(c.backbone, None, c.trainable_stages, c.dilation)
        self.backbone = backbone
        attention = {"matrix": MultiHeadAttention, "abstraction": HeadwiseAttention}[c.attention]
        shape = (c.dim, c.heads, c.ffn_dim, c.dropout, c.norm_first, attention)
        self.input_proj = nn.Conv2d(backbone.num_channels, c.dim, 1)
        self.encoder, self.decoder = Encoder(c.encoder_layers, *shape), Decoder(c.decoder_layers, *shape)
        self.learned_positions = LearnedPositions(c.dim) if c.positions == "learned" else None
        self.query_embed = nn.Embedding(c.num_queries, c.dim)
        self.class_head, self.box_head = nn.Linear(c.dim, c.num_classes + 1), BoxHead(c.dim)
        self.register_buffer("mean", torch.tensor(c.image_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(c.image_std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, mask: Tensor = None, need_weights: bool = False) -> DETROutput:
        if mask is None:
            mask = torch.zeros(images.shape[0], *images.shape[-2:], dtype=torch.bool, device=images.device)
        images = ((images - self.mean) / self.std).masked_fill(mask[:, None], 0.0)
        features, mask = self.backbone(images, mask)                  # (B,C,h,w), (B,h,w)
        x = self.input_proj(features).flatten(2).transpose(1, 2)      # (B,hw,d)
        pos = self.encode_positions(mask).flatten(1, 2).to(x.dtype)   # (B,hw,d)
        padding = mask.flatten(1) if mask.any() else None             # (B,hw)
        memory, encoder_weights = self.encoder(x, pos, padding, need_weights)
        query_pos = self.query_embed.weight.expand(len(x), -1, -1)    # (B,Q,d)
        target = query_pos if self.config.query_start == "query" else torch.zeros_like(query_pos)
        hidden, weights = self.decoder(target, memory, query_pos, pos, padding, need_weights)  # (L,B,Q,d)
        logits, boxes = self.class_head(hidden), self.box_head(hidden).sigmoid()
        attention = {"encoder": encoder_weights, **weights, "shape": tuple(mask.shape[-2:])} if need_weights else None
        return DETROutput(logits[-1], boxes[-1], [DETROutput(l, b) for l, b in zip(logits[:-1], boxes[:-1])], attention)

    def encode_positions(self, mask: Tensor) -> Tensor:
        if self.learned_positions is not None:
            return self.learned_positions(mask)
        return sinusoidal_pos_encode_2d(mask, self.config.dim, self.config.temperature)

    @torch.no_grad()
    def detect(self, images, threshold: float = 0.5) -> list:
        "Detections above `threshold` in images of any sizes, in pixels of the images as given."
        was_training, device = self.training, next(self.parameters()).device
        self.eval()
        sizes = torch.tensor([image.shape[-2:] for image in images])
        batch, mask, _ = collate([(self.resize(image), {}) for image in images])
        found = postprocess(self(batch.to(device), mask.to(device)), sizes)
        self.train(was_training)
        return [{name: value[d["scores"] > threshold] for name, value in d.items()} for d in found]

    def resize(self, image: Tensor) -> Tensor:
        H, W = image.shape[-2:]
        scale = min(self.config.image_size / min(H, W), self.config.max_size / max(H, W))
        size = max(1, round(H * scale)), max(1, round(W * scale))
        return image if size == (H, W) else F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]

    def save_pretrained(self, folder) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "config.json", lambda p: p.write_text(self.config.to_json()))
        state = {k: v.contiguous() for k, v in self.state_dict().items()}
        write_atomically(folder / "model.safetensors", lambda p: save_file(state, p))

    @classmethod
    def from_pretrained(cls, path):
        path = Path(path)
        folder, file = (path, path / "model.safetensors") if path.is_dir() else (path.parent, path)
        config = DETRConfig.from_json((folder / "config.json").read_text())
        model = cls(config)
        model.load_state_dict(load_file(file))
        return model.eval()


def write_atomically(path: Path, write) -> None:
    "Write beside, sync, rename: a full disk or a crash leaves the old file whole."
    beside = path.with_name(path.name + ".tmp")
    try:
        write(beside)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def postprocess(output: DETROutput, sizes: Tensor) -> list:
    "Every query's best class: list of {scores (Q,), labels (Q,), boxes (Q,4) xyxy px}; sizes (B,2) are (H,W)."
    scores, labels = output.logits.float().softmax(-1)[..., :-1].max(-1)
    H, W = sizes.to(output.boxes.device).unbind(1)
    boxes = cxcywh_to_xyxy(output.boxes.float()) * torch.stack([W, H, W, H], dim=1)[:, None]
    return [{"scores": s.cpu(), "labels": l.cpu(), "boxes": b.cpu()} for s, l, b in zip(scores, labels, boxes)]
