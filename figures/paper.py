"""The numbers that SWEET (arXiv 2601.19694) prints, to stand beside ours."""

CLASSIFICATION = {
    "weight-selection": {"L3H12": 66.44, "L6H12": 75.91, "L6H6": 67.03, "L12H6": 66.51, "L12H3": 43.49},
    "dmae": {"L3H12": 66.67, "L6H12": 73.95, "L6H6": 64.86, "L12H6": 65.70, "L12H3": 49.07},
    "isomorphic-pruning": {"L3H12": 66.46, "L6H12": 75.85, "L6H6": 68.25, "L12H6": 70.86, "L12H3": 44.53},
    "wave": {"L3H12": 63.75, "L6H12": 76.97, "L6H6": 68.38, "L12H6": 71.27, "L12H3": 55.56},
    "sweet": {"L3H12": 67.21, "L6H12": 77.42, "L6H6": 70.34, "L12H6": 71.70, "L12H3": 57.28},
}
"""Table 1: top-1 accuracy on ImageNet after 30 epochs, in percent, by method and size."""
