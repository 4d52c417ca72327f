"""What the extra `bench` installs, where a benchmark needs it."""

from typing import Any

from weight_templates.errors import UserError


def torch() -> Any:
    """PyTorch; raises UserError where it is not installed."""
    try:
        import torch
    except ImportError:
        raise UserError("the comparison needs PyTorch; install it with `pip install -e '.[bench]'`.") from None
    return torch
