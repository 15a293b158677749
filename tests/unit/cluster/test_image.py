"""Test that the image holds what it needs, nothing else, and runs as a user without rights."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths

from tests.unit.cluster.dockerfile import of_name
from tests.unit.cluster.manifests import PLAIN, REPOSITORY, documents, pod_specs


def sent_to_the_builder(root: Path) -> set[str]:
    """Return the paths that `.dockerignore` allows, as Docker's own client reads it."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    return set(exclude_paths(str(root), patterns))


def test_what_is_copied_is_there_and_travels_to_the_builder() -> None:
    sent = sent_to_the_builder(REPOSITORY)

    copied = [source for value in of_name("COPY") for source in value.split()[:-1]]
    assert {"pyproject.toml", "constraints.txt", "skinbatch", "jobs/submit.py"} <= set(copied)
    for source in copied:
        assert (REPOSITORY / source).exists()
        assert source in sent
    assert "skinbatch/models/packs/starter/pack.toml" in sent


def test_nothing_else_travels_to_the_builder(tmp_path: Path) -> None:
    for name in (
        ".git/config",
        ".venv/bin/python",
        "photos/face.jpg",
        "jobs/recipes/weights.pth",
        "skinbatch/cli.py",
        "skinbatch/__pycache__/cli.cpython-311.pyc",
        "LICENSE",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    sent = {path for path in sent_to_the_builder(tmp_path) if (tmp_path / path).is_file()}
    assert sent == {"skinbatch/cli.py", "LICENSE"}


def test_the_image_runs_as_a_user_that_is_no_root() -> None:
    (user,) = of_name("USER")

    assert user == "1000:1000"
    for path in PLAIN:
        for pod in pod_specs(documents(path)):
            security = pod["securityContext"]
            assert f"{security['runAsUser']}:{security['runAsGroup']}" == user


def test_the_image_has_the_python_that_the_constraints_are_for() -> None:
    (base,) = of_name("FROM")
    constraints = (REPOSITORY / "constraints.txt").read_text()

    (version,) = re.findall(r"\(Python (\d+\.\d+)", constraints)
    assert base.startswith(f"python:{version}-slim")


def test_every_installation_is_of_the_tested_versions() -> None:
    installed = [
        part for run in of_name("RUN") for part in run.split("&&") if "pip install" in part
    ]

    assert len(installed) == 4
    for command in installed:
        assert "-c constraints.txt" in command or "--no-deps" in command
        assert "--no-cache-dir" in command


@pytest.mark.parametrize("name", ["/opt/skinbatch/jobs/submit.py", "/home/skinbatch"])
def test_the_paths_in_the_manifests_are_those_of_the_image(name: str) -> None:
    assert any(name in path.read_text() for path in PLAIN)
    if name.endswith(".py"):
        (folder,) = [value for value in of_name("WORKDIR") if name.startswith(value)]
        assert (REPOSITORY / name.removeprefix(folder).lstrip("/")).is_file()
    else:
        assert f"HOME={name}" in " ".join(of_name("ENV")).split()
