"""Backbones and what is put around them. Nothing here knows of constraints."""

from .mae import MAE, Decoder, Reconstruction
from .vit import Block, PatchEmbed, ViT, patchify, unpatchify


__all__ = ["MAE", "Block", "Decoder", "PatchEmbed", "Reconstruction", "ViT", "patchify", "unpatchify"]
