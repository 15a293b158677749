import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from skinbatch.demo import Planted, count_found, write_demo_archive
from skinbatch.tables.schema import BOXES

Archive = tuple[Path, list[Planted]]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("demo") / "photos"
    return folder, write_demo_archive(folder, photos=8)


def photos_of(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Return the displayed pixels by image_id of every photo that is not cut off."""
    contents = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("portrait-*")}
    for shard in folder.rglob("*.tar"):
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and not member.name.endswith(".json"):
                    contents[f"{shard.relative_to(folder)}/{member.name}"] = file.read()
    images = {
        name: ImageOps.exif_transpose(Image.open(io.BytesIO(c))) for name, c in contents.items()
    }
    return {name: np.asarray(image.convert("RGB")) for name, image in images.items()}


def boxes_of(*rows: tuple[str, float, float, float, float, float, bool]) -> pa.Table:
    full = [
        {
            **dict(zip(("image_id", "x1", "y1", "x2", "y2", "score", "counted"), row, strict=True)),
            "box_id": n,
            "label": "a",
        }
        for n, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(full, schema=BOXES)


def test_the_archive_mixes_formats_folders_and_a_shard(archive: Archive) -> None:
    folder, _ = archive
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert names == [
        "shards/portraits-000.tar",
        "visit-1/00000/portrait-000.jpg",
        "visit-1/00001/portrait-006.jpg",
        "visit-1/cut-off.jpg",
        "visit-2/00000/portrait-001.png",
        "visit-2/00000/portrait-004.png",
        "visit-3/00000/portrait-002.webp",
        "visit-3/00000/portrait-005.webp",
    ]
    with tarfile.open(folder / names[0]) as tar:
        assert tar.getnames() == [
            "portrait-003.jpg",
            "portrait-003.json",
            "portrait-007.png",
            "portrait-007.json",
        ]


def test_one_file_is_cut_off(archive: Archive) -> None:
    with pytest.raises(OSError, match="truncated"):
        Image.open(archive[0] / "visit-1/cut-off.jpg").load()


def test_the_truth_stands_beside_the_archive_not_in_it(archive: Archive) -> None:
    folder, planted = archive
    truth = json.loads((folder.parent / "truth.json").read_text())
    assert [Planted(**lesion) for lesion in truth] == planted
    assert len(planted) > 30


def test_every_lesion_is_redder_than_the_skin_around_it_where_the_truth_says(
    archive: Archive,
) -> None:
    folder, planted = archive
    photos = photos_of(folder)
    for lesion in planted:
        pixels = photos[lesion.image_id].astype(np.float64)
        redness = pixels[:, :, 0] - pixels[:, :, 1]
        x, y = round((lesion.x1 + lesion.x2) / 2), round((lesion.y1 + lesion.y2) / 2)
        r = round((lesion.x2 - lesion.x1) / 2)
        rows, columns = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
        away = np.hypot(rows - y, columns - x) / r
        inside, around = redness[away < 0.6].mean(), np.median(redness[(away > 1.2) & (away < 1.6)])
        assert inside > around + 4, lesion


def test_lesions_have_the_size_of_real_ones_and_do_not_touch(archive: Archive) -> None:
    folder, planted = archive
    photos = photos_of(folder)
    for lesion in planted:
        scale = min(photos[lesion.image_id].shape[:2]) / 640
        assert 14 * scale <= lesion.x2 - lesion.x1 <= 29 * scale
        for other in planted:
            if other.image_id == lesion.image_id and other != lesion:
                assert (
                    abs(other.x1 - lesion.x1) > 5 * scale or abs(other.y1 - lesion.y1) > 5 * scale
                )


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    archive: Archive, tmp_path: Path
) -> None:
    folder, planted = archive
    again = write_demo_archive(tmp_path / "again" / "photos", photos=2)
    assert again == [
        lesion for lesion in planted if lesion.image_id.endswith(("000.jpg", "001.png"))
    ]
    same = "visit-2/00000/portrait-001.png"
    assert (tmp_path / "again/photos" / same).read_bytes() == (folder / same).read_bytes()
    assert write_demo_archive(tmp_path / "other" / "photos", photos=2, seed=1) != again


def test_writing_it_again_leaves_the_files_alone(tmp_path: Path) -> None:
    write_demo_archive(tmp_path / "photos", photos=1)
    photo = tmp_path / "photos/visit-1/00000/portrait-000.jpg"
    before = photo.stat().st_mtime_ns
    write_demo_archive(tmp_path / "photos", photos=1)
    assert photo.stat().st_mtime_ns == before


def test_a_counted_box_over_a_lesion_finds_it() -> None:
    planted = [
        Planted("a", 10, 10, 30, 30),
        Planted("a", 100, 100, 120, 120),
        Planted("b", 10, 10, 30, 30),
    ]
    boxes = boxes_of(
        ("a", 12, 12, 33, 33, 0.9, True),
        ("b", 60, 60, 80, 80, 0.9, True),
        ("c", 10, 10, 30, 30, 0.9, True),
    )
    assert count_found(boxes, planted) == (1, 3)


def test_boxes_that_do_not_count_find_nothing() -> None:
    assert count_found(
        boxes_of(("a", 10, 10, 30, 30, 0.9, False)), [Planted("a", 10, 10, 30, 30)]
    ) == (0, 1)


def test_two_boxes_over_one_lesion_find_it_once() -> None:
    boxes = boxes_of(("a", 10, 10, 30, 30, 0.9, True), ("a", 11, 11, 31, 31, 0.8, True))
    assert count_found(boxes, [Planted("a", 10, 10, 30, 30)]) == (1, 1)


def test_a_box_over_the_whole_face_finds_nothing() -> None:
    assert count_found(
        boxes_of(("a", 0, 0, 200, 200, 0.9, True)), [Planted("a", 10, 10, 30, 30)]
    ) == (0, 1)
