"""Test packs: what is refused, what changes the fingerprint, and that reading one imports no framework."""

from __future__ import annotations

import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from skinbatch.config import ModelSettings
from skinbatch.errors import PackError, UsageError
from skinbatch.models.build import build
from skinbatch.models.fake import write_fake_pack
from skinbatch.models.manifest import read_manifest, write_manifest
from skinbatch.models.pack import load_pack

SETTINGS = ModelSettings()


def edit(pack: Path, old: str, new: str) -> None:
    path = pack / "pack.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def rewrite(pack: Path, stem: str, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change tensors of a weights file and record the new hash, as a careless author of a pack would."""
    path = pack / f"{stem}.safetensors"
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    edit(pack, old, hashlib.sha256(path.read_bytes()).hexdigest())


def test_a_written_manifest_reads_back_the_same(random_pack: Path, tmp_path: Path) -> None:
    manifest = read_manifest(random_pack)
    write_manifest(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest


def test_texts_with_quotes_line_breaks_and_other_scripts_survive_the_manifest(
    tmp_path: Path,
) -> None:
    manifest = read_manifest(write_fake_pack(tmp_path / "fake"))
    odd = manifest.model_copy(update={"description": 'a "b" \\ c\nd\t é 痤疮 \x7f'})
    write_manifest(odd, tmp_path)
    assert read_manifest(tmp_path) == odd


def test_verify_passes_an_untouched_pack_and_names_the_file_with_a_changed_byte(
    own_pack: Path,
) -> None:
    load_pack(own_pack).verify()
    path = own_pack / "detector.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(PackError, match=r"detector\.safetensors: SHA-256"):
        load_pack(own_pack).verify()


def test_build_refuses_a_changed_byte_too(own_pack: Path) -> None:
    path = own_pack / "segmenter.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(PackError, match=r"segmenter\.safetensors"):
        build(load_pack(own_pack), "cpu", SETTINGS)


def test_a_missing_weights_file_is_named(own_pack: Path) -> None:
    (own_pack / "classifier-disease.safetensors").unlink()
    with pytest.raises(PackError, match=r"classifier-disease\.safetensors"):
        load_pack(own_pack).verify()


@pytest.mark.parametrize(
    ("stem", "layer"),
    [("segmenter", "sp.conv1.conv.weight"), ("detector", "bbox_head.multi_level_conv_obj.0.bias"),
     ("classifier-disease", "head.fc.weight")],
)  # fmt: skip
def test_a_missing_layer_is_named(own_pack: Path, stem: str, layer: str) -> None:
    rewrite(own_pack, stem, lambda tensors: tensors.__delitem__(layer))
    with pytest.raises(PackError, match=rf"{stem}\.safetensors.*(?s:.)*{layer}"):
        build(load_pack(own_pack), "cpu", SETTINGS)


def test_an_unexpected_layer_is_named(own_pack: Path) -> None:
    rewrite(own_pack, "segmenter", lambda tensors: tensors.update(extra=torch.zeros(1)))
    with pytest.raises(PackError, match="unexpected layer `extra`"):
        build(load_pack(own_pack), "cpu", SETTINGS)


def test_a_layer_of_another_shape_is_named_with_both_shapes(own_pack: Path) -> None:
    rewrite(
        own_pack,
        "classifier-disease",
        lambda tensors: tensors.update({"head.out.bias": torch.zeros(9)}),
    )
    with pytest.raises(
        PackError, match=r"layer `head\.out\.bias` is \(9,\), the architecture has \(2,\)"
    ):
        build(load_pack(own_pack), "cpu", SETTINGS)


def test_weights_that_are_no_safetensors_are_refused(own_pack: Path) -> None:
    path = own_pack / "segmenter.safetensors"
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    torch.save({"a": torch.zeros(1)}, path)
    edit(own_pack, old, hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(PackError, match=r"segmenter\.safetensors: not readable as safetensors"):
        build(load_pack(own_pack), "cpu", SETTINGS)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('version = "1"', 'version = "1"\ncolour = "blue"', "unknown setting `colour`"),
        ("nms_iou = 0.5", "nms_iuo = 0.5", "unknown setting `detector.nms_iuo`"),
        (
            "nms_iou = 0.5",
            "nms_iou = 1.5",
            "setting `detector.nms_iou`: .* less than or equal to 1",
        ),
        ("nms_iou = 0.5", 'nms_iou = "0.5"', "setting `detector.nms_iou`: .* valid number"),
        ("nms_iou = 0.5", "nms_iou = 0.5\ntiling = true", "setting `detector.tiling`"),
        ('arch = "bisenet-light"', 'arch = "unet"', "setting `segmenter.arch`: .*bisenet-light"),
        ('"nose"', '"nase"', "a segmenter's classes include nose"),
        ('classes = ["acne"]', 'classes = ["acne", "acne"]', "a class is named twice"),
        ('version = "1"\n', "", "setting `version` is missing"),
        (
            'backbone = "mobilenetv3_small_050"\n',
            "",
            "arch `timm` needs backbone, one of timm's names",
        ),
        ('head = "disease"', 'head = "../disease"', "setting `classifier.0.head`"),
        ('input = "crop"', 'input = "face"', "setting `detector.input`: .*masked_crop"),
        ("[segmenter]", "[segmenter", "not readable as TOML"),
    ],
)
def test_a_mistake_in_the_manifest_is_one_message_with_file_and_setting(
    own_pack: Path, old: str, new: str, message: str
) -> None:
    edit(own_pack, old, new)
    with pytest.raises(PackError, match=f"pack.toml: .*{message}") as caught:
        load_pack(own_pack)
    assert len(str(caught.value).splitlines()) == 1


def test_weights_without_a_recorded_hash_are_refused(own_pack: Path) -> None:
    edit(own_pack, f'sha256 = "{load_pack(own_pack).segmenter.sha256}"\n', "")
    with pytest.raises(PackError, match="sha256 of the weights file is missing"):
        load_pack(own_pack)


def test_an_unknown_backbone_is_named(own_pack: Path) -> None:
    edit(own_pack, "mobilenetv3_small_050", "mobilenetv99")
    with pytest.raises(PackError, match="no backbone `mobilenetv99`"):
        build(load_pack(own_pack), "cpu", SETTINGS)


def test_a_pack_that_is_not_there_is_a_usage_error_that_says_where_it_looked(
    tmp_path: Path,
) -> None:
    with pytest.raises(PackError, match="nonsense: no such pack; there are: starter"):
        load_pack("nonsense")
    with pytest.raises(PackError, match=r"pack\.toml: not there"):
        load_pack(tmp_path)


def test_half_precision_without_a_gpu_is_a_usage_error(tmp_path: Path) -> None:
    pack = load_pack(write_fake_pack(tmp_path / "fake"))
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        build(pack, "cpu", ModelSettings(precision="fp16"))


def test_numbers_are_plain_json_and_see_what_changes_numbers_only(own_pack: Path) -> None:
    before = load_pack(own_pack).numbers()
    assert json.loads(json.dumps(before)) == before
    edit(own_pack, 'name = "random"', 'name = "other"')
    edit(own_pack, "threshold = 0.4", "threshold = 0.6")
    edit(own_pack, 'source = ""', 'source = "somewhere"')
    assert load_pack(own_pack).numbers() == before
    edit(own_pack, "nms_iou = 0.5", "nms_iou = 0.6")
    changed = load_pack(own_pack).numbers()
    assert changed["detector"]["nms_iou"] == 0.6
    assert changed != before


def test_columns_classes_and_threshold_come_from_the_manifest(
    random_pack: Path, tmp_path: Path
) -> None:
    pack = load_pack(random_pack)
    assert pack.detector_classes == ("acne",)
    assert pack.prob_columns == ("prob_rosacea", "prob_lupus_erythematosus")
    assert pack.threshold == 0.4
    assert set(pack.weights) == {"segmenter", "detector", "classifier-disease"}
    fake = write_fake_pack(tmp_path / "fake")
    edit(fake, 'head = "disease"', 'head = "acne_grade"')
    assert load_pack(fake).prob_columns == (
        "acne_grade_prob_rosacea",
        "acne_grade_prob_lupus_erythematosus",
    )


def test_the_score_floor_and_box_cap_of_the_settings_reach_the_detector(random_pack: Path) -> None:
    models = build(
        load_pack(random_pack), "cpu", ModelSettings(score_floor=0.2, nms_iou=0.7, max_boxes=11)
    )
    spec = models.detector.spec  # type: ignore[attr-defined]
    assert (spec.score_floor, spec.nms_iou, spec.max_boxes) == (0.2, 0.7, 11)


def test_a_pack_survives_pickling(random_pack: Path) -> None:
    pack = load_pack(random_pack)
    assert pickle.loads(pickle.dumps(pack)) == pack


def test_reading_a_pack_imports_no_framework(tmp_path: Path) -> None:
    pack = write_fake_pack(tmp_path / "fake")
    code = (
        "import sys; from skinbatch.config import ModelSettings; from skinbatch.models.build import build; "
        "from skinbatch.models.pack import load_pack; "
        f"p = load_pack({str(pack)!r}); p.verify(); p.numbers(); build(p, 'cpu', ModelSettings()); "
        "print([m for m in ('torch', 'timm', 'mmdet', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_description_tells_architecture_licence_and_columns(random_pack: Path) -> None:
    pack = load_pack(random_pack)
    described = pack.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["prob_columns"] == ["prob_rosacea", "prob_lupus_erythematosus"]
    text = pack.describe_text()
    assert "bisenet-light" in text and "Apache-2.0" in text and "no card" in text
