"""Writes the golden files of `tests/test_convert.py` with timm and transformers, of which the tests need neither.

Run in an environment of its own; the versions it ran with are in `outputs.json`:

    python3 -m venv gold && gold/bin/pip install torch==2.13.0 transformers==5.23.0 safetensors numpy pillow pyyaml
    gold/bin/pip install --no-deps timm==1.0.31 torchvision==0.28.0
    gold/bin/python tests/golden/make.py
"""

import contextlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file


# timm imports torchvision, whose compiled operators do not load beside a PyTorch of another build: declare those that it
# looks for while it is imported. None is called.
operators = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    with contextlib.suppress(RuntimeError):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import timm  # noqa: E402
import torchvision  # noqa: E402
import transformers  # noqa: E402
from timm.models import VisionTransformer  # noqa: E402


HERE = Path(__file__).parent


def images() -> np.ndarray:
    """Two images (n, h, w, channel), normalised as ImageNet is; the test has the same formula."""
    n, y, x, c = np.meshgrid(np.arange(2), np.arange(32), np.arange(32), np.arange(3), indexing="ij")
    pixels = 0.5 + 0.3 * np.sin(0.37 * x + 0.9 * c + n) + 0.2 * np.cos(0.23 * y * (1 + n) - 0.05 * x + 2.1 * c)
    return ((pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)


@torch.no_grad()
def randomised(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every parameter random: gains and biases that matter, and activations of order one."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        gain = "norm" in name and name.endswith("weight")
        fan_in = parameter[0].numel() if parameter.ndim in (2, 4) else 4
        parameter.copy_(1 + 0.3 * noise if gain else noise / fan_in**0.5)
    return model.eval()


@torch.no_grad()
def main() -> None:
    """Writes all files of this folder but this one."""
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "num_heads": 3}
    pixels = torch.from_numpy(images()).permute(0, 3, 1, 2)
    found = {}

    for pool, depth in (("token", 2), ("avg", 1)):
        model = randomised(VisionTransformer(**shape, depth=depth, num_classes=10, global_pool=pool), seed=depth)
        save_file(model.state_dict(), HERE / f"timm-{pool}.safetensors", {"format": "pt"})
        found[f"timm-{pool}"] = model(pixels)

    model = randomised(VisionTransformer(**shape, depth=1, num_classes=0, global_pool=""), seed=3)
    decoder = {  # as models_mae.py of facebookresearch/mae names them
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_pos_embed": torch.zeros(1, 17, 8),
        "decoder_embed.weight": torch.zeros(8, 24),
        "decoder_blocks.0.norm1.weight": torch.zeros(8),
        "decoder_norm.bias": torch.zeros(8),
        "decoder_pred.weight": torch.zeros(192, 8),
    }
    save_file(model.state_dict() | decoder, HERE / "mae.safetensors", {"format": "pt"})
    found["mae"] = model.forward_features(pixels)

    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        layer_norm_eps=1e-6,
        num_labels=10,
    )
    model = randomised(transformers.ViTForImageClassification(config), seed=4)
    model.save_pretrained(HERE / "huggingface")
    found["huggingface"] = model(pixels).logits

    config = transformers.ViTMAEConfig(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=1,
        decoder_intermediate_size=128,
        layer_norm_eps=1e-6,
        norm_pix_loss=True,
    )
    model = randomised(transformers.ViTMAEForPreTraining(config), seed=5)
    model.save_pretrained(HERE / "huggingface-mae")
    # The patches with the least noise are visible, in the order of their noise.
    noise = torch.tensor([[(7 * i + 3) % 16 / 16 for i in range(16)], [(5 * i + 1) % 16 / 16 for i in range(16)]])
    made = model(pixels, noise=noise)
    found["huggingface-mae"], found["huggingface-mae-loss"] = made.logits, made.loss.reshape(1)

    versions = {module.__name__: module.__version__ for module in (torch, timm, torchvision, transformers)}
    rounded = {name: [float(f"{x:.8g}") for x in out.flatten().tolist()] for name, out in found.items()}
    text = json.dumps(
        {"versions": versions, "shapes": {n: list(o.shape) for n, o in found.items()}, "outputs": rounded}, indent=None
    )
    (HERE / "outputs.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
