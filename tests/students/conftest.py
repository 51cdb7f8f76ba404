from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def shake() -> Callable[[nn.Module], nn.Module]:
    """Give every batch norm statistics and weights of a trained network's kind, and switch to evaluation."""

    def shaken(network: nn.Module) -> nn.Module:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm3d):
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.2, 0.2)
        return network.eval()

    torch.manual_seed(0)
    return shaken
