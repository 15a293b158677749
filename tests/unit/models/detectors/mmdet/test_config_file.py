"""Test that a user's config is read as mmengine reads it, without executing a line of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from skinbatch.errors import PackError
from skinbatch.models.detectors.mmdet.config_file import read_file


def config(folder: Path, text: str, name: str = "my.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def plain(value: Any) -> Any:
    """Return values without mmengine's own mark of where a base was."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != "_scope_"}
    return type(value)(plain(item) for item in value) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    "name",
    [
        "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
        "cascade_rcnn/cascade-rcnn_r50_fpn_20e_coco.py",
        "retinanet/retinanet_r50_fpn_1x_coco.py",
        "ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py",
        "yolo/yolov3_d53_8xb8-320-273e_coco.py",
        "yolox/yolox_tiny_8xb8-300e_coco.py",
        "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
        "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
        "detr/detr_r50_8xb2-150e_coco.py",
        "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py",
    ],
)
def test_mmdets_own_configs_are_read_as_mmengine_executes_them(
    name: str, mmdet_configs: Path
) -> None:
    from mmengine.config import Config

    executed = Config.fromfile(str(mmdet_configs / name)).to_dict()
    assert plain(read_file(mmdet_configs / name)) == plain(executed)


def test_values_are_those_of_python(tmp_path: Path) -> None:
    text = """
side = 2 * (320 - 20) // 2 + 4 % 3
half = side / 2
low = -1.5
first = second = (side,) * 2
steps = [dict(type='Resize', scale=(side, side)), *({'a': 1}, {'b': [True, None]})]
steps += [dict(**steps[1], c=steps[0]['type'] + "!", d=f'{side} px')]
tail = steps[-1:]
kinds = tuple(['x'])
"""
    expected: dict[str, Any] = {}
    exec(text, {}, expected)
    assert read_file(config(tmp_path, '"""What it is."""' + text)) == expected


def test_a_list_made_item_by_item_is_that_list(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        "x = 7\nscales = [(x, x), (8, 8)]\nruns = [dict(scale=x, n=[i for i in range(2)]) for x in scales]\n",
    )
    values = read_file(path)
    assert values["runs"] == [{"scale": (7, 7), "n": [0, 1]}, {"scale": (8, 8), "n": [0, 1]}]
    assert values["x"] == 7


def test_bases_are_merged_table_by_table_and_delete_starts_anew(tmp_path: Path) -> None:
    config(
        tmp_path,
        "model = dict(head=dict(n=80, w=1), neck=dict(a=1, b=2), seen=[1, 2])\nsides = (3, 4)\n",
        "base/a.py",
    )
    config(tmp_path, "work = 'here'\n", "base/b.py")
    path = config(
        tmp_path,
        """_base_ = ['./base/a.py', 'base/b.py']
model = dict(head=dict(n=4), neck=dict(_delete_=True, c=dict(_delete_=True, d=3)), seen=[3])
again = {{_base_.sides}}
neck = _base_.model.neck
text = 'from {{ _base_.work }}'
""",
    )
    assert read_file(path) == {
        "model": {"head": {"n": 4, "w": 1}, "neck": {"c": {"d": 3}}, "seen": [3]},
        "sides": (3, 4),
        "work": "here",
        "again": (3, 4),
        "neck": {"a": 1, "b": 2},
        "text": "from here",
    }


def test_json_and_yaml_are_read_with_their_bases(tmp_path: Path) -> None:
    config(tmp_path, '{"model": {"type": "A", "n": 1}}', "base.json")
    yaml = config(
        tmp_path, "_base_: base.json\nmodel:\n  n: 2\nsame: '{{_base_.model.type}}'\n", "my.yaml"
    )
    assert read_file(yaml) == {"model": {"type": "A", "n": 2}, "same": "A"}
    path = config(tmp_path, "_base_ = 'my.yaml'\nmodel = dict(m=[])\n")
    assert read_file(path)["model"] == {"type": "A", "n": 2, "m": []}


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a = 1\nimport os\n", 2, "`import os` imports code"),
        ("from os import path", 1, "`from os import path` imports code"),
        ("with read_base():\n    from .x import *\n", 1, r"`with read_base\(\)` imports code"),
        ("\n\na = open('x')", 3, r"`open\(\.\.\.\)` calls code"),
        ("a = [].append(1)", 1, "calls code"),
        ("a = dict(b=__import__('os').system('touch x'))", 1, "calls code"),
        ("a = f'{open(1)}'", 1, "calls code"),
        ("a = [open(x) for x in 'ab']", 1, "is not a list"),
        ("a = [open(x) for x in ['ab']]", 1, "calls code"),
        ("a = dict\nb = 1", 1, "`dict` was not assigned before"),
        ("a = 'x'.__class__", 1, "looks into an object"),
        ("a = lambda: 1", 1, "is not a plain value"),
        ("def f():\n    return 1", 1, "is more than an assignment"),
        ("for i in [1]:\n    a = i", 1, "is more than an assignment"),
        ("a, b = 1, 2", 1, "is more than an assignment"),
        ("a = {}\na['b'] = 1", 2, "is more than an assignment"),
        ("open('x')", 1, "is more than an assignment"),
        ("a = 'x' % 3", 1, "is not simple arithmetic"),
        ("a = 9 ** 9", 1, "is not simple arithmetic"),
        ("a = [0] * 1000000000", 1, "is too long"),
        (
            "a = [[[0 for i in range(99)] for j in range(99)] for k in range(99)]",
            1,
            "more than 500,000 values",
        ),
        ("a = 'x' * 400000\nb = f'{a}{a}'", 2, "is too long"),
        ("a = [1]\nb = f'{a}'", 2, "puts a list or table into a text"),
        ("a = 10 ** 18\n", 1, "is not simple arithmetic"),
        ("a = 1000000000\nb = a * a\nc = b * b", 3, "is too large"),
        ("a = list(range(1000000))", 1, r"`range\(\.\.\.\)` calls code"),
        ("_base_ = 'mmdet::_base_/default_runtime.py'", 1, "is not a file beside the config"),
        ("_base_ = '/etc/passwd.py'", 1, "is not a file beside the config"),
        ("a = b + 1", 1, "`b` was not assigned before"),
    ],
)
def test_anything_that_would_have_to_be_executed_is_refused_with_line_and_way_out(
    text: str, line: int, what: str, tmp_path: Path
) -> None:
    with pytest.raises(
        PackError,
        match=rf"my\.py:{line}: .*{what}.*\. A config is read, never executed\..*dump\('flat",
    ):
        read_file(config(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("my.py", "a = [1] * 1000\nb = [a] * 1000\nmodel = [b] * 1000\n"),
        ("my.yaml", "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
            f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in itertools.pairwise("abcdefgh"))),
    ],
    ids=["python", "yaml"],
)  # fmt: skip
def test_a_short_file_of_endless_values_is_refused_at_once(
    name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PackError, match=r"makes more than 500,000 values; that is not a config"):
        read_file(tmp_path / name)


def test_a_base_that_is_referred_to_a_thousand_times_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text("a = [1] * 100000\n")
    (tmp_path / "my.json").write_text(
        '{"_base_": "base.py", "b": [' + ", ".join(['"{{_base_.a}}"'] * 1000) + "]}"
    )
    with pytest.raises(PackError, match=r"my\.json: makes more than 500,000 values"):
        read_file(tmp_path / "my.json")


def test_nothing_of_a_config_is_executed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = config(
        tmp_path, f"a = open({str(trace)!r}, 'w').write('x')\nmodel = dict(type='YOLOX')\n"
    )
    with pytest.raises(PackError):
        read_file(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("text", "name", "what"),
    [
        ("a = (", "my.py", r"my\.py:1: not Python"),
        ("a = 1 / 0", "my.py", r"my\.py:1: `1 / 0`: division by zero"),
        ("a = [1][3]", "my.py", r"my\.py:1: there is no `\[1\]\[3\]`"),
        ("a = _base_.model", "my.py", r"my\.py:1: _base_\.model is in none of its bases"),
        ("_base_ = 'my.py'", "my.py", "is its own base"),
        ("_base_ = 'not_there.py'", "my.py", "not_there.py: config cannot be read"),
        ("{", "my.json", "not readable as json"),
        ("[1]", "my.json", "a config is a table"),
        ("a: [", "my.yaml", "not readable as yaml"),
        ("a: !!python/object/apply:os.system ['true']", "my.yaml", "not readable as yaml"),
        ("x", "my.txt", r"not a config; there are \.py, \.json"),
        ("a = " + "[" * 5000 + "]" * 5000, "my.py", r"nested too deeply|not Python"),
    ],
)
def test_mistakes_name_the_file(text: str, name: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(PackError, match=what):
        read_file(config(tmp_path, text, name))


def test_two_bases_with_one_name_and_a_table_over_a_number_are_refused(tmp_path: Path) -> None:
    config(tmp_path, "a = 1", "x.py")
    config(tmp_path, "a = 2", "y.py")
    with pytest.raises(PackError, match="`a` is in two of its bases"):
        read_file(config(tmp_path, "_base_ = ['x.py', 'y.py']"))
    with pytest.raises(PackError, match="`a` is a table here but not in the base"):
        read_file(config(tmp_path, "_base_ = 'x.py'\na = dict(b=1)"))
