"""Test that the precision is part of a scoring's fingerprint, the runtime is not, and a pack may declare its precision."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinbatch.config import Config, EngineSettings, ModelSettings
from skinbatch.errors import PackError, UsageError
from skinbatch.models.fake import write_fake_pack
from skinbatch.models.pack import Pack, load_pack
from skinbatch.scoring.fingerprint import fingerprint, numbers
from skinbatch.scoring.scorer import Scorer
from tests.faces import face


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return load_pack(write_fake_pack(tmp_path / "fake"))


def declaring(pack: Pack, precision: str) -> Pack:
    path = pack.directory / "pack.toml"
    path.write_text(f'precision = "{precision}"\n{path.read_text()}')
    return load_pack(pack.directory)


def of(pack: Pack, precision: str | None = None) -> str:
    return fingerprint(numbers(pack, ModelSettings.model_validate({"precision": precision})))


def test_fp32_is_what_a_pack_declares_that_declares_nothing(pack: Pack) -> None:
    assert of(pack) == of(pack, "fp32") != of(pack, "bf16") != of(pack, "fp16")


def test_a_setting_overrides_what_the_pack_declares(pack: Pack) -> None:
    plain, in_bf16 = of(pack), of(pack, "bf16")
    declared = declaring(pack, "bf16")
    assert of(declared) == of(declared, "bf16") == in_bf16
    assert of(declared, "fp32") == plain


def test_a_pack_cannot_declare_a_precision_that_only_gpus_have(pack: Pack) -> None:
    with pytest.raises(PackError, match=r"pack\.toml: setting `precision`"):
        declaring(pack, "fp16")


def test_fp16_on_a_cpu_names_the_setting(pack: Pack) -> None:
    with pytest.raises(UsageError, match=r"set precision = 'fp32' in \[model\]"):
        Scorer(pack, device="cpu", config=Config(model=ModelSettings(precision="fp16")))


@pytest.mark.parametrize("runtime", ["auto", "torch", "openvino"])
def test_every_runtime_scores_with_models_that_have_no_network(pack: Pack, runtime: str) -> None:
    config = Config(
        engine=EngineSettings.model_validate({"runtime": runtime}),
        model=ModelSettings(precision="bf16"),
    )
    assert Scorer(pack, device="cpu", config=config)(face(left=2, right=1)).count_total == 3
