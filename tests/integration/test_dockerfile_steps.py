"""Run the Dockerfile's steps one by one in a fresh virtual environment, without a Docker engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths

from tests.pictures import picture
from tests.unit.cluster.dockerfile import instructions
from tests.unit.cluster.manifests import REPOSITORY

# What only the root of a container can do: system packages and users.
FOR_ROOT = ("apt-get ", "groupadd ")


class Build:
    """Represent the image's root file system by a folder, with a virtual environment for its Python."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workdir = root
        self.python = root / "python"
        venv.create(self.python, with_pip=True)
        # No compiler in the slim image either.
        self.env = {
            "PATH": f"{self.python / 'bin'}:{os.defpath}",
            "CC": "false",
            "CXX": "false",
            "HOME": str(root),
        }

    def inside(self, path: str) -> Path:
        """Return the place of a path of the image."""
        return self.root / path.lstrip("/") if path.startswith("/") else self.workdir / path

    def run(self, command: str) -> str:
        """Run a shell command as RUN does, and return what it printed."""
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.workdir,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=1800,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def copy(self, sources: list[str], target: Path) -> None:
        """Copy what `.dockerignore` allows. A folder's content goes into the target."""
        lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
        sent = exclude_paths(
            str(REPOSITORY), [line for line in lines if line and not line.startswith("#")]
        )
        for source in sources:
            files = [path for path in sent if path == source or path.startswith(f"{source}/")]
            for path in filter(lambda path: (REPOSITORY / path).is_file(), files):
                inside = Path(path).name if path == source else Path(path).relative_to(source)
                (target / inside).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / path, target / inside)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_steps_of_the_dockerfile_make_an_environment_that_scores(tmp_path: Path) -> None:
    build = Build(tmp_path)
    command = ""
    for step in instructions():
        if step.name == "WORKDIR":
            build.workdir = build.inside(step.value)
            build.workdir.mkdir(parents=True, exist_ok=True)
        elif step.name == "COPY":
            *sources, target = step.value.split()
            build.copy(sources, build.inside(target))
        elif step.name == "ARG":
            name, value = step.value.split("=", 1)
            build.env[name] = value
        elif step.name == "ENV":
            build.env |= dict(pair.split("=", 1) for pair in step.value.split())
            build.env["HOME"] = str(tmp_path)
        elif step.name == "RUN" and not step.value.startswith(FOR_ROOT):
            build.run(step.value)
        elif step.name == "CMD":
            command = " ".join(json.loads(step.value))
        else:
            assert step.name in ("FROM", "USER", "RUN"), (
                f"a step that this test does not know: {step}"
            )

    assert "Score archives of face photos" in build.run(command)
    photos = tmp_path / "photos"
    photos.mkdir()
    picture(0).save(photos / "0.png")
    build.run(f"skinbatch score {photos} {tmp_path / 'scores'} --engine local --workers 1")
    build.run(f"skinbatch verify {tmp_path / 'scores'}")
    assert "submit.py" in build.run(
        f"python {build.inside('/opt/skinbatch/jobs/submit.py')} --help"
    )
    assert not build.inside(
        "/opt/skinbatch/skinbatch"
    ).exists()  # the installed one is the only one
