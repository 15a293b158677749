"""Sort the clinical photos for the starter pack: `python jobs/clinical_photos.py DATA OUT`.

DATA contains derm, derm_more, celebamask, acne04 and acne_phone. OUT gets links to every set in DATA,
`clinical`, and `acne_faces` with the faces that the detector is trained on:

    clinical/train/images/face-dermnet/rosacea/3602.jpg     a link to the photo
    clinical/train/masks/face-dermnet/rosacea/3602.png      the parts that are surely skin
    acne_faces/train/images/acne04/levle0_0.jpg
    acne_faces/train/masks/acne04/levle0_0.png

Photos are separated by what they show (face, skin, body), as listed in clinical_photos.csv beside
this file. Each was sorted by hand, from a small picture. `face` surely shows a part of the face,
`body` a hand, foot, limb, trunk or neck, and `skin` nothing but skin from any place. Photos from
inside the mouth, histology, collages and the like are left out. The part `valid` has a fifth of
each class and origin, with all photos of a patient, of neighbouring names and of one look.

Masks contain the numbers of CelebAMask-HQ, `body` and `unsure` (skinbatch.annotations.masks).
clinical_masks.py, beside this file, draws them.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs.clinical_masks import Masks
from skinbatch.annotations.annotated_photos import AnnotatedPhoto
from skinbatch.annotations.likeness import perceptual_groups
from skinbatch.annotations.split import split
from skinbatch.archive.formats import has_image_name
from skinbatch.train.shipped import find_recipe

LIST = Path(__file__).with_suffix(".csv")
USED = ("face", "skin", "body", "partly")
VALID_SHARE = 0.2
SEED = 2019


@dataclass(frozen=True, slots=True)
class Clinical:
    """Describe one photo of derm or derm_more.

    key: its path there. shows: see clinical_photos.csv.
    """

    key: str
    path: Path
    shows: str

    @property
    def kind(self) -> str:
        """Return the class, which is its folder there."""
        return self.path.parent.name

    @property
    def origin(self) -> str:
        """Return who took or published it."""
        name = self.path.name
        if name.startswith("pad_"):
            return "pad"
        if name.startswith("f17k_"):
            return "atlas"
        return "web" if self.kind == "seborrheic_keratosis_like" else "dermnet"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of derm, derm_more and celebamask")
    parser.add_argument("out", type=Path, help="folder to make or to complete")
    args = parser.parse_args()
    prepare(args.data, args.out)
    return 0


def prepare(data: Path, out: Path) -> None:
    """Link the sets of `data` into `out` and make `clinical` there. Existing files stay.

    Raises:
        SystemExit: clinical_photos.csv names a photo that is not in `data`.
    """
    out.mkdir(parents=True, exist_ok=True)
    for folder in sorted(data.iterdir()):
        link = out / folder.name
        if folder.is_dir() and not link.exists():
            link.symlink_to(folder.resolve())

    photos = read_list(data)
    kept_apart = _kept_apart(photos)
    masks = Masks(data, [photo.path for photo in photos if photo.shows == "skin"])
    made = 0
    for photo in photos:
        part = "valid" if photo.key in kept_apart else "train"
        name = Path(f"{photo.shows}-{photo.origin}", photo.kind, photo.path.name)
        image = out / "clinical" / part / "images" / name
        mask = out / "clinical" / part / "masks" / name.with_suffix(".png")
        made += _add(image, mask, photo, masks)
    print(
        f"{out / 'clinical'}: {len(photos)} photos, {len(kept_apart)} of them in `valid`; {made} masks made"
    )

    made, faces = 0, list(_acne_faces(data))
    for face in faces:
        name = Path(face.path.relative_to(data).parts[0], face.path.name)
        image = out / "acne_faces" / "train" / "images" / name
        mask = out / "acne_faces" / "train" / "masks" / name.with_suffix(".png")
        made += _add(image, mask, face, masks)
    print(f"{out / 'acne_faces'}: {len(faces)} photos; {made} masks made")


def _add(image: Path, mask: Path, photo: Clinical, masks: Masks) -> bool:
    """Link a photo and draw its mask. Returns False if the mask was there already."""
    if mask.exists():
        return False
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not image.is_symlink():
        image.symlink_to(photo.path.resolve())
    cv2.imwrite(str(mask), masks.of(photo.path, photo.shows, photo.origin))
    return True


def _acne_faces(data: Path) -> Iterator[Clinical]:
    """Yield the photos that the detector is trained on. Each shows a face or half of one.

    Without them, the segmenter takes many half faces for other parts of the body.
    """
    recipe = tomllib.loads(find_recipe("starter_detector").read_text(encoding="utf-8"))
    for source in recipe["data"]["train"]:
        left_out = set(source.get("leave_out", ()))
        for path in sorted((data / source["truth"]).iterdir()):
            if has_image_name(path.name) and path.stem not in left_out:
                yield Clinical(path.relative_to(data).as_posix(), path, "face")


def read_list(data: Path) -> list[Clinical]:
    """Return every photo of clinical_photos.csv that is used."""
    with open(LIST, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    photos = [
        Clinical(row["photo"], data / row["photo"], row["shows"])
        for row in rows
        if row["shows"] in USED
    ]
    missing = [str(photo.path) for photo in photos if not photo.path.is_file()]
    if missing:
        raise SystemExit(
            f"{LIST.name} names {len(missing)} photos that are not there, such as {missing[0]}"
        )
    return photos


def _kept_apart(photos: Sequence[Clinical]) -> set[str]:
    """Return the keys of the photos of the part `valid`."""
    known = [
        AnnotatedPhoto(
            photo.key, photo.path, photo.path, classes=(f"{photo.origin} {photo.path.parent}",)
        )
        for photo in photos
    ]
    valid = split(known, VALID_SHARE, groups_of(photos, perceptual_groups(known)), SEED)[1]
    return {photo.name for photo in valid}


def groups_of(photos: Sequence[Clinical], looks: Sequence[int]) -> list[Hashable]:
    """Return a group for every photo.

    Photos of a patient, of neighbouring names or of one look share a group.

    Args:
        photos: all photos that are to be split.
        looks: the number of each photo's look, from perceptual_groups.
    """
    leader = list(range(len(photos)))

    def find(n: int) -> int:
        while leader[n] != n:
            leader[n] = leader[leader[n]]
            n = leader[n]
        return n

    for members in (*_same(looks), *_same(map(_patient, photos)), *_neighbours(photos)):
        for n in members[1:]:
            leader[find(n)] = find(members[0])
    return [find(n) for n in range(len(photos))]


def _same(names: Iterable[Hashable]) -> Iterator[list[int]]:
    """Yield the places of each name, except for the name None."""
    places: dict[Hashable, list[int]] = defaultdict(list)
    for n, name in enumerate(names):
        if name is not None:
            places[name].append(n)
    yield from places.values()


def _patient(photo: Clinical) -> str | None:
    match = re.match(r"pad_(PAT_\d+)_", photo.path.name)
    return match[1] if match else None


def _neighbours(photos: Sequence[Clinical]) -> Iterator[list[int]]:
    """Yield blocks of DermNet's photos of a class in the order of their names, a fifth each.

    Neighbours may show one patient.
    """
    folders: dict[Path, list[int]] = defaultdict(list)
    for n, photo in enumerate(photos):
        if photo.origin == "dermnet":
            folders[photo.path.parent].append(n)
    for places in folders.values():
        places.sort(key=lambda n: photos[n].path.name)
        blocks = np.array_split(places, round(1 / VALID_SHARE))
        yield from (block.tolist() for block in blocks if len(block))


if __name__ == "__main__":
    sys.exit(main())
