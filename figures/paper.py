"""The numbers that SWEET (arXiv 2601.19694) prints, to stand beside ours."""

CLASSIFICATION = {
    "weight-selection": {"L3H12": 66.44, "L6H12": 75.91, "L6H6": 67.03, "L12H6": 66.51, "L12H3": 43.49},
    "dmae": {"L3H12": 66.67, "L6H12": 73.95, "L6H6": 64.86, "L12H6": 65.70, "L12H3": 49.07},
    "isomorphic-pruning": {"L3H12": 66.46, "L6H12": 75.85, "L6H6": 68.25, "L12H6": 70.86, "L12H3": 44.53},
    "wave": {"L3H12": 63.75, "L6H12": 76.97, "L6H6": 68.38, "L12H6": 71.27, "L12H3": 55.56},
    "sweet": {"L3H12": 67.21, "L6H12": 77.42, "L6H6": 70.34, "L12H6": 71.70, "L12H3": 57.28},
}
"""Table 1: top-1 accuracy on ImageNet after 30 epochs, in percent, by method and size."""
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
"""Tables 4 and 5: top-1 accuracy on ImageNet after 30 epochs, in percent, by row and size. Tucker's L3H5 is 58.99 in one
and 58.80 in the other, which the paper does not explain."""
