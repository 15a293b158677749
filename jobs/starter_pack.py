"""Train, measure and ship the starter pack with skinbatch's public tools.

    python jobs/starter_pack.py train DIR             train the recipes starter_* into DIR/new-starter,
                                                      or resume
    python jobs/starter_pack.py measure OUT           print the card's numbers of `--pack` on the
                                                      validation photos
    python jobs/starter_pack.py measure-clones OUT    print the counts of `--pack` on cloned lesions,
                                                      on clear faces, and on acne_phone
    python jobs/starter_pack.py curve DIR             measure the benefit of more photos, in DIR/curve:
                                                      short trainings on shares of them
    python jobs/starter_pack.py ship DIR              round the weights of DIR/new-starter to bf16,
                                                      measure it, and make it the pack that comes
                                                      with skinbatch; it declares bf16 only if the
                                                      processor has it and the numbers stay
    python jobs/starter_pack.py ship DIR --pack starter-frcnn
                                                      measure DIR/starter-frcnn, which `skinbatch train
                                                      detector starter_frcnn` makes, and ship it beside
                                                      the starter pack, in fp32
    python jobs/starter_pack.py card DIR              measure the pack that comes with skinbatch again,
                                                      and write its card

The cards of `ship` and `card` include the results of `curve` if they are in DIR.

The photos are in DATA, a folder beside the repository. The segmenter and the detector continue from
the shipped pack's weights. The classifier begins with weights that
`python -m skinbatch.train.imagenet_backbone` fetches into the current folder. A stage that was not
trained again keeps its weights and its curves.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.measure_clones import measure_clones
from jobs.measure_precision import WAYS, measure_precision
from jobs.measure_stages import (
    PARTS,
    STAGES,
    measure_detector,
    measure_stages,
    run_skinbatch,
    starter_recipe,
    tone_table,
)
from jobs.measure_views import measure_views
from jobs.round_weights import round_weights
from skinbatch.evaluate import papers
from skinbatch.models.manifest import write_manifest
from skinbatch.models.pack import is_shipped, load_pack
from skinbatch.models.runtime.network import computes_bf16
from skinbatch.train.results.model_card import in_pack, reliability_in_pack

# The folder of the original photos. The recipes' photos are PHOTOS below the folder of the packs:
# links to these, and the clinical ones sorted (jobs/clinical_photos.py).
DATA = Path(__file__).parents[2] / "shared" / "data"
PHOTOS = "data"
NAME = "new-starter"
PLACE = Path(__file__).parents[1] / "skinbatch" / "models" / "packs" / "starter"
MOST_BYTES = 60_000_000
MOST_BYTES_OF_OTHERS = 40_000_000
DESCRIPTION = (
    "Small networks for skin, acne and six diseases: a research demonstration, not for clinical use"
)
LICENCE = "research demonstration, non-commercial, not for clinical use; see LICENSE.md"
MEASURED = "## Measured"
ABOUT = (
    "Measured by `python jobs/starter_pack.py measure OUT`, from pixels to tables, with 95 % bootstrap intervals over "
    "photos. If the whole pipeline finds no face in a photo, it gives no probabilities, and each of them counts as 0, so "
    "its AUC also depends on how well faces are found. The classifier alone is measured on the photos with a face."
)
TONES = """## By skin tone

The same photos, by the individual typology angle of the skin in the photo, which the light changes too. Intervals are
wide where photos are few."""
LIMITS = """## What it must not be used for

It is no medical device. Do not use it to diagnose, to decide on a treatment, to reassure anybody, to choose patients for
a trial, or to decide anything about a person. It is made to sort and describe large archives of photos, with people
who look at what it finds."""
FAILS = """## Where it fails

- It misses lesions on photos unlike its training photos, so a count of 0 does not mean clear skin (*Measured on other
  kinds of photos*).
- It counts some plain skin as acne: of copied patches of it, and on clear faces (the same table).
- On very severe acne its counts are far off (the count errors by severity).
- Its Hayashi grade is too high, because it counts all lesions, and the grade is for inflammatory ones.
- It gives grades to photos of hands, limbs and backs that it takes for faces (*Close-ups, faces and other parts of the
  body*).
- It names few of the photos of lupus, rosacea and actinic keratosis; of the others, often nothing is named (the recalls
  below).
- Its photos of seborrheic keratosis come from few collections, which it may have learned instead of the disease.
- Very light and dark skin is rare among its photos (*By skin tone*)."""
VIEWS = """## Close-ups, faces and other parts of the body

Measured by `python jobs/measure_views.py PHOTOS OUT` on held-out clinical photos, sorted by hand. Photos of a face or of nothing
but skin should have probabilities; hands, feet and backs should have no grade."""
CLONES = """## Measured on other kinds of photos

Measured by `python jobs/starter_pack.py measure-clones OUT` on lesions of ACNE04's validation part, and patches of plain skin,
cloned onto clear faces of CelebA that the detector was not trained on; then on held-out photos of both annotated sets. Boxes of
ACNE04 are noisy, so AP at IoU 0.3 and AP of centres mean more than AP at 0.5."""
FAILS_LIKE_STARTER = """## Where it fails

Where the starter pack fails, see its card; how the two detectors differ is in the second table below."""
SHARED = """## Measured

Segmenter and classifiers are the starter pack's, and its card has their numbers, which were measured in bf16; this pack computes
in fp32. The detector was measured by `python jobs/starter_pack.py ship DIR --pack starter-frcnn`, from pixels to tables, with
95 % bootstrap intervals over photos."""
PRECISIONS = """## Precisions

Measured by `python jobs/measure_precision.py PHOTOS OUT` on the photos of the first table, on a processor with bf16. The weights
were rounded to bf16 beforehand (`jobs/round_weights.py`), so both precisions have the same ones. The pack declares bf16 if,
against torch in fp32, grades are equal on 98 % of the photos, and Dice, AP50, the count error and the mean recall change by at
most 0.003, 0.003, 0.05 and 0.01."""
NOT_ROUNDED = """Without rounding the weights beforehand. Few photos decide the mean recall: each of the 12 of rosacea changes
it by 0.017."""
# Runtimes and precisions in which the pack is also measured before its weights are rounded.
AS_TRAINED = (WAYS[0], ("openvino", "bf16"))
MISSING = """## What is missing

These are the same numbers for a fifth of the photos that the pack was trained on. If they are good and those of the validation
photos are not, more photos of the same kind would help. If both are poor, longer training, a larger network or more exact
annotations would help."""
MORE = """## What more photos would bring

Measured by `python jobs/starter_pack.py curve DIR`: short trainings on shares of the photos, each with the same number of steps
and measured on the same validation photos. The pack itself was trained on all of them, for much longer.
The detector's photos include those of clear faces."""
# A card begins with this before it is measured.
STAGES_TABLE = "| stage | architecture |"
# The packs that come beside the starter pack, with their descriptions. Each card has the numbers of
# all of them side by side.
OTHERS = {
    "starter-frcnn": "The starter pack with Faster R-CNN as its detector: a research demonstration, not for clinical use"
}
PAPERS = (
    "The papers used other photos and conditions, so their numbers are goals, not baselines: "
    f"{papers.ACNE_NOTE}; {papers.FACES_NOTE}."
)
CURVE = "curve"
PRECISION = "precision"
# The steps of each training of a learning curve, an hour for all of them on two cores. The classifier
# has no curve: its classes have 24 to 120 photos, and no share of so few can be measured.
STEPS = {"segmenter": 300, "detector": 400}
SHARES = ("0.0625", "0.25", "1")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what", choices=("train", "measure", "measure-clones", "curve", "ship", "card")
    )
    parser.add_argument("folder", type=Path, help="folder of packs, checkpoints and measurements")
    parser.add_argument(
        "--pack", default="starter", help="pack to measure or ship (default: %(default)s)"
    )
    args = parser.parse_args()
    if args.what == "train":
        return train(args.folder)
    if args.what == "curve":
        return curve(args.folder)
    if args.what == "measure":
        print(measure(args.pack, _prepared(args.folder), args.folder))
    elif args.what == "measure-clones":
        print("\n".join(measure_clones([args.pack], DATA, args.folder)))
    elif args.what == "ship" and args.pack in OTHERS:
        ship_other(args.folder, args.pack)
    elif args.what == "ship":
        ship(args.folder)
    else:
        pack = load_pack(args.pack)
        write_card(pack.directory, args.pack, args.folder, pack.text("CARD.md") or "")
    return 0


def train(folder: Path) -> int:
    """Train one stage after the other.

    Returns the exit code of the first that fails, else 0.
    """
    photos = _prepared(folder)
    for stage in STAGES:
        if code := run_skinbatch(
            "train", stage, f"starter_{stage}", "--data", photos, "--out", folder
        ):
            return code
    return 0


def curve(folder: Path) -> int:
    """Run jobs/learning_curve.py for every stage.

    Returns the exit code of the first that fails, else 0.
    """
    script = Path(__file__).with_name("learning_curve.py")
    photos = _prepared(folder)
    for stage, steps in STEPS.items():
        recipe = starter_recipe(stage, photos)
        command = [
            sys.executable,
            script,
            recipe.file,
            folder / CURVE / stage,
            "--iterations",
            steps,
        ]
        command += ["--data", photos, "--shares", *SHARES]
        if code := subprocess.run([*map(str, command)], check=False).returncode:
            return code
    return 0


def _prepared(folder: Path) -> Path:
    """Return the recipes' photos, and sort them first if that has not been done."""
    photos = folder / PHOTOS
    script = Path(__file__).with_name("clinical_photos.py")
    if code := subprocess.run([sys.executable, script, DATA, photos], check=False).returncode:
        raise SystemExit(code)
    return photos


def measure(pack: str, photos: Path, out: Path) -> str:
    """Return the measurements of every stage as Markdown.

    Each stage runs from pixels to tables to `skinbatch evaluate`, on the validation photos of its
    recipe, and less of it on the photos that it was trained on.
    """
    valid, train = (measure_stages(pack, photos, out / part, part) for part in PARTS)
    views = measure_views(pack, photos, out / "views")
    own = load_pack(pack).name
    others = [name for name in ("starter", *OTHERS) if name != own and is_shipped(name)]
    clones = measure_clones([pack, *others], photos, out / "clones")
    head = ["", "| what | value | paper |", "|---|---|---|"]
    return "\n".join(
        [
            MEASURED,
            "",
            ABOUT,
            *head,
            *valid,
            "",
            PAPERS,
            "",
            TONES,
            "",
            *tone_table(out / "valid"),
            "",
            VIEWS,
            "",
            *views,
            "",
            CLONES,
            "",
            *clones,
            "",
            MISSING,
            *head,
            *train,
        ]
    )


def measure_other(pack: str, photos: Path, out: Path) -> str:
    """Return the measurements of a pack whose detector alone differs from the starter pack's."""
    valid, train = (measure_detector(pack, photos, out / part, part) for part in PARTS)
    clones = measure_clones(["starter", pack], photos, out / "clones")
    head = ["", "| what | value | paper |", "|---|---|---|"]
    return "\n".join(
        [SHARED, *head, *valid, "", PAPERS, "", CLONES, "", *clones, "", MISSING, *head, *train]
    )


def ship(folder: Path) -> None:
    """Replace the pack that comes with skinbatch by the new one, and keep only the old terms."""
    pack = load_pack((folder / NAME).resolve())
    pack.verify()
    before = load_pack("starter").manifest
    fresh, old = PLACE.with_name("starter.new"), PLACE.with_name("starter.old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    shutil.copyfile(PLACE / "LICENSE.md", fresh / "LICENSE.md")
    rounded = round_weights(pack, fresh)
    for stem in pack.weights:
        # A stage that was not trained again keeps its curves.
        curves = pack.directory / in_pack(stem)
        shutil.copyfile(curves if curves.exists() else PLACE / curves.name, fresh / curves.name)
    for picture in pack.directory.glob(reliability_in_pack("*")):
        shutil.copyfile(picture, fresh / picture.name)
    named = {
        "name": "starter",
        "version": before.version,
        "description": DESCRIPTION,
        "licence": LICENCE,
        "precision": None,  # until it is measured
    }
    manifest = rounded.model_copy(update=named)
    if manifest != before.model_copy(update={"precision": None}):  # not only measured again
        manifest = manifest.model_copy(update={"version": str(int(before.version) + 1)})
    write_manifest(manifest, fresh)
    size = _expect_small(fresh, MOST_BYTES)
    shutil.rmtree(folder / PRECISION, ignore_errors=True)
    if computes_bf16("cpu"):
        photos = _prepared(folder)
        trained = measure_precision(
            str(pack.directory), photos, folder / PRECISION / "trained", AS_TRAINED
        )
        precisions = measure_precision(str(fresh), photos, folder / PRECISION / "rounded")
        tables = "\n".join([*precisions.table, "", NOT_ROUNDED, "", *trained.table])
        (folder / PRECISION / "tables.md").write_text(tables, encoding="utf-8")
        declared = "bf16" if precisions.bf16_passes else None
        manifest = manifest.model_copy(update={"precision": declared})
        write_manifest(manifest, fresh)
    write_card(fresh, str(fresh), folder, pack.text("CARD.md") or "")
    load_pack(fresh.resolve()).verify()
    PLACE.rename(old)
    fresh.rename(PLACE)
    shutil.rmtree(old)
    print(f"{PLACE}: version {manifest.version}, {size / 1e6:.1f} MB of weights")


def ship_other(folder: Path, name: str) -> None:
    """Replace the pack `name`, which comes beside the starter pack, by `folder/name`."""
    pack = load_pack((folder / name).resolve())
    pack.verify()
    place = PLACE.with_name(name)
    fresh = PLACE.with_name(f"{name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(pack.directory, fresh)
    shutil.copyfile(PLACE / "LICENSE.md", fresh / "LICENSE.md")

    version = int(load_pack(name).manifest.version) + 1 if is_shipped(name) else 1
    named = {
        "version": str(version),
        "description": OTHERS[name],
        "licence": LICENCE,
        "precision": None,
    }
    write_manifest(pack.manifest.model_copy(update=named), fresh)
    size = _expect_small(fresh, MOST_BYTES_OF_OTHERS)
    write_card(fresh, str(fresh), folder, pack.text("CARD.md") or "")
    load_pack(fresh.resolve()).verify()

    shutil.rmtree(place, ignore_errors=True)
    fresh.rename(place)
    print(f"{place}: version {version}, {size / 1e6:.1f} MB of weights")


def _expect_small(folder: Path, most: int) -> int:
    """Return the size of a pack's weights in bytes. Raises SystemExit if it is above `most`."""
    size = sum((folder / name).stat().st_size for name in load_pack(folder.resolve()).files)
    if size > most:
        raise SystemExit(
            f"{folder}: {size / 1e6:.1f} MB of weights; at most {most / 1e6:.0f} MB are shipped"
        )
    return size


def write_card(place: Path, pack: str, folder: Path, before: str) -> None:
    """Write CARD.md in `place`.

    It has the measurements of `pack` and the gaps first, and then the text of the card `before`
    about the stages.
    """
    name, measured = load_pack(pack).name, folder / "measured"
    parts = [f"# {name}", LIMITS]
    if name in OTHERS:
        parts.append(FAILS_LIKE_STARTER)
        parts.append(measure_other(pack, _prepared(folder), measured))
    else:
        parts.append(FAILS)
        parts.append(measure(pack, _prepared(folder), measured))
        precisions = folder / PRECISION / "tables.md"
        if precisions.exists():
            parts.append(f"{PRECISIONS}\n\n{precisions.read_text()}")
        parts += _more_photos(folder, place)
    parts += ["## Stages", before[before.index(STAGES_TABLE) :]]
    (place / "CARD.md").write_text("\n\n".join(parts), encoding="utf-8")


def _more_photos(folder: Path, place: Path) -> Iterator[str]:
    """Yield Markdown of the learning curves that exist, and copy their pictures to `place`."""
    made = {stage: folder / CURVE / stage / "learning-curve.png" for stage in STEPS}
    made = {stage: picture for stage, picture in made.items() if picture.exists()}
    if made:
        yield MORE
    for stage, picture in made.items():
        name = f"more-photos-{stage}.png"
        shutil.copyfile(picture, place / name)
        yield f"{picture.with_suffix('.md').read_text(encoding='utf-8')}\n![{stage}: more photos]({name})"


if __name__ == "__main__":
    sys.exit(main())
