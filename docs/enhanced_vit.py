"""A model of the enhanced dress in PyTorch: `EnhancedViT.load("model.safetensors")`, where the file is one of ours.

Needs torch and safetensors alone. Tensors keep the names and shapes that they have in the file: blocks are stacked on
the first axis, and matrices have the channels of the residual stream last. Pixels are (batch, 3, image, image),
normalised by the mean (0.485, 0.456, 0.406) and the deviation (0.229, 0.224, 0.225) of ImageNet. A model with a head
returns logits (batch, classes); one without, its normalised tokens (batch, 1 + patches, channels), class token first.
"""

import json
from os import PathLike

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn


class EnhancedViT(nn.Module):
    """RMSNorm, SwiGLU and 2-D rotary positions; `heads * head_dim` need not be the residual width."""

    def __init__(self, tensors: dict[str, Tensor], model: dict, pool: str | None):
        """`tensors` by their names in the file; `model` is the configuration in its header, and `pool` what the head
        sees: the mean over patches ("mean"), the class token ("cls"), or None where there is no head."""
        super().__init__()
        if (kind := model.get("kind", "vit")) != "vit":  # earlier files do not tell
            raise ValueError(f"this is a {kind}, not a vision transformer")
        if model["dress"] != "enhanced":
            raise ValueError("this is a model of the plain dress: export it with --format timm")
        self.patch, self.heads, self.head_dim = model["patch"], model["heads"], model["head_dim"]
        self.grid, self.depth, self.pool = model["image"] // model["patch"], model["depth"], pool
        for name, tensor in tensors.items():
            *path, last = name.removeprefix("backbone.").split(".")
            owner: nn.Module = self
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, nn.Module())
                owner = owner.get_submodule(part)
            owner.register_parameter(last, nn.Parameter(tensor))
        self.register_buffer("turn", rotary(self.grid, self.head_dim), persistent=False)

    @classmethod
    def load(cls, path: str | PathLike) -> "EnhancedViT":
        """Reads a file that `weight_templates.save_model` wrote, or `export_model` as `safetensors`."""
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["json"])["about"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return cls(tensors, header["model"], header["pool"])

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, 3, image, image) → (batch, classes) or (batch, 1 + patches, channels)."""
        b, g, p = len(pixels), self.grid, self.patch
        patches = pixels.reshape(b, 3, g, p, g, p).permute(0, 2, 4, 3, 5, 1).reshape(b, g * g, p * p * 3)
        x = F.linear(patches, self.embed.weight, self.embed.bias)
        x = torch.cat([self.cls.expand(b, 1, -1), x], dim=1)
        for layer in range(self.depth):
            x = x + self.attend(norm(x, self.blocks.norm1.gain[layer]), layer)
            x = x + self.feed(norm(x, self.blocks.norm2.gain[layer]), layer)
        if self.pool is None:
            return norm(x, self.norm.gain)
        seen = x[:, 0] if self.pool == "cls" else x[:, 1:].mean(dim=1)
        return F.linear(norm(seen, self.norm.gain), self.head.weight, self.head.bias)

    def attend(self, x: Tensor, layer: int) -> Tensor:
        """Self-attention: queries and keys are turned by where their patch is."""
        a, (b, t, width) = self.blocks.attention, x.shape
        qkv = F.linear(x, a.qkv[layer].reshape(-1, width), a.qkv_bias[layer].reshape(-1))
        q, k, v = qkv.reshape(b, t, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(self.turned(q), self.turned(k), v)
        return mixed.transpose(1, 2).reshape(b, t, -1) @ a.out[layer] + a.out_bias[layer]

    def feed(self, x: Tensor, layer: int) -> Tensor:
        """SwiGLU; the file has its hidden units in eight blocks, one after the other."""
        m, width = self.blocks.mlp, x.shape[-1]
        both = F.linear(x, m.enter[layer].reshape(-1, width), m.enter_bias[layer].reshape(-1))
        gate, up = both.chunk(2, dim=-1)
        return (F.silu(gate) * up) @ m.leave[layer].reshape(-1, width) + m.leave_bias[layer]

    def turned(self, x: Tensor) -> Tensor:
        """Turns the pairs of adjacent channels (0, 1), (2, 3), … of (batch, head, token, channel)."""
        a, b, cos, sin = x[..., 0::2], x[..., 1::2], self.turn[0].to(x), self.turn[1].to(x)
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)


def norm(x: Tensor, gain: Tensor) -> Tensor:
    """Root-mean-square normalisation."""
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + 1e-6) * gain


def rotary(grid: int, head_dim: int) -> Tensor:
    """Cosines and sines, (2, token, pair): half of a head's pairs turn with the row, half with the column of the patch,
    at frequencies 10000^(-k / (head_dim / 4)). The class token, the first, does not turn."""
    quarter = head_dim // 4
    frequency = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    at = torch.arange(grid, dtype=torch.float64)[:, None] * frequency
    angles = torch.cat([at.repeat_interleave(grid, dim=0), at.repeat(grid, 1)], dim=1)
    angles = torch.cat([torch.zeros(1, 2 * quarter, dtype=torch.float64), angles])
    return torch.stack([angles.cos(), angles.sin()]).float()
