"Seed of nanodetr.position."
import math

import torch
from torch import Tensor, nn


def sinusoidal_pos_encode_1d(positions: Tensor, dim: int, temperature: float = 10000.0) -> Tensor:
    "(...) positions -> (..., dim) interleaved sines (even channels) and cosines (odd channels)."
    i = torch.arange(dim, device=positions.device)
    frequency = temperature ** (2 * (i // 2).float() / dim)
    angles = positions[..., None].float() / frequency
    return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], dim=-1).flatten(-2)


def sinusoidal_pos_encode_2d(mask: Tensor, dim: int, temperature: float = 10000.0, normalize: bool = True) -> Tensor:
    "(B,h,w) padding mask -> (B,h,w,dim): the first half of the channels encodes y, the second x."
    real = (~mask).float()
    y, x = real.cumsum(1), real.cumsum(2)
    if normalize:
        y = y / (y[:, -1:, :] + 1e-6) * 2 * math.pi
        x = x / (x[:, :, -1:] + 1e-6) * 2 * math.pi
    return torch.cat([sinusoidal_pos_encode_1d(y, dim // 2, temperature),
                      sinusoidal_pos_encode_1d(x, dim // 2, temperature)], dim=-1)


class LearnedPositions(nn.Module):
    "A table of rows and a table of columns, looked up by index."

    def __init__(self, dim: int, size: int = 50):
        super().__init__()
        self.rows, self.columns = nn.Embedding(size, dim // 2), nn.Embedding(size, dim // 2)
        nn.init.uniform_(self.rows.weight)
        nn.init.uniform_(self.columns.weight)

    def forward(self, mask: Tensor) -> Tensor:
        B, h, w = mask.shape
        y = self.rows.weight[:h, None].expand(h, w, -1)
        x = self.columns.weight[None, :w].expand(h, w, -1)
        return torch.cat([y, x], dim=-1).expand(B, -1, -1, -1)
