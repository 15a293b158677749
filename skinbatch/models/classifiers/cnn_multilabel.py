"""Define the plain CNN of Identification of Dermatological Issues in Facial Skin.

It is trained from nothing and recognises several lesion types at once.
"""

from __future__ import annotations

from torch import Tensor, nn

from skinbatch.errors import PackError

BLOCKS = 4


class MultiLabelCNN(nn.Module):
    """Run the CNN.

    x: (N, 3, S, S) float32 in [0, 1], S 416 in the paper. Returns (N, classes) logits, which a
    logistic function turns into probabilities.

    There are four blocks with 5 x 5 convolutions without padding (16, 32, 64, 64), then 128, 64 and
    the classes, fully connected. The paper has a dropout of "0.2 or 0.5" after each, without their
    places: here it is 0.2 after convolutions and 0.5 after fully connected layers.

    Weights of the Keras model map layer by layer: `conv2d_4..7` to block1..4.conv with the kernel's
    axes (h, w, in, out) turned to (out, in, h, w); `batch_normalization_4..7` to block1..4.bn,
    gamma, beta, moving_mean, moving_variance being weight, bias, running_mean, running_var;
    `dense_7..9` to fc1, fc2, out with the kernel transposed. Nothing is reordered, because features
    are flattened as in Keras: row, column, channel.
    """

    def __init__(self, classes: int, size: int = 416) -> None:
        """Build the network.

        Raises PackError if nothing of `size` remains after the convolutions.
        """
        super().__init__()
        side = size
        for _ in range(BLOCKS):
            side = (side - 4) // 2
        if side < 1:
            raise PackError(
                f"`cnn-multilabel` does not read inputs of {size} px: its four poolings leave nothing of them; raise `size`"
            )
        self.block1 = Block(3, 16, norm_first=True)
        self.block2 = Block(16, 32)
        self.block3 = Block(32, 64)
        self.block4 = Block(64, 64)
        self.fc1, self.relu1, self.dropout1 = (
            nn.Linear(64 * side * side, 128),
            nn.ReLU(),
            nn.Dropout(0.5),
        )
        self.fc2, self.relu2, self.dropout2 = nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.5)
        self.out = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block4(self.block3(self.block2(self.block1(x))))
        x = x.permute(0, 2, 3, 1).flatten(1)
        x = self.dropout1(self.relu1(self.fc1(x)))
        x = self.dropout2(self.relu2(self.fc2(x)))
        return self.out(x)


class Block(nn.Module):
    """Apply a 5 x 5 convolution with ReLU, 2 x 2 max-pooling, batch norm and dropout.

    The batch norm comes after the pooling or before it.
    """

    def __init__(self, channels_in: int, channels_out: int, norm_first: bool = False) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.conv = nn.Conv2d(channels_in, channels_out, 5)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        # Keras's values. Its momentum of 0.99 is 0.01 here, counted the other way round.
        self.bn = nn.BatchNorm2d(channels_out, eps=1e-3, momentum=0.01)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        x = self.pool(self.bn(x)) if self.norm_first else self.bn(self.pool(x))
        return self.dropout(x)
