"""Round a pack's weights to bf16: `python jobs/round_weights.py PACK OUT`.

OUT becomes a pack of the same networks that gives nearly the same numbers in bf16 as in fp32. Its
card is the one of PACK, whose numbers were measured before rounding.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from skinbatch.config import ModelSettings
from skinbatch.models.build import BUILDERS
from skinbatch.models.folding import as_built
from skinbatch.models.manifest import Manifest, write_manifest
from skinbatch.models.pack import Pack, load_pack
from skinbatch.models.rounding import round_to_bf16
from skinbatch.models.weights import read_weights, save_state


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pack", help="name or folder of the pack")
    parser.add_argument("out", type=Path, help="folder of the new pack; must not exist")
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"{args.out} exists; name a new folder")

    pack = load_pack(args.pack)
    shutil.copytree(pack.directory, args.out)
    write_manifest(round_weights(pack, args.out), args.out)
    load_pack(args.out.resolve()).verify()
    return 0


def round_weights(pack: Pack, out: Path) -> Manifest:
    """Write the weights of a pack to the folder `out`, rounded.

    Returns the pack's manifest with the hashes of the new files.
    """
    hashes: dict[str, str] = {}
    for stem, stage in pack.stages.items():
        file = pack.weights_file(stem)
        with as_built():
            model: Any = BUILDERS[stem.partition("-")[0]](stage, file, "cpu", ModelSettings())
        network = model.model if stem == "detector" else model.network
        number = round_to_bf16(network, model.run_example)
        print(f"{stem}: {number} layers rounded")

        rounded = network.state_dict()
        # The file may also hold layers that only training uses.
        state = {name: rounded.get(name, value) for name, value in read_weights(file).items()}
        save_state(state, out / file.name, exact_vectors=True)
        hashes[stem] = hashlib.sha256((out / file.name).read_bytes()).hexdigest()
    return _with_hashes(pack.manifest, hashes)


def _with_hashes(manifest: Manifest, hashes: dict[str, str]) -> Manifest:
    def hashed(stem: str, stage: Any) -> Any:
        return stage.model_copy(update={"sha256": hashes[stem]})

    heads = (hashed(f"classifier-{stage.head}", stage) for stage in manifest.classifier)
    return manifest.model_copy(
        update={
            "segmenter": hashed("segmenter", manifest.segmenter),
            "detector": hashed("detector", manifest.detector),
            "classifier": tuple(heads),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
