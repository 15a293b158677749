"""What the papers put above the feature map of a network: two heads."""

from __future__ import annotations

from torch import Tensor, nn


class PooledHead(nn.Module):
    """Studies on Different CNN Algorithms (2019): 1 x 1 convolution, global average pooling, a fully connected layer of
    1024, outputs. feature: (N, channels, h, w). Returns (N, outputs)."""

    def __init__(self, channels: int, outputs: int, width: int = 1024, dropout: float = 0.2) -> None:
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
    """Identification of Dermatological Issues in Facial Skin: flatten, dropout, outputs. feature: (N, channels, h, w), h
    and w always the same. Returns (N, outputs)."""

    def __init__(self, channels: int, height: int, width: int, outputs: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(channels * height * width, outputs)

    def forward(self, feature: Tensor) -> Tensor:
        return self.out(self.dropout(feature.flatten(1)))
