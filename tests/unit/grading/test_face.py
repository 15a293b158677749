import numpy as np
import pytest
from numpy.typing import NDArray

from skinbatch.grading.face import MARGIN, Face, find_face, skin_in_crop

CLASSES = ("background", "skin", "nose")
LabelMap = NDArray[np.uint8]


def blank(height: int = 100, width: int = 100) -> LabelMap:
    return np.zeros((height, width), np.uint8)


def frontal(nose_x: int = 50) -> LabelMap:
    """Return skin from 20 to 80 each way, with a nose of 8 x 12 around nose_x."""
    labels = blank()
    labels[20:80, 20:80] = 1
    labels[44:56, nose_x - 4 : nose_x + 4] = 2
    return labels


def face_of(labels: LabelMap, scale: float = 10.0) -> Face:
    return find_face(
        labels, CLASSES, round(labels.shape[1] * scale), round(labels.shape[0] * scale)
    )


def test_the_crop_is_in_pixels_of_the_photo_with_a_margin() -> None:
    face = face_of(frontal())
    margin = round(600 * MARGIN)
    assert face.crop == (200 - margin, 200 - margin, 800 + margin, 800 + margin)
    assert face.nose == pytest.approx((500, 500))
    assert face.skin_fraction == pytest.approx(0.36)
    assert (face.found, face.faces) == (True, 1)


def test_the_crop_stays_inside_the_photo_also_when_it_is_stretched() -> None:
    labels = blank(50, 100)
    labels[:, :] = 1
    face = find_face(labels, CLASSES, 333, 777)
    assert face.crop == (0, 0, 333, 777)


def test_classes_are_found_by_name_and_others_are_off_the_skin() -> None:
    labels = np.full((100, 100), 3, np.uint8)
    labels[20:80, 20:80] = 2
    labels[30:40, 30:40] = 1
    face = find_face(labels, ("nose", "hair", "skin", "background"), 100, 100)
    assert face.mask.sum() == 3600 - 100
    assert face.nose is None


def test_skin_under_one_percent_of_the_photo_is_no_face() -> None:
    labels = blank()
    labels[0:9, 0:11] = 1
    face = face_of(labels)
    assert (face.found, face.faces, face.crop, face.view, face.nose) == (False, 0, None, None, None)
    assert face.skin_fraction == pytest.approx(0.0099)
    labels[9, 0] = 1
    assert face_of(labels).found


def test_specks_that_add_up_to_enough_skin_are_no_face() -> None:
    labels = blank()
    labels[5::20, 5::20] = 1
    labels[6::20, 5::20] = 1
    labels[5::20, 6::20] = 1
    labels[6::20, 6::20] = 1
    labels[7::20, 5:8] = 1
    face = face_of(labels)
    assert face.skin_fraction > 0.01
    assert not face.found


def test_no_skin_at_all_is_no_face() -> None:
    assert not face_of(blank()).found


def test_two_faces_are_counted_and_the_larger_is_taken() -> None:
    labels = blank()
    labels[20:80, 5:50] = 1
    labels[20:60, 70:95] = 1
    face = face_of(labels)
    assert face.faces == 2
    assert not face.mask[:, 60:].any()
    assert face.mask.sum() == 60 * 45


def test_an_ear_is_no_face_of_its_own() -> None:
    labels = frontal()
    labels[40:55, 90:98] = 1
    face = face_of(labels)
    assert face.faces == 1
    assert not face.mask[:, 85:].any()


def test_glasses_do_not_cut_a_face_in_two() -> None:
    labels = frontal()
    labels[38:40, :] = 0
    face = face_of(labels)
    assert face.faces == 1
    assert face.mask[25, 50]
    assert face.mask[70, 50]
    assert not face.mask[39, 50]


def test_a_nose_in_the_middle_is_a_frontal_view() -> None:
    assert face_of(frontal()).view == "frontal"


@pytest.mark.parametrize("nose_x", [24, 34, 66, 76])
def test_a_nose_to_one_side_is_a_half_view(nose_x: int) -> None:
    assert face_of(frontal(nose_x)).view == "half"


def test_a_nose_in_the_middle_of_lopsided_skin_is_a_half_view() -> None:
    labels = blank()
    labels[48:52, 20:50] = 1
    labels[20:80, 50:80] = 1
    labels[46:54, 45:53] = 2
    face = face_of(labels)
    assert face.nose is not None
    assert face.view == "half"


def test_without_a_nose_the_view_is_half() -> None:
    labels = blank()
    labels[20:80, 20:80] = 1
    face = face_of(labels)
    assert (face.nose, face.view) == (None, "half")


def test_a_speck_of_nose_is_noise() -> None:
    labels = blank()
    labels[20:80, 20:80] = 1
    labels[50:52, 50:52] = 2
    assert face_of(labels).nose is None


def test_the_skin_in_the_crop_has_the_crops_size_and_the_masks_place() -> None:
    face = face_of(frontal())
    assert face.crop is not None
    skin = skin_in_crop(face)
    x1, y1, x2, y2 = face.crop
    assert skin.shape == (y2 - y1, x2 - x1)
    expected = np.zeros((1000, 1000), np.bool_)
    expected[200:800, 200:800] = True
    off = skin != expected[y1:y2, x1:x2]
    assert off.sum() <= 4 * 5 * 5


def test_the_skin_in_the_crop_follows_another_size() -> None:
    face = face_of(frontal())
    small = skin_in_crop(face, (64, 32))
    assert small.shape == (32, 64)
    assert small.mean() == pytest.approx(skin_in_crop(face).mean(), abs=0.03)


def test_a_photo_without_a_face_has_no_crop_to_mask() -> None:
    with pytest.raises(ValueError, match="no crop"):
        skin_in_crop(face_of(blank()))


WITH_BODY = (*CLASSES, "body")


def near(labels: LabelMap, closeups: bool = True) -> Face:
    return find_face(
        labels, WITH_BODY, labels.shape[1] * 10, labels.shape[0] * 10, closeups=closeups
    )


def all_skin() -> LabelMap:
    """Return skin up to the edges, with a lesion or a watermark that is not skin."""
    labels = np.ones((100, 100), np.uint8)
    labels[80:95, 5:25] = 0
    return labels


def test_a_photo_that_is_all_skin_is_a_close_up_without_halves() -> None:
    face = near(all_skin())
    assert (face.found, face.view, face.nose, face.crop) == (
        True,
        "closeup",
        None,
        (0, 0, 1000, 1000),
    )

    nose = all_skin()
    nose[30:70, 30:70] = 2
    assert (near(nose).view, near(nose).nose) == ("closeup", None)
    assert near(nose).mask[50, 50]


def test_patches_that_the_segmenter_takes_for_the_body_belong_to_a_close_up() -> None:
    labels = all_skin()
    labels[:40, :60] = 3
    face = near(labels)
    assert face.view == "closeup"
    assert face.mask[10, 10]


@pytest.mark.parametrize("labels", [frontal(), frontal(30)])
def test_a_face_with_an_outline_is_no_close_up(labels: LabelMap) -> None:
    assert near(labels) is not None
    assert near(labels).view == near(labels, closeups=False).view
    np.testing.assert_array_equal(near(labels).mask, near(labels, closeups=False).mask)


def test_hands_and_backs_are_no_faces_but_have_a_place_to_look_at() -> None:
    labels = blank()
    labels[20:80, 20:80] = 3
    labels[40:50, 40:50] = 1
    body = near(labels)
    assert (body.found, body.faces, body.view, body.nose) == (False, 0, "body", None)
    assert body.crop is not None
    assert body.skin_fraction == pytest.approx(0.01)
    assert body.mask[30, 30]


def test_a_face_with_a_nose_above_a_bare_chest_stays_a_face() -> None:
    labels = blank(200, 100)
    labels[:100] = frontal()
    labels[85:200] = 3
    assert near(labels).view == "frontal"
    assert near(labels).found


def test_little_skin_of_the_body_is_nothing() -> None:
    labels = blank()
    labels[0, :50] = 3
    assert (near(labels).view, near(labels).crop) == (None, None)
    labels[::20, ::20] = 3  # specks that are too small to matter
    assert (near(labels).view, near(labels).crop) == (None, None)


def test_without_the_packs_word_a_photo_that_is_all_skin_is_a_half_face_as_ever() -> None:
    assert near(all_skin(), closeups=False).view == "half"
    hand = blank()
    hand[20:80, 20:80] = 3
    assert near(hand, closeups=False).view is None
