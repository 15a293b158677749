"""Define the commands about models: `skinbatch pack ...` and `skinbatch explain`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from skinbatch.cli.options import ConfigFile, Dest, Json, Photos, Scoring, print_json
from skinbatch.config import load_config

PackNamed = Annotated[
    str,
    typer.Argument(
        metavar="[PACK]", help="Name of a pack, its folder, or s3://bucket/prefix/NAME."
    ),
]
Settings = Annotated[
    Path | None,
    typer.Option("--settings", metavar="FILE", help="A run's settings, for [storage] with s3://."),
]

pack_app = typer.Typer(
    help="List, show, verify and import packs: the models of a scoring, with their hashes.",
    no_args_is_help=True,
)


class Method(StrEnum):
    """Choose what `explain` draws."""

    GRADCAM = "gradcam"
    GUIDED = "guided"
    BOTH = "both"


@pack_app.command("list")
def pack_list(as_json: Json = False) -> None:
    """List the packs that come with skinbatch and those in the packs folder."""
    from skinbatch.models.pack import own_packs, shipped_packs

    own, faults = own_packs()
    packs = [
        {"name": p.name, "description": p.manifest.description, "directory": str(p.directory)}
        for p in [*shipped_packs(), *own]
    ]
    for fault in faults:
        typer.echo(f"skinbatch: not usable: {fault}", err=True)
    if as_json:
        print_json(packs)
    else:
        for p in packs:
            print(f"{p['name']:12} {p['description']}")


@pack_app.command("show")
def pack_show(
    name: PackNamed = "starter", settings: Settings = None, as_json: Json = False
) -> None:
    """Show the architectures, classes, input sizes, parameters, licence and card of a pack."""
    from skinbatch.models.pack import load_pack

    pack = load_pack(name, load_config(settings).storage)
    if as_json:
        print_json(pack.describe())
    else:
        print(pack.describe_text())


@pack_app.command("verify")
def pack_verify(
    name: PackNamed = "starter", settings: Settings = None, as_json: Json = False
) -> None:
    """Check every file of a pack against its recorded hash.

    For a pack on S3, both the files there and the local copy are checked.
    """
    from skinbatch.models.pack import load_pack
    from skinbatch.models.pack_cache import verify_origin

    storage = load_config(settings).storage
    pack = load_pack(name, storage)
    if pack.address.startswith("s3://"):
        verify_origin(pack.address, pack.files, storage)
    pack.verify()
    if as_json:
        print_json(
            {
                "name": pack.name,
                "address": pack.address,
                "directory": str(pack.directory),
                "weights": pack.weights,
            }
        )
    else:
        print(f"{pack.address}: every file has its recorded hash")


@pack_app.command("import")
def pack_import(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The pack to make or to extend.")],
    stage: Annotated[str, typer.Option("--stage", help="segmenter, detector or classifier.")],
    arch: Annotated[
        str,
        typer.Option(
            "--arch",
            help="A name from `skinbatch pack architectures`, or timm:NAME for any of timm's.",
        ),
    ],
    weights: Annotated[
        Path, typer.Option("--weights", metavar="FILE", help=".pth, .ckpt, .safetensors or .onnx.")
    ],
    base: Annotated[
        str | None, typer.Option("--base", help="Pack that supplies the missing stages.")
    ] = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="TOML with fields of the stage; for `mmdet` also its config.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            "--classes", help="a,b,c in the network's order; or face-parsing, celebamask-hq."
        ),
    ] = None,
    input_kind: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="What the model sees: image, crop (the face) or masked_crop. (default: crop)",
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            "--head", help="Name of a classifier; its columns begin with it. (default: disease)"
        ),
    ] = None,
    dest: Annotated[
        str | None,
        typer.Option(
            "--dest", help="Folder or s3://bucket/prefix of packs. (default: ~/.skinbatch/packs)"
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            "--prefix",
            help="Beginning of the layers' names, if a checkpoint holds several networks.",
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Terms of the weights, for the card.")
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Add your own weights to a pack, as a stage.

    The weights are checked, tried on a photo and hashed; nothing in them is executed.

    The command prints how it read the weights (classes, layout, colours, layers) and the source of
    each answer: the file, a setting, or an assumption that a setting changes.

    Write fields of the stage into a TOML file for --config, such as layout = "rtdetr", outputs =
    "softmax", mean = [0.5, 0.5, 0.5].
    """
    from skinbatch.models.assemble import grow_pack
    from skinbatch.models.importing import Import

    names = tuple(part.strip() for part in classes.split(",")) if classes is not None else None
    fields = {"input": input_kind, "head": head}
    imported = Import(stage, arch, weights, tuple(config or ()), names, fields, prefix)
    pack, findings = grow_pack(
        name, imported, dest=dest, base=base, licence=licence, storage=load_config(settings).storage
    )
    if as_json:
        print_json(pack.describe() | {"findings": [finding.as_json() for finding in findings]})
        return

    print(f"pack {pack.name}, {pack.address}")
    for stem, described in pack.stages.items():
        print(f"  {stem:20} {described.arch}, {', '.join(described.classes)}")
    print(f"How {weights.name} was read, and why:")
    for finding in findings:
        print(f"  {finding.what:20} {finding.value}  ({finding.source})")
    assumed = [finding for finding in findings if finding.what == "classes" and finding.is_assumed]
    for finding in assumed:
        typer.echo(
            f"skinbatch: no --classes: the {stage}'s outputs are assumed to be, in this order, {finding.value}",
            err=True,
        )
    if pack.lacks:
        print(
            f"It has no {' and no '.join(pack.lacks)} yet: import one, or import with --base starter."
        )
    else:
        where = name if dest is None else pack.address
        print(f"Next: skinbatch score PHOTOS OUT --pack {where}")


@pack_app.command("architectures")
def pack_architectures(as_json: Json = False) -> None:
    """List the names that `pack import --arch` takes, one per line."""
    from skinbatch.models.architectures import ARCHITECTURES, public_names

    public = {stage: public_names(stage) for stage in ARCHITECTURES}
    if as_json:
        print_json(public)
        return
    for names in public.values():
        for name in names:
            print(name)


@pack_app.command("anchors")
def pack_anchors(
    truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH",
            help="Annotated photos with boxes, in any supported format: VOC, COCO, YOLO, CVAT …",
        ),
    ],
    anchors: Annotated[int, typer.Option("--anchors", "-k", min=1, help="Number of anchors.")] = 9,
    size: Annotated[
        int | None,
        typer.Option(
            "--size", help="Long side of the network's input, pixels. (default: FILE's, else 640)"
        ),
    ] = None,
    max_upscale: Annotated[
        float | None,
        typer.Option(
            "--max-upscale",
            help="Largest factor to scale up smaller photos. (default: FILE's, else 1.0)",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="TOML for `pack import --config`; only [anchors] changes.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="PNG", help="Plot of mean IoU against k.")
    ] = None,
    photos: Photos = None,
    as_json: Json = False,
) -> None:
    """Fit anchors to the boxes of annotated photos: k-means with distance 1 - IoU.

    Boxes are scaled as for a detector that sees whole photos. If yours sees faces, give photos of
    single faces.
    """
    from skinbatch.train.anchor_report import report_anchors

    report = report_anchors(
        truth, anchors, size=size, max_upscale=max_upscale, output=output, plot=plot, photos=photos
    )
    if as_json:
        print_json(report.as_json())
    else:
        print(report.as_text())


def explain(
    dest: Dest,
    image_id: Annotated[
        str, typer.Argument(metavar="IMAGE_ID", help="The photo, as in the images table.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PNG", help="Picture to write.")
    ] = Path("explanation.png"),
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to explain. (default: the most probable)")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option("--head", help="Classifier to explain. (default: the pack's first)"),
    ] = None,
    method: Annotated[
        Method,
        typer.Option(
            "--method", help="Grad-CAM, guided back-propagation (ReLU networks), or both."
        ),
    ] = Method.BOTH,
    pack: Annotated[
        str | None,
        typer.Option("--pack", help="Where the scoring's pack is now. (default: where it was)"),
    ] = None,
    scoring: Scoring = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Draw which parts of a photo made a classifier choose a class.

    The picture shows the photo beside two maps of these parts: Grad-CAM and guided back-propagation.
    """
    from skinbatch.reading import destination_store
    from skinbatch.report.explain import Question
    from skinbatch.report.explain import explain as run
    from skinbatch.report.explain_figure import write_figure

    settings = load_config(config)
    question = Question(image_id, class_name, head, method.value, pack)
    explanation = run(destination_store(dest, settings.storage), question, settings, scoring)
    write_figure(explanation, output)
    if as_json:
        print_json(explanation.as_json() | {"written": str(output)})
        return
    ranked = sorted(explanation.probabilities.items(), key=lambda item: -item[1])
    for name, probability in ranked:
        print(f"{'>' if name == explanation.class_name else ' '} {probability:.3f}  {name}")
    for note in explanation.notes:
        print(f"not drawn: {note}")
    print(f"wrote {output}")
