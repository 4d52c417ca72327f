"""Backbones and what is put around them. Nothing here knows of constraints."""

from .backbone import AbstractBackbone, AbstractHead, Bare, layer_scales, place_of
from .classifier import Classifier
from .convnext import ConvNext
from .mae import MAE, Decoder, Reconstruction
from .vit import Block, PatchEmbed, Pool, ViT, patchify, unpatchify


__all__ = [
    "MAE",
    "AbstractBackbone",
    "AbstractHead",
    "Bare",
    "Block",
    "Classifier",
    "ConvNext",
    "Decoder",
    "PatchEmbed",
    "Pool",
    "Reconstruction",
    "ViT",
    "layer_scales",
    "patchify",
    "place_of",
    "unpatchify",
]
