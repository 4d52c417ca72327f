"""The numbers that SWEET (arXiv 2601.19694) prints, to stand beside ours."""

_SIZES = ("L3H12", "L6H12", "L6H6", "L12H6", "L12H3")
_SETS = ("flowers102", "cub200", "cars196", "cifar10", "cifar100", "food101", "inat2019")


def _table(columns: tuple[str, ...], rows: dict[str, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    return {method: dict(zip(columns, row, strict=True)) for method, row in rows.items()}


CLASSIFICATION = _table(
    _SIZES,
    {
        "weight-selection": (66.44, 75.91, 67.03, 66.51, 43.49),
        "dmae": (66.67, 73.95, 64.86, 65.70, 49.07),
        "isomorphic-pruning": (66.46, 75.85, 68.25, 70.86, 44.53),
        "wave": (63.75, 76.97, 68.38, 71.27, 55.56),
        "sweet-adapted": (67.21, 77.42, 70.34, 71.70, 57.28),
    },
)
"""Table 1: top-1 accuracy on ImageNet after 30 epochs, in percent, by method and size. SWEET's scalers are adapted (§5.1.1)."""
CLASSIFICATION_TOP5 = _table(
    _SIZES,
    {
        "weight-selection": (86.46, 92.42, 86.93, 86.81, 68.58),
        "dmae": (86.71, 91.17, 85.65, 86.17, 73.77),
        "isomorphic-pruning": (86.35, 92.54, 88.00, 89.67, 68.89),
        "wave": (84.91, 93.19, 88.16, 90.01, 79.35),
        "sweet-adapted": (86.93, 93.25, 89.22, 90.24, 80.31),
    },
)
"""Table 1: top-5 accuracy on ImageNet, likewise."""
DETECTION = _table(
    _SIZES,
    {
        "weight-selection": (27.02, 36.53, 25.02, 34.09, 23.72),
        "dmae": (25.55, 29.85, 25.16, 32.82, 26.51),
        "isomorphic-pruning": (26.97, 36.64, 23.59, 35.74, 23.13),
        "wave": (27.94, 34.19, 26.14, 33.55, 25.94),
        "sweet-adapted": (28.88, 38.16, 27.33, 36.13, 27.46),
    },
)
"""Table 1: AP of boxes on COCO after 30 epochs, in percent."""
DETECTION_MASKS = _table(
    _SIZES,
    {
        "weight-selection": (25.89, 33.91, 23.89, 31.40, 22.66),
        "dmae": (24.29, 27.80, 23.88, 30.20, 24.95),
        "isomorphic-pruning": (25.75, 33.94, 22.54, 32.85, 21.96),
        "wave": (26.63, 31.91, 24.93, 31.15, 24.45),
        "sweet-adapted": (27.23, 35.16, 25.80, 33.02, 25.82),
    },
)
"""Table 1: AP of masks on COCO, likewise."""
SEGMENTATION = _table(
    _SIZES,
    {
        "weight-selection": (28.24, 35.78, 26.36, 29.89, 22.29),
        "dmae": (27.82, 32.64, 28.07, 31.43, 24.79),
        "isomorphic-pruning": (27.34, 35.89, 26.89, 31.44, 24.12),
        "wave": (28.03, 33.84, 29.15, 32.55, 28.04),
        "sweet-adapted": (29.35, 38.39, 31.46, 37.32, 28.88),
    },
)
"""Table 1: mIoU on ADE20K after 160 000 steps, in percent."""
SEGMENTATION_ACCURACY = _table(
    _SIZES,
    {
        "weight-selection": (36.51, 44.75, 34.83, 38.70, 30.22),
        "dmae": (36.38, 41.53, 37.35, 40.92, 33.49),
        "isomorphic-pruning": (35.00, 44.73, 35.12, 40.05, 32.00),
        "wave": (36.23, 42.26, 37.82, 41.39, 37.20),
        "sweet-adapted": (37.93, 47.81, 40.78, 47.29, 38.26),
    },
)
"""Table 1: mean accuracy over the classes of ADE20K, likewise."""
GENERATION = _table(
    _SIZES,
    {
        "weight-selection": (31.64, 17.47, 35.09, 21.68, 47.31),
        "dmae": (29.09, 15.50, 33.50, 21.99, 44.23),
        "isomorphic-pruning": (32.29, 18.68, 37.60, 23.83, 47.06),
        "wave": (31.54, 16.61, 34.58, 20.37, 45.35),
        "sweet-adapted": (27.60, 14.41, 31.10, 19.04, 41.20),
    },
)
"""Table 2: FID on ImageNet after 50 epochs; less is better."""
GENERATION_SCORES = _table(
    _SIZES,
    {
        "weight-selection": (21.42, 33.61, 18.91, 27.50, 13.86),
        "dmae": (23.18, 37.30, 19.47, 26.68, 14.96),
        "isomorphic-pruning": (21.23, 31.53, 17.44, 24.92, 14.09),
        "wave": (21.30, 34.37, 18.85, 28.17, 14.66),
        "sweet-adapted": (24.04, 38.86, 20.91, 30.97, 15.58),
    },
)
"""Table 2: Inception Score, likewise; more is better."""
DOWNSTREAM = _table(
    _SETS,
    {
        "weight-selection": (76.65, 54.99, 60.98, 95.21, 74.10, 81.95, 62.67),
        "dmae": (83.18, 60.84, 71.41, 95.82, 77.36, 80.78, 58.84),
        "isomorphic-pruning": (75.77, 51.71, 52.23, 94.93, 74.10, 81.27, 63.30),
        "wave": (80.26, 56.77, 57.71, 93.71, 75.58, 82.42, 63.70),
        "sweet-adapted": (83.12, 61.51, 81.03, 97.03, 79.36, 82.50, 64.22),
    },
)
"""Table 3: top-1 accuracy of L6H6 on downstream sets, in percent, by method and set."""
ABLATIONS = {
    "constraints": {
        "without": {"L3H5": 57.09, "L4H4": 57.99, "L5H3": 54.51},
        "linear": {"L3H5": 58.09, "L4H4": 59.00, "L5H3": 55.66},
        "kronecker": {"L3H5": 58.83, "L4H4": 59.47, "L5H3": 55.88},
        "tucker": {"L3H5": 58.99, "L4H4": 59.71, "L5H3": 56.70},
    },
    "architecture": {
        "without scaling": {"L3H3": 48.63, "L3H4": 53.92, "L3H5": 58.65},
        "weight selection": {"L3H3": 48.65, "L3H4": 53.64, "L3H5": 57.09},
        "without enhancements": {"L3H3": 49.03, "L3H4": 54.65, "L3H5": 57.80},
        "sweet": {"L3H3": 49.57, "L3H4": 55.21, "L3H5": 58.80},
    },
}
"""Tables 4 and 5: top-1 accuracy on ImageNet in percent, by row and size; after how many epochs is not said."""
NOTES = {
    "methods": "The paper says that SWEET is 1.60 above the strongest competitor: that is the difference of the averages over "
    "the sizes, to WAVE's. The mean of its gains over the best competitor of each size is 1.02. Its competitors start from "
    "“official MAE weights” of 800 epochs; the released ones are documented as of 1600, with normalised pixels. Its slices are "
    "those of a feed-forward layer of four times the width, P = 12 D · D, and how SwiGLU, which it uses, fills them is not said; "
    "nor are ranks, the distribution of the masks, or the recipes of fine-tuning; of its competitors, how long DMAE's students and the "
    "pruned networks were trained, which layers weight selection takes, whether pixels were normalised, the warm-up and the decoder's "
    "size. Scalers of “only a few thousand” numbers "
    "cannot hold: U and V alone have 589 824 at half ranks.",
    "generation": "Numbers are of ImageNet at the paper's own protocol. Its gain of 1.76 in IS is 1.75 between the averages of the printed "
    "numbers. How the generator's feed-forward layers and SwiGLU go together is not said.",
    "downstream": "The paper prints an average of 72.56 for WAVE, whose seven numbers have a mean of 72.88. Its average gain of "
    "2.01 is the mean of the gains over the best competitor of each set; the difference of the averages is 2.93, and of "
    "the printed ones, 78.40 and 75.46, 2.94. On flowers102 SWEET is 0.06 below DMAE.",
    "constraints": "The paper's L3H5 of “without” is that of weight selection in its Table 5, so that row is weight selection from an "
    "ordinary auto-encoder. Its Tucker L3H5 is 58.99 here and 58.80 in Table 5, which it does not explain; nor does it say how "
    "long the networks of these tables were trained.",
    "architecture": "The paper's L3H5 of weight selection, 57.09, is that of “without” in its Table 4. Its L3H5 of SWEET is 58.80 here and "
    "58.99 in Table 4, which it does not explain; nor does it say how "
    "long the networks of these tables were trained.",
}
"""What does not fit in the paper's tables, by our page."""
