"""Run the examples in docstrings, in a folder with a few photos and their results."""

from __future__ import annotations

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

import skinbatch
from tests.faces import face, jpeg, png, tar_bytes, write_tree

ROOT = Path(__file__).parents[2]
# Examples that need real models are marked `# doctest: +SKIP`.
_RUNS = re.compile(r">>>(?!.*\+SKIP)")
FILES = sorted(
    file
    for file in ROOT.glob("skinbatch/**/*.py")
    if _RUNS.search(file.read_text(encoding="utf-8"))
)
MODULES = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in FILES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, fake_pack: str) -> Path:
    """Return a folder with `photos`, their `truth.csv`, the pack `packs/own` and the results in `scored`."""
    root = tmp_path_factory.mktemp("examples")
    shown = jpeg(face(left=3, right=1))
    photos = {
        "visit-1/a.jpg": shown,
        "visit-1/b.png": png(face(shade=20)),
        "visit-1/cut-off.jpg": shown[: len(shown) // 3],
        "visit-2.tar": tar_bytes({"c.png": png(face(left=1, shade=40))}),
    }
    write_tree(root / "photos", photos)
    boxes = [(x, 22 + 9 * n) for x, count in ((30, 3), (66, 1)) for n in range(count)]
    lines = [f"photos/visit-1/a.jpg,acne,{x - 3},{y - 3},{x + 4},{y + 4}" for x, y in boxes]
    (root / "truth.csv").write_text("\n".join(("image,label,x1,y1,x2,y2", *lines)))
    (root / "packs").mkdir()
    (root / "packs" / "own").symlink_to(fake_pack)

    report = skinbatch.score(
        root / "photos", root / "scored", pack=str(root / "packs" / "own"), engine="local"
    )
    assert report.rows == len(photos)
    return root


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_show(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    module = import_module(name)
    tests = doctest.DocTestFinder().find(module, extraglobs={"skinbatch": skinbatch, "Path": Path})
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)

    failed = sum(runner.run(test).failed for test in tests)

    assert failed == 0, capsys.readouterr().out
