"""A masked auto-encoder in PyTorch, in the enhanced dress and of our shapes, to time ours against."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weight_templates.config import DecoderConfig, ViTConfig


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, head_dim: int):
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.qkv = nn.Linear(width, 3 * heads * head_dim)
        self.out = nn.Linear(heads * head_dim, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k = (t * cos + torch.stack([-t[..., 1::2], t[..., 0::2]], -1).flatten(-2) * sin for t in (q, k))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(b, n, -1))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, head_dim: int):
        super().__init__()
        hidden = 8 * (heads * head_dim // 3)
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.attention = Attention(width, heads, head_dim)
        self.enter, self.leave = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), cos, sin)
        gate, up = self.enter(self.norm2(x)).chunk(2, -1)
        return x + self.leave(F.silu(gate) * up)


def rotations(grid: int, head_dim: int) -> tuple[Tensor, Tensor]:
    quarter = head_dim // 4
    frequency = 10000.0 ** (-torch.arange(quarter) / quarter)
    place = torch.arange(grid**2)
    angles = torch.cat([(place // grid)[:, None] * frequency, (place % grid)[:, None] * frequency], 1)
    angles = torch.cat([torch.zeros(1, 2 * quarter), angles]).repeat_interleave(2, 1)
    return angles.cos(), angles.sin()


class MAE(nn.Module):
    near: Tensor
    far: Tensor
    pixels: Tensor

    def __init__(self, vit: ViTConfig, dec: DecoderConfig):
        super().__init__()
        self.vit, self.dec, pixels = vit, dec, 3 * vit.patch**2
        self.embed, self.cls = nn.Linear(pixels, vit.channels), nn.Parameter(torch.zeros(vit.channels))
        self.blocks = nn.ModuleList(Block(vit.channels, vit.heads, vit.head_dim) for _ in range(vit.depth))
        self.norm = nn.RMSNorm(vit.channels, eps=1e-6)
        self.bridge, self.mask = nn.Linear(vit.channels, dec.width), nn.Parameter(torch.zeros(dec.width))
        self.decoder = nn.ModuleList(Block(dec.width, dec.heads, dec.width // dec.heads) for _ in range(dec.depth))
        self.last, self.predict = nn.RMSNorm(dec.width, eps=1e-6), nn.Linear(dec.width, pixels)
        tables = {
            "near": torch.stack(rotations(vit.grid, vit.head_dim)),
            "far": torch.stack(rotations(vit.grid, dec.width // dec.heads)),
            "pixels": torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]),
        }
        for name, table in tables.items():  # which go where the model goes
            self.register_buffer(name, table, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        b, p, g = len(images), self.vit.patch, self.vit.grid
        mean, std = self.pixels
        images = (images / 255 - mean) / std
        patches = images.view(b, g, p, g, p, 3).transpose(2, 3).reshape(b, g * g, -1)
        order = torch.rand(b, g * g, device=images.device).argsort(1)
        seen = order[:, : int(g * g * (1 - self.dec.mask_ratio))]
        tokens = self.embed(torch.gather(patches, 1, seen[..., None].expand(-1, -1, patches.shape[-1])))
        tokens = torch.cat([self.cls.expand(b, 1, -1), tokens], 1)
        turns = torch.cat([seen.new_zeros(b, 1), seen + 1], 1)
        cos, sin = (t[turns][:, None] for t in self.near)
        for block in self.blocks:
            tokens = block(tokens, cos, sin)
        tokens = self.bridge(self.norm(tokens))
        everywhere = self.mask.to(tokens.dtype).expand(b, g * g, -1)
        everywhere = everywhere.scatter(1, seen[..., None].expand(-1, -1, self.dec.width), tokens[:, 1:])
        tokens = torch.cat([tokens[:, :1], everywhere], 1)
        for block in self.decoder:
            tokens = block(tokens, *self.far)
        predicted = self.predict(self.last(tokens[:, 1:])).float()
        target = (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()
        hidden = torch.ones(b, g * g, device=images.device).scatter(1, seen, 0.0)
        return ((predicted - target).square().mean(-1) * hidden).sum() / hidden.sum()


def torch_step(
    vit: ViTConfig, decoder: DecoderConfig, batch: int, precision: str, compiled: bool = False, device: str = "cpu"
) -> Callable[[], None]:
    """A function that takes one step of pre-training on random images, and waits for it; `device`: cpu or cuda."""
    torch.set_float32_matmul_precision(
        "highest" if device == "cpu" else "high"
    )  # TensorFloat32 on a GPU, as JAX has it
    model = MAE(vit, decoder).to(device)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, (0.9, 0.95), weight_decay=0.05, fused=True)
    images = torch.randint(0, 256, (batch, vit.image, vit.image, 3), dtype=torch.uint8, device=device)

    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = forward(images.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run
