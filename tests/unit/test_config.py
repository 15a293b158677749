"""Test that settings are validated where they enter, and that errors name them."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from skinbatch.config import Config, load_config, merge, parse_config
from skinbatch.errors import UsageError

EXAMPLE = Path(__file__).parents[2] / "skinbatch" / "settings.toml"


def test_the_example_file_says_every_default() -> None:
    assert load_config(EXAMPLE) == Config()


def test_the_example_file_names_every_setting() -> None:
    text = EXAMPLE.read_text()
    for section, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            part = re.split(r"^\[", text.split(f"[{section}]")[1], maxsplit=1, flags=re.M)[0]
            named = set(re.findall(r"^(?:# )?(\w+) =", part, flags=re.M))
            assert named == set(field.annotation.model_fields), section


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"engine": {"worker": 2}},
            "unknown setting `engine.worker`; there are: name, ray_address, workers",
        ),
        ({"engin": {}}, "unknown setting `engin`; there are: pack, source"),
        ({"run": {"limit": 0}}, "setting `run.limit`: .*greater than or equal to 1"),
        ({"run": {"limit": "many"}}, "setting `run.limit`: .*valid integer.*'many'"),
        ({"model": {"precision": "fp8"}}, "setting `model.precision`"),
        ({"source": {"include": "*.png"}}, "setting `source.include`"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_config(values)


def test_the_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[engine]\nworkers = 'two'\n")
    with pytest.raises(UsageError, match=re.escape(f"{path}: setting `engine.workers`")):
        load_config(path)
    path.write_text("[engine\n")
    with pytest.raises(UsageError, match="not readable as TOML"):
        load_config(path)
    with pytest.raises(UsageError, match="no such settings file"):
        load_config(tmp_path / "none.toml")


def test_options_win_over_the_file_and_none_is_no_option(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("pack = 'mine'\n[run]\nlimit = 5\nmax_failures = 0.2\n")
    config = load_config(path, {"pack": None, "run": {"limit": 7, "max_failures": None}})
    assert (config.pack, config.run.limit, config.run.max_failures) == ("mine", 7, 0.2)
    assert merge(config, {"run": {"limit": None}}) == config
    assert merge(config, {"engine": {"name": "local"}}).engine.name == "local"
