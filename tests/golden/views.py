"""Sizes and places of torchvision's evaluation transform, for `tests/test_data.py`, which needs no torchvision.

python3 -m venv gold && gold/bin/pip install torch torchvision numpy
gold/bin/python tests/golden/views.py
"""

import json
from pathlib import Path

import numpy as np
import torchvision
from PIL import Image
from torchvision.transforms import CenterCrop, Resize


SHAPES = [
    (60, 90),
    (375, 500),
    (500, 375),
    (333, 500),
    (37, 91),
    (91, 37),
    (129, 128),
    (1000, 41),
    (256, 257),
    (40, 40),
]
SIZES = [28, 32, 64, 224]


def main() -> None:
    """Records [height, width, size, rows and columns after resizing, top and left of the crop]."""
    facts = []
    for height, width in SHAPES:
        for size in SIZES:
            blank = Image.new("L", (width, height))
            columns, rows = Resize(int(size / (224 / 256)))(blank).size
            y, x = np.mgrid[:rows, :columns].astype(np.int32)
            top, left = (int(np.asarray(CenterCrop(size)(Image.fromarray(axis)))[0, 0]) for axis in (y, x))
            facts.append([height, width, size, rows, columns, top, left])
    content = {"torchvision": torchvision.__version__, "views": facts}
    (Path(__file__).parent / "views.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
