"Seed of nanodetr.decoder."
import torch
from torch import Tensor, nn

from nanodetr.attention import MultiHeadAttention
from nanodetr.encoder import FeedForward


class DecoderBlock(nn.Module):
    "Queries look at each other, then at the image, then think alone."

    def __init__(self, dim, heads, ffn_dim, dropout=0.1, norm_first=False, attention=MultiHeadAttention):
        super().__init__()
        self.self_attn, self.cross_attn = attention(dim, heads, dropout), attention(dim, heads, dropout)
        self.ffn = FeedForward(dim, ffn_dim, dropout)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        self.norm_first = norm_first

    def attend_self(self, x, query_pos, need_weights):
        q = k = x + query_pos
        out, weights = self.self_attn(q, k, x, None, need_weights)
        return self.dropout(out), weights

    def attend_cross(self, x, memory, query_pos, memory_pos, key_padding_mask, need_weights):
        out, weights = self.cross_attn(x + query_pos, memory + memory_pos, memory, key_padding_mask, need_weights)
        return self.dropout(out), weights

    def forward(self, x, memory, query_pos, memory_pos, key_padding_mask=None, need_weights=False):
        cross = (memory, query_pos, memory_pos, key_padding_mask, need_weights)
        if self.norm_first:
            out, self_w = self.attend_self(self.norm1(x), query_pos, need_weights)
            x = x + out
            out, cross_w = self.attend_cross(self.norm2(x), *cross)
            x = x + out
            x = x + self.dropout(self.ffn(self.norm3(x)))
        else:
            out, self_w = self.attend_self(x, query_pos, need_weights)
            x = self.norm1(x + out)
            out, cross_w = self.attend_cross(x, *cross)
            x = self.norm2(x + out)
            x = self.norm3(x + self.dropout(self.ffn(x)))
        return x, self_w, cross_w


class Decoder(nn.Module):
    "A stack of blocks; every layer's output is normed for prediction, and only for prediction."

    def __init__(self, depth, dim, heads, ffn_dim, dropout=0.1, norm_first=False, attention=MultiHeadAttention):
        super().__init__()
        self.layers = nn.ModuleList(DecoderBlock(dim, heads, ffn_dim, dropout, norm_first, attention) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def forward(self, target: Tensor, memory: Tensor, query_pos: Tensor, memory_pos: Tensor,
                key_padding_mask=None, need_weights=False):
        hidden, attention = [], {"self": [], "cross": []}
        for layer in self.layers:
            target, self_w, cross_w = layer(target, memory, query_pos, memory_pos, key_padding_mask, need_weights)
            hidden.append(self.norm(target))
            attention["self"].append(self_w)
            attention["cross"].append(cross_w)
        return torch.stack(hidden), attention if need_weights else None
