"""Test that what `cluster/README.md` tells people to type and to expect is true of the files beside it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import yaml

from tests.unit.cluster.manifests import CLUSTER, REPOSITORY

README = (CLUSTER / "README.md").read_text()
FIRST_TABLE = (
    README.split("## From an empty namespace to the first table")[1]
    .split("```sh\n")[1]
    .split("```")[0]
)


def test_the_first_table_takes_ten_commands() -> None:
    assert len(FIRST_TABLE.splitlines()) == 10


def test_one_command_puts_the_readers_addresses_into_every_manifest(tmp_path: Path) -> None:
    shutil.copytree(CLUSTER, tmp_path / "cluster")
    (command,) = [line for line in FIRST_TABLE.splitlines() if "sed -i" in line]

    subprocess.run(["bash", "-ce", command], cwd=tmp_path, check=True)

    for path in (tmp_path / "cluster").rglob("*.yaml"):
        values = str(list(yaml.safe_load_all(path.read_text())))
        assert not re.search("registry.example.com|s3://my-", values)
        if path.name != "kustomization.yaml":
            assert "YOUR_REGISTRY/skinbatch:gpu" in values


def test_files_that_are_named_are_there() -> None:
    named = re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)
    typed = re.findall(r"(?<![\w/])(cluster/[\w./-]+)", README)

    assert named and typed
    for name in named:
        assert (CLUSTER / name).exists(), name
    for name in typed:
        assert (REPOSITORY / name).exists(), name


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }

    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


def test_every_exit_code_is_explained() -> None:
    table = README.split("## What a scheduler sees")[1].split("\n## ")[0]
    documented = re.findall(
        r"^\| (\d+) \|", (REPOSITORY / "docs/exit-codes.md").read_text(), re.MULTILINE
    )

    assert set(documented) <= set(re.findall(r"^\| (\d+) \|", table, re.MULTILINE))
