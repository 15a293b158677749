"""Define the two heads that the papers put above a network's feature map."""

from __future__ import annotations

from torch import Tensor, nn


class PooledHead(nn.Module):
    """Apply the head of Studies on Different CNN Algorithms (2019).

    It is a 1 x 1 convolution, global average pooling, a fully connected layer of 1024, and the
    outputs.

    feature: (N, channels, h, w). Returns (N, outputs).
    """

    def __init__(
        self, channels: int, outputs: int, width: int = 1024, dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width // 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(width // 2)
        self.relu = nn.ReLU()  # modules, because guided back-propagation hooks them
        self.fc = nn.Linear(width // 2, width)
        self.fc_relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, outputs)

    def forward(self, feature: Tensor) -> Tensor:
        pooled = self.relu(self.bn(self.conv(feature))).mean((2, 3))
        return self.out(self.dropout(self.fc_relu(self.fc(pooled))))


class FlattenHead(nn.Module):
    """Apply the head of Identification of Dermatological Issues in Facial Skin.

    It is flatten, dropout and the outputs.

    feature: (N, channels, h, w), with h and w always the same. Returns (N, outputs).
    """

    def __init__(
        self, channels: int, height: int, width: int, outputs: int, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(channels * height * width, outputs)

    def forward(self, feature: Tensor) -> Tensor:
        return self.out(self.dropout(feature.flatten(1)))
