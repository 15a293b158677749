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

Masks contain the numbers of CelebAMask-HQ, `body` and `unsure` (skinbatch.annotations.masks). They
are drawn by machine: from the colours of skin, learned from the masks of CelebAMask-HQ and from the
`skin` photos, and by the starter pack's segmenter if a face is visible. Where these disagree or are
unsure, and on watermarks, the mask is unsure.
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
from numpy.typing import NDArray
from PIL import Image
from sklearn.ensemble import HistGradientBoostingClassifier

from skinbatch.annotations.likeness import perceptual_groups
from skinbatch.annotations.masks import BODY, NOSE, SKIN, UNSURE
from skinbatch.annotations.photos import AnnotatedPhoto
from skinbatch.annotations.split import split
from skinbatch.archive.formats import has_image_name
from skinbatch.config import ModelSettings
from skinbatch.models.base import Segmenter
from skinbatch.models.build import build_segmenter
from skinbatch.models.pack import load_pack
from skinbatch.train.shipped import find_recipe

Pixels = NDArray[np.uint8]
Shares = NDArray[np.float32]

LIST = Path(__file__).with_suffix(".csv")
USED = ("face", "skin", "body", "partly")
VALID_SHARE = 0.2
SEED = 2019
BACKGROUND = 0
# The longer side of photos while masks are made, in pixels.
SIDE = 240
# A pixel is surely skin if its colour's chance of skin is over the first, and surely not skin if it
# is under the second.
SURELY, SURELY_NOT = 0.8, 0.06
# The largest lesion, as a share of the photo. Lesions are holes in the skin.
MOST_HOLE = 0.12
# The publishers' marks by origin: x1 y1 x2 y2 in shares of the photo.
MARKS = {"dermnet": (0.0, 0.74, 0.42, 1.0), "atlas": (0.0, 0.86, 0.16, 1.0)}
_LOOKED_AT = 400
_PIXELS = 250


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
    masks = _Masks(data, photos)
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


def _add(image: Path, mask: Path, photo: Clinical, masks: _Masks) -> bool:
    """Link a photo and draw its mask. Returns False if the mask was there already."""
    if mask.exists():
        return False
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not image.is_symlink():
        image.symlink_to(photo.path.resolve())
    cv2.imwrite(str(mask), masks.of(photo))
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
    found = re.match(r"pad_(PAT_\d+)_", photo.path.name)
    return found[1] if found else None


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


class _Masks:
    """Draw the masks of photos: the parts that are surely skin."""

    def __init__(self, data: Path, photos: Sequence[Clinical]) -> None:
        pack = load_pack("starter")
        weights = pack.weights_file("segmenter")
        self._segmenter: Segmenter = build_segmenter(
            pack.segmenter, weights, "cpu", ModelSettings()
        )
        self._colours = _skin_colours(data, [photo for photo in photos if photo.shows == "skin"])

    def of(self, photo: Clinical) -> Pixels:
        """Return the (height, width) mask of a photo."""
        rgb = _read(photo.path)
        height, width = rgb.shape[:2]
        if photo.shows == "skin":
            mask: Pixels = np.full((height, width), SKIN, np.uint8)
        else:
            small = _shrunk(rgb)
            chance = self._colours.predict_proba(_features(small).reshape(-1, _FEATURES))[:, 1]
            chance = chance.reshape(small.shape[:2]).astype(np.float32)
            chance = np.asarray(cv2.GaussianBlur(chance, (0, 0), 1.5))
            found = (
                self._with_face(rgb, chance)
                if photo.shows == "face"
                else _with_body(chance, photo.shows)
            )
            mask = np.asarray(
                cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8
            )
        mask[_plain(rgb) & (mask != BACKGROUND)] = UNSURE
        if photo.origin in MARKS:
            x1, y1, x2, y2 = MARKS[photo.origin]
            mask[round(y1 * height) : round(y2 * height), round(x1 * width) : round(x2 * width)] = (
                UNSURE
            )
        return mask

    def _with_face(self, rgb: Pixels, chance: Shares) -> Pixels:
        """Return skin where both methods agree, or by colour if the segmenter sees no face."""
        seen = self._segmenter([rgb])[0]
        names = self._segmenter.classes
        size = chance.shape[1], chance.shape[0]
        parts = {name: _grown(seen == names.index(name), size) for name in ("skin", "nose")}
        affectable = parts["skin"] | parts["nose"]
        blind = affectable.mean() < 0.5 * (chance > SURELY).mean()

        mask = np.full(chance.shape, UNSURE, np.uint8)
        mask[(chance < SURELY_NOT) & ~affectable] = BACKGROUND
        mask[(chance > SURELY) & (affectable | blind)] = SKIN
        mask[affectable & (chance > 0.5)] = SKIN
        mask[parts["nose"] & (chance > 0.5)] = NOSE
        rim = cv2.dilate(parts["nose"].astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        mask[rim & ~parts["nose"]] = UNSURE
        holes = _holes(np.isin(mask, (SKIN, NOSE)), MOST_HOLE)
        mask[holes & (mask == BACKGROUND)] = UNSURE  # eyes and lips, or lesions
        return _without_edges(mask)


def _with_body(chance: Shares, shows: str) -> Pixels:
    """Return skin by its colour alone. Holes in it are lesions and count as skin."""
    kind = BODY if shows == "body" else SKIN
    mask = np.full(chance.shape, UNSURE, np.uint8)
    mask[chance < SURELY_NOT] = BACKGROUND
    mask[chance > SURELY] = kind
    mask[_holes(mask == kind, MOST_HOLE)] = kind
    return _without_edges(mask)


def _holes(region: NDArray[np.bool_], most: float) -> NDArray[np.bool_]:
    """Return the holes of a region, each at most this share of the photo."""
    closed = cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(
        (closed == 0).astype(np.uint8), connectivity=4
    )
    height, width = region.shape
    left, top, right, bottom = (
        stats[:, cv2.CC_STAT_LEFT],
        stats[:, cv2.CC_STAT_TOP],
        stats[:, cv2.CC_STAT_LEFT] + stats[:, cv2.CC_STAT_WIDTH],
        stats[:, cv2.CC_STAT_TOP] + stats[:, cv2.CC_STAT_HEIGHT],
    )
    inside = (left > 0) & (top > 0) & (right < width) & (bottom < height)
    small = stats[:, cv2.CC_STAT_AREA] <= most * region.size
    chosen = inside & small & (np.arange(count) > 0)
    return np.asarray(chosen[numbers] | ((closed > 0) & ~region), np.bool_)


def _plain(rgb: Pixels) -> NDArray[np.bool_]:
    """Return where a photo was padded with one colour."""
    kernel = np.ones((15, 15), np.uint8)
    darkest, lightest = cv2.erode(rgb, kernel), cv2.dilate(rgb, kernel)
    flat = (lightest.astype(np.int16) - darkest).max(axis=2) <= 2
    return np.asarray(cv2.dilate(flat.astype(np.uint8), kernel) > 0, np.bool_)


def _without_edges(mask: Pixels) -> Pixels:
    """Mark a few pixels between two classes as unsure."""
    inner = cv2.erode(mask, np.ones((5, 5), np.uint8))
    outer = cv2.dilate(mask, np.ones((5, 5), np.uint8))
    return np.where(inner == outer, mask, UNSURE).astype(np.uint8)


def _grown(region: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray(
        cv2.resize(region.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0, np.bool_
    )


def _skin_colours(data: Path, skin: Sequence[Clinical]) -> HistGradientBoostingClassifier:
    """Train a model that recognises skin by a pixel's colour and its neighbours' colours."""
    rng = np.random.default_rng(SEED)
    features, labels = [], []
    faces = sorted((data / "celebamask" / "images").iterdir())
    for path in (faces[n] for n in np.linspace(0, len(faces) - 1, _LOOKED_AT).astype(int)):
        small = _shrunk(_read(path))
        with Image.open(data / "celebamask" / "masks" / f"{path.stem}.png") as mask:
            numbers = np.asarray(mask, np.uint8)
        size = small.shape[1], small.shape[0]
        numbers = np.asarray(cv2.resize(numbers, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        # Eyes, brows, lips and ears count as neither.
        known = np.isin(numbers, (0, 1, 2, 13, 14, 17, 18))
        places = rng.choice(np.flatnonzero(known), _PIXELS, replace=False)
        features.append(_features(small).reshape(-1, _FEATURES)[places])
        labels.append(np.isin(numbers.ravel()[places], (1, 2, 17)))
    for photo in (skin[n] for n in np.linspace(0, len(skin) - 1, _LOOKED_AT).astype(int)):
        small = _shrunk(_read(photo.path))
        height, width = small.shape[:2]
        above_marks = round(MARKS["dermnet"][1] * height) * width
        places = rng.choice(above_marks, _PIXELS // 2, replace=False)
        features.append(_features(small).reshape(-1, _FEATURES)[places])
        labels.append(np.ones(len(places), np.bool_))
    model = HistGradientBoostingClassifier(max_iter=150, learning_rate=0.1, random_state=SEED)
    return model.fit(np.concatenate(features), np.concatenate(labels))


_BLURS = (1.0, 4.0, 12.0)
_FEATURES = 3 * len(_BLURS) + 1


def _features(rgb: Pixels) -> Shares:
    """Return (h, w, _FEATURES): the colours of a pixel and its surroundings, and the roughness."""
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    blurred = [np.asarray(cv2.GaussianBlur(lab, (0, 0), sigma)) for sigma in _BLURS]
    light = lab[..., 0]
    variance = cv2.GaussianBlur(light**2, (0, 0), 3) - cv2.GaussianBlur(light, (0, 0), 3) ** 2
    return np.concatenate([*blurred, np.sqrt(np.maximum(variance, 0))[..., None]], axis=2).astype(
        np.float32
    )


def _shrunk(rgb: Pixels) -> Pixels:
    height, width = rgb.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _read(path: Path) -> Pixels:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise SystemExit(f"{path}: cannot be decoded")
    return np.ascontiguousarray(bgr[..., ::-1])


if __name__ == "__main__":
    sys.exit(main())
