"""Test that the ids of units are formed and taken apart in the same way."""

from __future__ import annotations

import pickle

import pytest

from skinbatch.types import ImageRef, ShardRef, WorkUnit
from skinbatch.unit_id import UnitId, family_of

SHARD = UnitId.of_shard(0xF1)


@pytest.mark.parametrize(
    ("unit_id", "planned", "family", "path"),
    [
        (UnitId.of_group("0110"), "g0110", "g0110", ()),
        (UnitId.of_group(""), "g", "g", ()),
        (UnitId.of_group("0110").halves[1], "g0110", "g0110", (1,)),
        (SHARD, "s00000000000000f1", "s00000000000000f1", ()),
        (SHARD.part(3), "s00000000000000f1-00003", "s00000000000000f1", ()),
        (
            SHARD.part(3).halves[1].halves[0],
            "s00000000000000f1-00003",
            "s00000000000000f1",
            (1, 0),
        ),
    ],
)
def test_an_id_tells_of_what_the_unit_is_a_part(
    unit_id: UnitId, planned: str, family: str, path: tuple[int, ...]
) -> None:
    assert (unit_id.planned, unit_id.family, unit_id.path) == (planned, family, path)
    assert family_of(unit_id) == family
    assert unit_id.is_half == bool(path)
    assert unit_id.is_of_shard == family.startswith("s")


def test_a_half_names_every_unit_that_was_halved_to_make_it() -> None:
    half = SHARD.halves[1].halves[0]
    assert half.halved == [SHARD.halves[1], SHARD]
    assert SHARD.halved == []


def test_a_group_is_within_each_group_that_it_was_split_from() -> None:
    group = UnitId.of_group("011")
    assert group.bits == "011"
    assert group.wider_groups == ["g", "g0", "g01"]
    assert all(group.is_within(wider) for wider in group.wider_groups)
    assert not group.is_within("g00")


def test_parts_of_a_shard_sort_by_their_number() -> None:
    parts = [SHARD.part(number) for number in (0, 2, 10, 100)]
    assert sorted(parts) == parts


def test_the_halves_of_a_unit_have_the_ids_of_halves() -> None:
    loose = WorkUnit(UnitId.of_group("0"), tuple(ImageRef(name, f"/p/{name}") for name in "ab"))
    shard = WorkUnit(SHARD, shard=ShardRef("a.tar", "/p/a.tar", "tar", 1, "1"), stop=4)
    for unit in (loose, shard):
        assert [half.unit_id for half in unit.halves()] == list(UnitId(unit.unit_id).halves)


@pytest.mark.parametrize("text", ["", ".", "a.", "-", "stray.tmp", "s-1-2"])
def test_any_name_of_a_stray_object_can_be_read(text: str) -> None:
    unit_id = UnitId(text)
    assert text.startswith(unit_id.family)
    assert unit_id.planned.startswith(unit_id.family)
    assert unit_id.halved == [] if "." not in text else unit_id.halved[-1] == unit_id.planned


def test_an_id_stays_an_id_on_its_way_to_a_worker() -> None:
    half = pickle.loads(pickle.dumps(SHARD.halves[0]))
    assert isinstance(half, UnitId) and half == SHARD.halves[0]
