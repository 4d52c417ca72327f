"""The numbers that SWEET (arXiv 2601.19694) prints, to stand beside ours."""

CLASSIFICATION = {
    "weight-selection": {"L3H12": 66.44, "L6H12": 75.91, "L6H6": 67.03, "L12H6": 66.51, "L12H3": 43.49},
    "dmae": {"L3H12": 66.67, "L6H12": 73.95, "L6H6": 64.86, "L12H6": 65.70, "L12H3": 49.07},
    "isomorphic-pruning": {"L3H12": 66.46, "L6H12": 75.85, "L6H6": 68.25, "L12H6": 70.86, "L12H3": 44.53},
    "wave": {"L3H12": 63.75, "L6H12": 76.97, "L6H6": 68.38, "L12H6": 71.27, "L12H3": 55.56},
    "sweet-adapted": {"L3H12": 67.21, "L6H12": 77.42, "L6H6": 70.34, "L12H6": 71.70, "L12H3": 57.28},
}
"""Table 1: top-1 accuracy on ImageNet after 30 epochs, in percent, by method and size. SWEET's scalers are adapted (§5.1.1)."""
_SETS = ("flowers102", "cub200", "cars196", "cifar10", "cifar100", "food101", "inat2019")
DOWNSTREAM = {
    "weight-selection": dict(zip(_SETS, (76.65, 54.99, 60.98, 95.21, 74.10, 81.95, 62.67), strict=True)),
    "dmae": dict(zip(_SETS, (83.18, 60.84, 71.41, 95.82, 77.36, 80.78, 58.84), strict=True)),
    "isomorphic-pruning": dict(zip(_SETS, (75.77, 51.71, 52.23, 94.93, 74.10, 81.27, 63.30), strict=True)),
    "wave": dict(zip(_SETS, (80.26, 56.77, 57.71, 93.71, 75.58, 82.42, 63.70), strict=True)),
    "sweet-adapted": dict(zip(_SETS, (83.12, 61.51, 81.03, 97.03, 79.36, 82.50, 64.22), strict=True)),
}
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
    "the sizes, to WAVE's. The mean of its gains over the best competitor of each size is 1.02.",
    "downstream": "The paper prints an average of 72.56 for WAVE, whose seven numbers have a mean of 72.88. Its average gain of "
    "2.01 is the mean of the gains over the best competitor of each set; the difference of the averages is 2.93, and of "
    "the printed ones, 78.40 and 75.46, 2.94. On flowers102 SWEET is 0.06 below DMAE.",
    "constraints": "The paper's L3H5 of “without” is that of weight selection in its Table 5, so that row is weight selection from an "
    "ordinary auto-encoder. Its Tucker L3H5 is 58.99 here and 58.80 in Table 5, which it does not explain; nor does it say how "
    "long the networks of these tables were trained.",
    "architecture": "The paper's L3H5 of SWEET is 58.80 here and 58.99 in Table 4, which it does not explain; nor does it say how "
    "long the networks of these tables were trained.",
}
"""What does not fit in the paper's tables, by our page."""
