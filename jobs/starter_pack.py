"""Train, measure and ship the starter pack with skinbatch's public tools.

    python jobs/starter_pack.py train DIR             train the recipes starter_* into DIR/new-starter,
                                                      or resume
    python jobs/starter_pack.py measure OUT           print the card's numbers of `--pack` on the
                                                      validation photos
    python jobs/starter_pack.py measure-clones OUT    print the counts of `--pack` on cloned lesions,
                                                      on clear faces, and on acne_phone
    python jobs/starter_pack.py curve DIR             measure the benefit of more photos, in DIR/curve:
                                                      short trainings on shares of them
    python jobs/starter_pack.py ship DIR              measure DIR/new-starter, and make it the pack
                                                      that comes with skinbatch
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
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.measure_clones import measure_clones
from jobs.measure_views import measure_views
from skinbatch.evaluate import papers
from skinbatch.models.manifest import write_manifest
from skinbatch.models.pack import is_shipped, load_pack
from skinbatch.train.fitting.parts import gather_part, parts_of
from skinbatch.train.photos.groups import TakenPhoto
from skinbatch.train.recipe import Recipe, read_recipe
from skinbatch.train.results.curves import draw_curves
from skinbatch.train.results.model_card import WORK, in_pack, reliability_in_pack
from skinbatch.train.shipped import find_recipe

# The folder of the original photos. The recipes' photos are PHOTOS below the folder of the packs:
# links to these, and the clinical ones sorted (jobs/clinical_photos.py).
DATA = Path(__file__).parents[2] / "shared" / "data"
PHOTOS = "data"
STAGES = ("segmenter", "detector", "classifier")
NAME = "new-starter"
PLACE = Path(__file__).parents[1] / "skinbatch" / "models" / "packs" / "starter"
MOST_BYTES = 60_000_000
DESCRIPTION = "Small networks for skin, acne and six diseases: a research demonstration, not for clinical use"
LICENCE = "research demonstration, non-commercial, not for clinical use; see LICENSE.md"
MEASURED = "## Measured"
ABOUT = (
    "Measured by `python jobs/starter_pack.py measure OUT`, from pixels to tables, with 95 % bootstrap intervals over "
    "photos. If the whole pipeline finds no face in a photo, it gives no probabilities, and each of them counts as 0, so "
    "its AUC also depends on how well faces are found. The classifier alone is measured on the photos with a face. "
    "Diseases are measured only on photos of derm_more and acne_phone, because the classifier was trained on others."
)
VIEWS = """## Close-ups, faces and other parts of the body

Measured by `python jobs/measure_views.py PHOTOS OUT` on held-out clinical photos, sorted by hand. Photos of a face or of nothing
but skin should have probabilities; hands, feet and backs should have no grade."""
CLONES = """## Measured on other kinds of photos

Measured by `python jobs/starter_pack.py measure-clones OUT` on lesions of ACNE04's validation part, and patches of plain skin,
cloned onto clear faces of CelebA that the detector was not trained on; then on held-out photos of both annotated sets. Boxes of
ACNE04 are noisy, so AP at IoU 0.3 and AP of centres mean more than AP at 0.5."""
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
PAPERS = (
    "The papers used other photos and conditions, so their numbers are goals, not baselines: "
    f"{papers.ACNE_NOTE}; {papers.FACES_NOTE}."
)
NONE = "none_of_them"
PARTS = ("valid", "train")
# Of the training photos, every fifth is measured.
TRAINED_STEP = 5
# The sets that the shipped classifier never saw: it is of edition 2, whose training photos were
# chosen from the other sets in another way than its recipe does now.
UNSEEN = ("derm_more", "acne_phone")
ACNE04 = "acne04/"
# The packs whose detectors are measured beside this one.
OTHERS = ("starter-frcnn",)
# The segmenter's source whose masks people drew, by its name in `gather.called`. The others' masks
# were drawn by machine.
DRAWN = "data/celebamask"
CURVE = "curve"
# The steps of each training of a learning curve: an eighth of the recipes' own, an hour for all of
# them on two cores. The classifier has no curve: its classes have 24 to 120 photos, and no share of
# so few can be measured.
STEPS = {"segmenter": 300, "detector": 400}
SHARES = ("0.0625", "0.25", "1")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "measure", "measure-clones", "curve", "ship", "card"))
    parser.add_argument("folder", type=Path, help="folder of packs, checkpoints and measurements")
    parser.add_argument("--pack", default="starter", help="pack to measure (default: %(default)s)")
    args = parser.parse_args()
    if args.what == "train":
        return train(args.folder)
    if args.what == "curve":
        return curve(args.folder)
    if args.what == "measure":
        print(measure(args.pack, args.folder))
    elif args.what == "measure-clones":
        print("\n".join(measure_clones([args.pack], DATA, args.folder)))
    elif args.what == "ship":
        ship(args.folder)
    else:
        write_card(PLACE, "starter", args.folder)
    return 0


def train(folder: Path) -> int:
    """Train one stage after the other.

    Returns the exit code of the first that fails, else 0.
    """
    photos = _prepared(folder)
    for stage in STAGES:
        if code := _skinbatch("train", stage, f"starter_{stage}", "--data", photos, "--out", folder):
            return code
    return 0


def curve(folder: Path) -> int:
    """Run jobs/learning_curve.py for every stage.

    Returns the exit code of the first that fails, else 0.
    """
    script = Path(__file__).with_name("learning_curve.py")
    photos = _prepared(folder)
    for stage, steps in STEPS.items():
        recipe = _recipe(stage, photos)
        command = [sys.executable, script, recipe.file, folder / CURVE / stage, "--iterations", steps]
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


def _skinbatch(*arguments: object) -> int:
    return subprocess.run([sys.executable, "-m", "skinbatch", *map(str, arguments)], check=False).returncode


def measure(pack: str, out: Path) -> str:
    """Return the measurements of every stage as Markdown.

    Each stage runs from pixels to tables to `skinbatch evaluate`, on the validation photos of its
    recipe, and less of it on the photos that it was trained on.
    """
    photos = _prepared(out)
    valid, train = (_measured(pack, photos, out / part, part) for part in PARTS)
    views = measure_views(pack, photos, out / "views")
    others = [name for name in OTHERS if is_shipped(name)]
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


def _measured(pack: str, photos: Path, out: Path, part: str) -> list[str]:
    shutil.rmtree(out, ignore_errors=True)
    taken = {stage: _taken(_recipe(stage, photos), part) for stage in STAGES}
    lesions = _evaluated("detector", _lesions(taken["detector"], out / "photos"), pack, out, "--map", "*=acne")
    masks = _evaluated("segmenter", _faces(taken["segmenter"], out / "faces"), pack, out, "--map", "neck=body")
    if part == "train":
        return [*_of_masks(masks), *_of_lesions(lesions)]

    apart = [option for name in _recipe("classifier", photos).data.apart for option in ("--apart", name)]
    unseen = [
        photo for photo in taken["classifier"] if photo.path.resolve().relative_to(DATA.resolve()).parts[0] in UNSEEN
    ]
    windows = _windows(unseen, out / "windows")
    classes = _evaluated("classifier", windows, pack, out, "--map", f"{NONE}=", *apart)
    return [*_of_masks(masks), *_of_lesions(lesions), *_of_classes(classes)]


def _recipe(stage: str, photos: Path) -> Recipe:
    return read_recipe(find_recipe(f"starter_{stage}"), stage, photos)


def _taken(recipe: Recipe, part: str) -> tuple[TakenPhoto, ...]:
    gathered = gather_part(recipe, parts_of(recipe)[-1])
    return gathered.valid if part == "valid" else gathered.train[::TRAINED_STEP]


def _lesions(photos: Sequence[TakenPhoto], folder: Path) -> Path:
    """Copy the detector's photos of ACNE04 with their annotations.

    Photos of the other set are measured with the clones.
    """
    folder.mkdir(parents=True)
    for taken in photos:
        if taken.source.startswith(ACNE04):
            for path in (taken.path, taken.photo.annotation):
                shutil.copyfile(path, folder / path.name)
    return folder


def _faces(photos: Sequence[TakenPhoto], folder: Path) -> Path:
    """Copy the segmenter's photos of whole faces with their masks, which people drew."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for taken in photos:
        if taken.source != DRAWN:
            continue
        assert taken.photo.masks is not None
        for kind, path in (("images", taken.path), ("masks", taken.photo.masks[0])):
            shutil.copyfile(path, folder / kind / path.name)
    return folder


def _windows(photos: Sequence[TakenPhoto], folder: Path) -> Path:
    """Write the classifier's inputs without watermarks, in a folder for each class."""
    for n, taken in enumerate(photos):
        (folder / (name := taken.classes[0] if taken.classes else NONE)).mkdir(parents=True, exist_ok=True)
        with Image.open(taken.path) as image:
            x1, y1, x2, y2 = (taken.view.crop or ((0, 0, 1, 1),))[0]
            width, height = image.size
            window = (round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height))
            image.convert("RGB").crop(window).save(folder / name / f"{n:04d}.png")
    return folder


def _evaluated(stage: str, truth: Path, pack: str, out: Path, *options: str) -> dict[str, Any]:
    """Return the report of `skinbatch evaluate` about a folder that was scored with the pack."""
    photos = truth / "images" if (truth / "images").is_dir() else truth
    scored, found = out / f"{stage}-scored", out / stage
    for command in (
        ("score", photos, scored, "--pack", pack, "--save-masks", "--engine", "local"),
        ("evaluate", scored, truth, "--out", found, *options),
    ):
        if code := _skinbatch(*command):
            raise SystemExit(code)
    evaluation: dict[str, Any] = json.loads((found / "evaluation.json").read_text(encoding="utf-8"))
    return evaluation


def _of_masks(found: dict[str, Any]) -> Iterator[str]:
    part = found["all"]["masks"]
    for name in ("skin", "nose"):
        yield _row(f"{name}: Dice, {part['photos']} faces", part["classes"][name]["dice"], papers.DICE[name])


def _of_lesions(found: dict[str, Any]) -> Iterator[str]:
    part = found["all"]["lesions"]
    yield _row(f"acne: AP50, {part['photos']} photos", part["detection"]["all boxes"]["500"]["ap50"], papers.AP50)
    groups = {"": part} | {name: group["lesions"] for name, group in found["slices"]["severity"].items()}
    for name, group in groups.items():
        own = next(error for error in group["count_error"] if error["own"])
        what = f"count error (MAE) at {own['threshold']:g}{f', {name}' if name else ''}, {group['photos']} photos"
        paper = papers.COUNT_MAE.get(name) if name else papers.COUNT_ERROR["mae"]
        yield _row(what, own["mae"], paper, digits=2)


def _of_classes(found: dict[str, Any]) -> Iterator[str]:
    """Yield the rows about classes.

    They cover the whole pipeline, where a photo without a face has probability 0, and the
    classifier over photos with a face.
    """
    part = next(value for name, value in found["all"].items() if name.startswith("classes"))
    without = f" without {', '.join(part['apart'])}" if part["apart"] else ""
    faceless = {"mean": part["without_face"], **part["without_face_of_class"]}
    ways = {", whole pipeline": part} if part["without_face"] else {"": part}
    if "with_face" in part:
        ways[", classifier alone"] = part["with_face"]
    for name in ("mean", *part["of_class"]):
        for title, key in (("recall", "recall"), ("AUC", "auc")):
            for way, numbers in ways.items():
                photos = f"{numbers['of_class'].get(name, numbers['photos'])} photos"
                if numbers is not part:
                    photos += " with a face"
                elif part["without_face"]:
                    photos += f", {faceless[name]} of them without a face"
                what = f"diseases{way}: mean {title}{without}" if name == "mean" else f"{name}{way}: {title}"
                yield _row(f"{what}, {photos}", numbers["classes"][name][key])


def _row(what: str, number: dict[str, float | None], paper: float | None = None, digits: int = 3) -> str:
    beside = "" if paper is None else f"{paper:.{digits}f}"
    if number["value"] is None:  # a class without photos
        return f"| {what} | – | {beside} |"
    interval = f"({number['low']:.{digits}f} to {number['high']:.{digits}f})"
    return f"| {what} | {number['value']:.{digits}f} {interval} | {beside} |"


def ship(folder: Path) -> None:
    """Replace the pack that comes with skinbatch by the new one, and keep only the old terms."""
    pack = load_pack((folder / NAME).resolve())
    pack.verify()
    size = sum((pack.directory / name).stat().st_size for name in pack.files)
    if size > MOST_BYTES:
        raise SystemExit(
            f"{pack.directory}: {size / 1e6:.1f} MB of weights; at most {MOST_BYTES / 1e6:.0f} MB are shipped"
        )
    before = load_pack("starter").manifest
    fresh, old = PLACE.with_name("starter.new"), PLACE.with_name("starter.old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for path in (*map(pack.directory.joinpath, pack.files), PLACE / "LICENSE.md"):
        shutil.copyfile(path, fresh / path.name)
    for stem in pack.weights:
        if not (folder / WORK / stem).is_dir():  # not trained again
            shutil.copyfile(PLACE / in_pack(stem), fresh / in_pack(stem))
            continue

        points = _points(folder / WORK / stem)
        title = f"{stem}, {points[-1]['step']:,} steps, {points[-1]['minutes']:.3g} minutes"
        draw_curves(points, title, fresh / in_pack(stem))
    for picture in pack.directory.glob(reliability_in_pack("*")):
        shutil.copyfile(picture, fresh / picture.name)
    named = {"name": "starter", "version": before.version, "description": DESCRIPTION, "licence": LICENCE}
    manifest = pack.manifest.model_copy(update=named)
    if manifest != before:  # not only measured again
        manifest = manifest.model_copy(update={"version": str(int(before.version) + 1)})
    write_manifest(manifest, fresh)
    write_card(fresh, str(pack.directory), folder)
    load_pack(fresh.resolve()).verify()
    PLACE.rename(old)
    fresh.rename(PLACE)
    shutil.rmtree(old)
    print(f"{PLACE}: version {manifest.version}, {size / 1e6:.1f} MB of weights")


def _points(work: Path) -> list[dict[str, float]]:
    """Return the curve that a training wrote."""
    lines = (work / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def write_card(place: Path, pack: str, folder: Path) -> None:
    """Write CARD.md in `place`.

    It has the measurements and the gaps first, and then the text of the card of `pack` about its
    stages.
    """
    said = load_pack(pack).text("CARD.md") or ""
    parts = [
        "# starter",
        measure(pack, folder / "measured"),
        *_more_photos(folder, place),
        "## Stages",
        said[said.index(STAGES_TABLE) :],
    ]
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
