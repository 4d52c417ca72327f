"""What SWEET is compared with. Every method makes a plain backbone of a size, which `experiments/finetune.py` takes."""
