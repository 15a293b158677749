"""Test `pack import`: weights that fit become a stage, others are refused by name, and a pack is
never left half changed."""

from __future__ import annotations

import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from skinbatch.config import ModelSettings
from skinbatch.errors import PackError, UsageError
from skinbatch.models.architectures import DISEASES, public_names
from skinbatch.models.assemble import add_stage, grow_pack
from skinbatch.models.build import build
from skinbatch.models.cache import cache_folder
from skinbatch.models.checkpoint import _WAY_OUT
from skinbatch.models.detectors.mmdet.spec import DetectorSpec
from skinbatch.models.importing import Import
from skinbatch.models.pack import Pack, load_pack, own_packs
from skinbatch.models.pack_cache import verify_origin
from tests.conftest import S3Server
from tests.unit.models.support import classifier_weights, random_detector_state, segmenter_weights

BACKBONE = "mobilenetv3_small_050"
GRADES = ("none", "mild", "moderate", "severe")


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a packs folder and a cache of the test's own."""
    monkeypatch.setenv("SKINBATCH_PACKS", str(tmp_path / "packs"))
    monkeypatch.setenv("SKINBATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="module")
def weights() -> Mapping[str, Tensor]:
    return classifier_weights("timm", 4, backbone=BACKBONE)


def saved(folder: Path, content: object) -> Path:
    path = folder / "weights.pth"
    torch.save(content, path)
    return path


def classifier(
    path: Path, *, classes: tuple[str, ...] = GRADES, head: str = "acne_grade", **more: Any
) -> Import:
    return Import(
        "classifier",
        f"timm:{BACKBONE}",
        path,
        classes=classes,
        fields={"head": head, "size": 64},
        **more,
    )


def test_every_wrapping_of_a_state_dict_is_unwrapped(
    tmp_path: Path, weights: Mapping[str, Tensor]
) -> None:
    wrapped = {
        "epoch": 3,
        "state_dict": {f"module.{name}": value for name, value in weights.items()},
    }
    packs = [
        add_stage(name, classifier(saved(tmp_path, content)))
        for name, content in (
            ("a", dict(weights)),
            ("b", wrapped),
            ("c", {"model": wrapped["state_dict"]}),
        )
    ]
    assert len({tuple(pack.weights.items()) for pack in packs}) == 1
    assert [pack.name for pack in own_packs()[0]] == ["a", "b", "c"]


def test_a_pack_grows_by_stages_and_a_stage_of_the_same_kind_is_replaced(
    tmp_path: Path, weights: Mapping[str, Tensor], fake_pack: str
) -> None:
    path = saved(tmp_path, dict(weights))
    first = add_stage("mine", classifier(path))
    with pytest.raises(PackError, match=r"pack `mine` has no segmenter; add one: .*--base starter"):
        first.check_complete()
    whole = add_stage("mine", classifier(path, head="other"), base=fake_pack)
    assert list(whole.stages) == [
        "segmenter",
        "detector",
        "classifier-acne_grade",
        "classifier-other",
    ]
    assert whole.prob_columns[:4] == tuple(f"acne_grade_prob_{name}" for name in GRADES)
    again = add_stage("mine", classifier(path, classes=("a", "b", "c", "d"), head="other"))
    assert list(again.stages) == list(whole.stages)
    assert again.stages["classifier-other"].classes == ("a", "b", "c", "d")
    again.verify()
    assert {p.name for p in again.directory.parent.iterdir()} == {"mine", ".mine.lock"}
    assert "| classifier-other | timm |" in str(again.text("CARD.md"))


@pytest.mark.parametrize("role", ["old", "base"])
def test_a_precision_that_was_measured_with_other_stages_is_not_lost_in_silence(
    role: str, tmp_path: Path, weights: Mapping[str, Tensor]
) -> None:
    wanted = classifier(saved(tmp_path, dict(weights)))
    declaring = add_stage("exact", wanted)
    path = declaring.directory / "pack.toml"
    path.write_text(f'precision = "bf16"\n{path.read_text()}')

    pack, findings = (
        grow_pack("exact", wanted) if role == "old" else grow_pack("mine", wanted, base="exact")
    )
    assert pack.manifest.precision is None
    (told,) = (finding for finding in findings if finding.what == "precision")
    assert told.value == "fp32" and "`exact` was measured in bf16" in told.source

    assert "precision" not in [finding.what for finding in grow_pack(pack.name, wanted)[1]]


def test_the_terms_of_a_base_go_with_its_stages(
    tmp_path: Path, weights: Mapping[str, Tensor]
) -> None:
    wanted = classifier(saved(tmp_path, dict(weights)))
    pack = add_stage("mine", wanted, base="starter", licence="CC-BY-4.0")
    assert pack.stages["classifier-acne_grade"].licence == "CC-BY-4.0"
    assert (
        "non-commercial" in str(pack.detector.licence) and "non-commercial" in pack.manifest.licence
    )
    assert pack.text("LICENSE.md") == load_pack("starter").text("LICENSE.md")


def test_nineteen_classes_may_be_named_by_their_order(tmp_path: Path) -> None:
    path = saved(tmp_path, segmenter_weights("bisenet-r18", 19))
    pack = add_stage("mine", Import("segmenter", "bisenet-r18", path, classes=("face-parsing",)))
    assert pack.segmenter.classes[10] == "nose" and pack.segmenter.size == 512


@pytest.mark.parametrize(
    ("change", "classes", "message"),
    [
        ({}, DISEASES, r"layer `head.out.bias` is \(4,\), the architecture has \(6,\)"),
        ({"head.fc.weight": None}, GRADES, r"missing layer `head.fc.weight`"),
        ({"head.extra": torch.zeros(1)}, GRADES, r"unexpected layer `head.extra`"),
        (
            {"head.fc.bias": torch.full((1024,), float("nan"))},
            GRADES,
            r"layer `head.fc.bias` holds NaN",
        ),
        (
            {"head.fc.bias": torch.full((1024,), float("inf"))},
            GRADES,
            r"layer `head.fc.bias` holds NaN or infinite",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_layer_and_the_pack_stays(
    tmp_path: Path,
    weights: Mapping[str, Tensor],
    change: dict[str, Tensor | None],
    classes: tuple[str, ...],
    message: str,
) -> None:
    before = add_stage("mine", classifier(saved(tmp_path, dict(weights))))
    manifest = (before.directory / "pack.toml").read_bytes()
    wrong = {name: value for name, value in (dict(weights) | change).items() if value is not None}
    with pytest.raises(PackError, match=rf"weights\.pth: {message}"):
        add_stage("mine", classifier(saved(tmp_path, wrong), classes=classes))
    assert (before.directory / "pack.toml").read_bytes() == manifest
    assert {p.name for p in before.directory.parent.iterdir()} == {"mine", ".mine.lock"}
    load_pack("mine").verify()


class _Writes:
    """Write a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_holds_more_than_weights_is_refused_and_not_executed(
    tmp_path: Path,
) -> None:
    trace = tmp_path / "executed"
    path = saved(tmp_path, {"state_dict": {"a": torch.zeros(1)}, "meta": _Writes(trace)})
    with pytest.raises(
        PackError,
        match=r"weights\.pth: contains more than weights .*weights alone and import those: python -c",
    ):
        add_stage("mine", classifier(path))
    path.write_bytes(pickle.dumps(_Writes(trace)))
    with pytest.raises(PackError, match=r"weights\.pth: "):
        add_stage("mine", classifier(path))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "was not written by torch.save, or is cut off"),
        (b"<html>moved</html>", "was not written by torch.save"),
        (None, "no such weights file"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PackError, match=rf"weights\.pth: {message}"):
        add_stage("mine", classifier(path))
    assert own_packs() == ([], [])


def test_a_checkpoint_that_is_cut_off_is_named(
    tmp_path: Path, weights: Mapping[str, Tensor]
) -> None:
    path = saved(tmp_path, dict(weights))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(PackError, match="or is cut off"):
        add_stage("mine", classifier(path))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            Import("segmenter", "unet", Path("w.pth")),
            "no segmenter architecture `unet`; there are: bisenet-r18",
        ),
        (Import("classifier", "timm", Path("w.pth")), "--arch timm:NAME"),
        (
            Import("classifier", "resnext9000", Path("w.pth")),
            "no classifier architecture .*every network of timm",
        ),
        (Import("lesions", "yolov3", Path("w.pth")), "no stage `lesions`"),
        (Import("detector", "mmdet", Path("w.pth")), "no such weights file|needs one mmdet config"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(wanted: Import, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        add_stage("mine", wanted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colour = 'blue'", "unknown setting `colour`; a classifier has: classes"),
        ("sha256 = 'ab'", "`sha256` is set automatically"),
        ("size = 'large'", "setting `size`: .*valid integer"),
        ("size =", "not readable as TOML"),
    ],
)
def test_a_mistake_in_a_settings_file_is_named(
    tmp_path: Path, weights: Mapping[str, Tensor], text: str, message: str
) -> None:
    config = tmp_path / "stage.toml"
    config.write_text(text)
    wanted = Import(
        "classifier", f"timm:{BACKBONE}", saved(tmp_path, dict(weights)), (config,), GRADES
    )
    with pytest.raises(UsageError, match=message):
        add_stage("mine", wanted)


def test_a_shipped_pack_is_not_changed_and_a_folder_that_is_no_pack_not_replaced(
    tmp_path: Path, weights: Mapping[str, Tensor]
) -> None:
    wanted = classifier(saved(tmp_path, dict(weights)))
    with pytest.raises(UsageError, match="comes with skinbatch"):
        add_stage("starter", wanted)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(UsageError, match="exists and is not a pack"):
        add_stage("photos", wanted, dest=str(tmp_path))


@pytest.fixture
def on_s3(
    tmp_path: Path, weights: Mapping[str, Tensor], fake_pack: str, s3: S3Server
) -> tuple[Pack, str]:
    bucket = s3.bucket()
    wanted = classifier(saved(tmp_path, dict(weights)))
    pack = add_stage(
        "mine", wanted, dest=f"s3://{bucket}/packs", base=fake_pack, storage=s3.settings
    )
    return pack, bucket


def test_a_pack_on_s3_is_fetched_once_and_checked(on_s3: tuple[Pack, str], s3: S3Server) -> None:
    pack, bucket = on_s3
    assert pack.address == f"s3://{bucket}/packs/mine" and pack.directory.is_relative_to(
        cache_folder()
    )
    inode = pack.weights_file("classifier-acne_grade").stat().st_ino
    again = load_pack(pack.address, s3.settings)
    assert again.weights_file("classifier-acne_grade").stat().st_ino == inode
    assert build(again, "cpu", ModelSettings()).classifiers[0].classes == GRADES


def test_a_changed_byte_on_s3_is_refused_by_name(on_s3: tuple[Pack, str], s3: S3Server) -> None:
    pack, bucket = on_s3
    key = "packs/mine/classifier-acne_grade.safetensors"
    data = bytearray(pack.weights_file("classifier-acne_grade").read_bytes())
    data[-1] ^= 1
    s3.client.put_object(Bucket=bucket, Key=key, Body=bytes(data))
    shutil.rmtree(cache_folder())
    with pytest.raises(PackError, match=rf"s3://{bucket}/{key}: SHA-256 is .*pack.toml records"):
        load_pack(pack.address, s3.settings)
    s3.client.delete_object(Bucket=bucket, Key=key)
    with pytest.raises(PackError, match=f"{key}: missing, but pack.toml lists it"):
        load_pack(pack.address, s3.settings)
    assert not [p for p in (cache_folder() / "packs").iterdir() if p.is_dir()]


def test_a_pack_that_is_not_on_s3_is_named(s3: S3Server) -> None:
    bucket = s3.bucket()
    with pytest.raises(PackError, match=f"s3://{bucket}/nothing/pack.toml: not there"):
        load_pack(f"s3://{bucket}/nothing", s3.settings)


def test_a_pack_on_s3_grows_too(
    on_s3: tuple[Pack, str], tmp_path: Path, weights: Mapping[str, Tensor], s3: S3Server
) -> None:
    pack, bucket = on_s3
    wanted = classifier(saved(tmp_path, dict(weights)), head="other")
    grown = add_stage("mine", wanted, dest=f"s3://{bucket}/packs", storage=s3.settings)
    assert list(grown.stages) == [*pack.stages, "classifier-other"]
    grown.verify()


@pytest.mark.parametrize(
    "wrap",
    [lambda state, more: {"model": state, "args": more}, lambda state, more: [state, more][0]],
)
def test_the_way_out_of_a_refused_checkpoint_works(
    tmp_path: Path, weights: Mapping[str, Tensor], wrap: Callable[[Any, Any], Any]
) -> None:
    path = saved(tmp_path, wrap(dict(weights), Namespace(lr=0.1)))
    command = re.search(r"python (-c \".*\") FILE", _WAY_OUT)
    assert command is not None
    subprocess.run([sys.executable, *shlex.split(command[1]), str(path)], cwd=tmp_path, check=True)
    assert add_stage("mine", classifier(tmp_path / "weights.pth")).stages


@pytest.mark.parametrize("name", ["../x", "a/b", "-x", "a b", "", ".", "..", "starter/../y"])
def test_a_name_that_is_no_folders_name_is_refused_before_anything_is_made(
    tmp_path: Path, weights: Mapping[str, Tensor], name: str
) -> None:
    path = saved(tmp_path, dict(weights))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="is not a valid pack name"):
        add_stage(name, classifier(path), dest=str(tmp_path / "deep" / "packs"))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_swap_that_fails_puts_the_old_pack_back(
    tmp_path: Path, weights: Mapping[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, dict(weights))
    before = add_stage("mine", classifier(path))
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name == "pack":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add_stage("mine", classifier(path, head="other"))
    monkeypatch.undo()
    monkeypatch.setenv("SKINBATCH_PACKS", str(tmp_path / "packs"))
    after = load_pack("mine")
    after.verify()
    assert after.stages == before.stages
    assert sorted(p.name for p in (tmp_path / "packs").iterdir()) == [".mine.lock", "mine"]


@pytest.mark.parametrize(
    "setting", ["mean = [nan, 0.5, 0.5]", "std = [0.2, 0.0, 0.2]", "threshold = inf"]
)
def test_numbers_that_are_none_are_refused_and_the_pack_stays(
    tmp_path: Path, weights: Mapping[str, Tensor], setting: str
) -> None:
    path = saved(tmp_path, dict(weights))
    before = add_stage("mine", classifier(path)).manifest
    config = tmp_path / "stage.toml"
    config.write_text(setting)
    with pytest.raises(UsageError, match=setting.split()[0]):
        add_stage("mine", classifier(path, configs=(config,)))
    assert load_pack("mine").manifest == before


def test_what_somebody_wrote_into_a_pack_stays_when_it_grows(
    tmp_path: Path, weights: Mapping[str, Tensor]
) -> None:
    path = saved(tmp_path, dict(weights))
    first = add_stage("mine", classifier(path), licence="CC-BY-4.0")
    (first.directory / "CARD.md").write_text(
        f"{first.text('CARD.md')}\nRecall 0.9 on our own faces.\n"
    )
    (first.directory / "LICENSE.md").write_text("Ours.")
    toml = first.directory / "pack.toml"
    said = f'description = "{first.manifest.description}"'
    toml.write_text(toml.read_text().replace(said, 'description = "Grades by the house"'))
    grown = add_stage("mine", classifier(path, head="other"), base="starter")
    assert grown.manifest.description == "Grades by the house"
    assert "Recall 0.9 on our own faces." in str(
        grown.text("CARD.md")
    ) and "classifier-other" in str(grown.text("CARD.md"))
    terms = f"Ours.\n\n{load_pack('starter').text('LICENSE.md')}"
    assert grown.text("LICENSE.md") == terms
    assert (
        add_stage("mine", classifier(path, head="other"), base="starter").text("LICENSE.md")
        == terms
    )


def test_what_only_training_makes_is_imported_though_no_public_weights_have_its_name(
    tmp_path: Path,
) -> None:
    narrow: dict[str, Any] = {
        "width": 0.25,
        "head_channels": 16,
        "strides": (8, 16, 32),
        "size": 128,
    }
    path = saved(tmp_path, random_detector_state("faster-rcnn-r18", **narrow))
    pack = add_stage(
        "mine",
        Import("detector", "faster-rcnn-r18", path, (), ("acne",), fields=narrow),
        base="starter",
    )
    assert pack.detector.arch == "faster-rcnn-r18"
    assert "faster-rcnn-r18" not in public_names("detector")


def test_a_licence_in_the_settings_file_is_kept(
    tmp_path: Path, weights: Mapping[str, Tensor]
) -> None:
    config = tmp_path / "stage.toml"
    config.write_text('licence = "MIT"')
    pack = add_stage("mine", classifier(saved(tmp_path, dict(weights)), configs=(config,)))
    assert pack.stages["classifier-acne_grade"].licence == "MIT" and pack.manifest.licence == "MIT"


@pytest.mark.parametrize(
    "odd",
    [
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2).to_sparse(),
        torch.zeros(2, device="meta"),
    ],
)
def test_tensors_of_kinds_that_no_network_here_has_are_named(
    tmp_path: Path, weights: Mapping[str, Tensor], odd: Tensor
) -> None:
    path = saved(tmp_path, dict(weights) | {"head.fc.bias": odd})
    with pytest.raises(
        PackError, match=r"weights\.pth: layer `head.fc.bias` has an unsupported tensor type"
    ):
        add_stage("mine", classifier(path))


def test_a_pack_that_cannot_be_read_does_not_hide_the_others(
    tmp_path: Path, weights: Mapping[str, Tensor]
) -> None:
    add_stage("mine", classifier(saved(tmp_path, dict(weights))))
    (tmp_path / "packs" / "broken").mkdir()
    (tmp_path / "packs" / "broken" / "pack.toml").write_text("name =")
    packs, faults = own_packs()
    assert [pack.name for pack in packs] == ["mine"]
    assert len(faults) == 1 and "broken/pack.toml: not readable as TOML" in faults[0]
    with pytest.raises(PackError, match="typo: no such pack; there are: starter, mine"):
        load_pack("typo")


def test_verify_asks_s3_and_not_the_copy(on_s3: tuple[Pack, str], s3: S3Server) -> None:
    pack, bucket = on_s3
    verify_origin(pack.address, pack.files, s3.settings)
    s3.client.put_object(
        Bucket=bucket, Key="packs/mine/classifier-acne_grade.safetensors", Body=b"other"
    )
    pack.verify()
    with pytest.raises(PackError, match="SHA-256 is"):
        verify_origin(pack.address, pack.files, s3.settings)
    copy = pack.weights_file("classifier-acne_grade")
    copy.write_bytes(b"damaged")
    with pytest.raises(PackError, match=f"delete {pack.directory}, a copy of {pack.origin}"):
        pack.verify()


def test_every_stage_keeps_its_own_terms_when_it_fills_another_pack(
    tmp_path: Path, weights: Mapping[str, Tensor]
) -> None:
    path = saved(tmp_path, dict(weights))
    add_stage("first", classifier(path), licence="MIT")
    add_stage("first", classifier(path, head="other"), licence="CC-BY-4.0")
    state = saved(tmp_path, segmenter_weights("bisenet-light", 3))
    grown = add_stage(
        "second", Import("segmenter", "bisenet-light", state), base="first", licence="Apache-2.0"
    )
    assert {stem: stage.licence for stem, stage in grown.stages.items()} == {
        "segmenter": "Apache-2.0",
        "classifier-acne_grade": "MIT",
        "classifier-other": "CC-BY-4.0",
    }


def test_a_description_that_nobody_wrote_names_the_stages_that_are_there(tmp_path: Path) -> None:
    state = saved(tmp_path, segmenter_weights("bisenet-light", 3))
    add_stage("mine", Import("segmenter", "bisenet-light", state))
    narrow: dict[str, Any] = {
        "width": 0.25,
        "head_channels": 16,
        "strides": (8, 16, 32),
        "size": 128,
    }
    path = saved(tmp_path, random_detector_state("faster-rcnn-r18", **narrow))
    grown = add_stage(
        "mine", Import("detector", "faster-rcnn-r18", path, (), ("acne",), fields=narrow)
    )
    assert grown.manifest.description == "bisenet-light · faster-rcnn-r18"


@pytest.mark.parametrize("field", [{"width": 1e6}, {"head_channels": 10**9}])
def test_a_network_without_bounds_is_not_built(field: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path, {"backbone.conv1.weight": torch.zeros(1)})
    with pytest.raises(UsageError, match=next(iter(field))):
        add_stage(
            "mine",
            Import("detector", "faster-rcnn-r50", path, (), ("acne",), fields=field),
            base="starter",
        )


def test_a_users_config_whose_parts_do_not_go_together_is_refused_with_what_mmdet_says(
    tmp_path: Path,
) -> None:
    from skinbatch.models.detectors.mmdet.detector import build_model
    from skinbatch.models.detectors.mmdet.user_config import read_config

    config = tmp_path / "my.py"
    config.write_text(
        "model = dict(type='FCOS', data_preprocessor=dict(type='DetDataPreprocessor', mean=[0, 0, 0], std=[1, 1, 1]),\n"
        "    backbone=dict(type='ResNet', depth=18, num_stages=4, out_indices=(0, 1, 2, 3)),\n"
        "    neck=dict(type='FPN', in_channels=[64, 128, 256, 1024], out_channels=32, num_outs=5, start_level=1),\n"
        "    bbox_head=dict(type='FCOSHead', num_classes=1, in_channels=32, feat_channels=32, stacked_convs=1),\n"
        "    test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5),\n"
        "                  max_per_img=10))\n"
        "test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(192, 192), keep_ratio=True),\n"
        "                 dict(type='PackDetInputs')]\n"
    )
    spec = DetectorSpec("mmdet", ("acne",), model=read_config(config)[0])
    path = saved(tmp_path, dict(build_model(spec).state_dict()))
    with pytest.raises(
        PackError, match=r"its config builds a model that cannot run: RuntimeError: .*1024"
    ):
        add_stage("mine", Import("detector", "mmdet", path, (config,), ("acne",)), base="starter")
