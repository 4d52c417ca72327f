"""Backbones and what is put around them. Nothing here knows of constraints."""

from .classifier import Classifier, Pool
from .mae import MAE, Decoder, Reconstruction
from .vit import Block, PatchEmbed, ViT, patchify, unpatchify


__all__ = [
    "MAE",
    "Block",
    "Classifier",
    "Decoder",
    "PatchEmbed",
    "Pool",
    "Reconstruction",
    "ViT",
    "patchify",
    "unpatchify",
]
