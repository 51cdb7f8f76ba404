from __future__ import annotations

import pytest
import torch
from torch import nn

from ccl_cli.errors import RecipeError
from ccl_cli.training.compute import batch_norm


class WithActivation(nn.BatchNorm3d):
    def forward(self, x):
        return super().forward(x).relu()


def test_a_layer_that_does_more_than_normalise_is_not_replaced(monkeypatch):
    monkeypatch.setattr(batch_norm, "world_size", lambda: 2)
    network = nn.Sequential(nn.BatchNorm3d(2), WithActivation(2))
    with pytest.raises(RecipeError, match="layer '1', a WithActivation, cannot share"):
        batch_norm.share_statistics(network, torch.device("cpu"))
    batch_norm.share_statistics(network[:1], torch.device("cpu"))
