"""Trains the models of the starter pack and puts the pack together. Stopped, it goes on where it was."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

STAGES = ("segmenter", "detector", "classifier", "faster-rcnn", "assemble")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds acne04, celebamask and derm")
    parser.add_argument("--work", type=Path, required=True, help="for checkpoints, curves and weights")
    parser.add_argument("--pack-dir", type=Path, default=Path("skinbatch/models/packs/starter"))
    parser.add_argument("--minutes", type=float, help="for each stage; default: what its stage in the pack had")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for stage in STAGES if args.stage == "all" else (args.stage,):
        run(stage, args)


def run(stage: str, args: argparse.Namespace) -> None:
    work: Path = args.work / stage.replace("-", "_")
    if stage == "detector":
        from skinbatch.train import detector

        detector.train(args.data, work, "yolox-tiny", args.minutes or 50)
    elif stage == "faster-rcnn":
        from skinbatch.train import detector

        detector.train(args.data, work, "faster-rcnn-r18", args.minutes or 18)
    elif stage == "segmenter":
        from skinbatch.train import segmenter

        segmenter.train(args.data, work, args.minutes or 20)
    elif stage == "classifier":
        from skinbatch.train import classifier

        classifier.train(args.data, work, args.minutes or 20)
    else:
        from skinbatch.train import assemble

        assemble.assemble(args.work, args.pack_dir)


if __name__ == "__main__":
    main()
