"""Test that listed photos become units, and that unchanged ones stay as they were."""

from dataclasses import replace
from threading import Barrier

import pyarrow as pa
import pyarrow.parquet as pq

from skinbatch.runs import layout, plan
from skinbatch.runs.listed import amend, collect, replace_shards
from skinbatch.runs.plan import PlanWriter
from skinbatch.storage.local import LocalStore
from skinbatch.types import ImageRef, MemberSelection, ShardRef
from tests.unit.runs.support import FP, photos, write_plan

TAR = ShardRef("a/one.tar", "/x/a/one.tar", "tar", 10_000, "7")
ZIP = ShardRef("two.zip", "/x/two.zip", "zip", 300 << 20, "8")


def writer(store: LocalStore, members: int = 0) -> PlanWriter:
    return PlanWriter(store, FP, count_members=lambda shard: members)


def test_a_plan_is_read_back_as_it_was_written(store: LocalStore) -> None:
    refs = [replace(r, meta={"subject": "7", "note": "ü"}) for r in photos(50)]
    written = writer(store).write(collect([*refs, TAR]), None, 2)
    assert plan.names(store, FP) == [written.name]
    again = plan.read(store, FP, written.name)
    assert again == written
    units = list(plan.work_units(store, FP, again, again.units))
    assert sorted((r for u in units for r in u.images), key=lambda r: r.image_id) == refs
    assert [u.shard for u in units if u.shard] == [TAR]
    assert [u.inputs_sha256 for u in units] == [u.inputs_sha256 for u in again.units]


def test_what_is_wanted_of_an_archive_file_is_in_the_plan_and_makes_another_one(
    store: LocalStore,
) -> None:
    chosen = replace(TAR, selection=MemberSelection(("*.jpg",), ("*/b/*",), ("x",), alone=True))
    first = writer(store).write(collect([TAR]), None, 0)
    second = writer(store).write(collect([chosen]), first, 0)
    assert second.name != first.name
    (unit,) = plan.read(store, FP, second.name).units
    assert unit.shard == chosen
    assert writer(store).write(collect([chosen]), plan.read(store, FP, second.name), 0) == second


def test_a_plan_from_before_there_were_selections_is_read_and_stays_the_newest(
    store: LocalStore,
) -> None:
    written = writer(store).write(collect([*photos(5), TAR]), None, 0)
    key = f"{layout.plans_prefix(FP)}{written.name}/units.parquet"
    table = pq.read_table(pa.BufferReader(store.get(key)[0]))
    out = pa.BufferOutputStream()
    pq.write_table(table.drop_columns("selection"), out)
    store.put(key, bytes(out.getvalue()))
    older = plan.read(store, FP, written.name)
    assert older == written
    assert writer(store).write(collect([*photos(5), TAR]), older, 0) == older


def test_the_same_listing_in_another_order_is_the_same_plan(store: LocalStore) -> None:
    first = write_plan(store, [*photos(50), TAR])
    assert write_plan(store, [TAR, *reversed(photos(50))], first) is first


def test_one_changed_photo_changes_one_unit(store: LocalStore) -> None:
    first = write_plan(store, photos(200))
    refs = photos(200)
    refs[17] = replace(refs[17], version="2")
    second = write_plan(store, refs, first)
    before = {u.unit_id: u.inputs_sha256 for u in first.units}
    assert [u.unit_id for u in second.units if before[u.unit_id] != u.inputs_sha256].__len__() == 1
    assert second.number == first.number + 1


def test_a_photo_that_is_listed_twice_is_one_row(store: LocalStore) -> None:
    current = write_plan(store, [*photos(20), *photos(20)])
    assert current.photos == 20


def test_an_unfinished_plan_is_not_a_plan(store: LocalStore) -> None:
    first = write_plan(store, photos(20))
    store.delete([f"_skinbatch/plans/{FP}/{first.name}/units.parquet"])
    assert plan.names(store, FP) == []


def test_a_large_zip_is_cut_into_ranges_that_cover_it_once_and_counted_only_when_it_changes(
    store: LocalStore,
) -> None:
    first = writer(store, members=2000).write(collect([ZIP]), None, 0)
    ranges = [(u.start, u.stop) for u in first.units]
    assert ranges == [(0, 512), (512, 1024), (1024, 1536), (1536, None)]
    assert sum(u.count or 0 for u in first.units) == 2000
    assert writer(store, members=-1).write(collect([ZIP]), first, 0) is first


def test_a_zip_of_a_million_members_is_few_parts(store: LocalStore) -> None:
    units = writer(store, members=1_000_000).write(collect([ZIP]), None, 0).units
    assert len(units) == plan.MOST_PARTS
    assert [u.start for u in units][1:] == [u.stop for u in units][:-1]
    assert sum(u.count or 0 for u in units) == 1_000_000


def test_small_zips_and_tars_are_one_unit(store: LocalStore) -> None:
    small = replace(ZIP, size=1000)
    assert [(u.start, u.stop) for u in write_plan(store, [small, TAR]).units] == [
        (0, None),
        (0, None),
    ]


def test_amending_takes_out_what_is_gone_and_takes_in_what_changed(store: LocalStore) -> None:
    current = write_plan(store, [*photos(30), TAR])
    listing = plan.read_listing(store, FP, current)
    changed = ImageRef("00003.jpg", "/photos/00003.jpg", 999, "9")
    amended = amend(listing, {"00003.jpg": changed}, ["00004.jpg"])
    after = writer(store).write(amended, current, 2)
    found = {
        r.image_id: r for u in plan.work_units(store, FP, after, after.units) for r in u.images
    }
    assert len(found) == 29
    assert found["00003.jpg"] == changed
    assert "00004.jpg" not in found
    assert [u.shard for u in after.units if u.shard] == [TAR]


def test_an_archive_file_that_changed_is_planned_anew_and_one_that_went_is_left_out(
    store: LocalStore,
) -> None:
    current = write_plan(store, [*photos(5), TAR, ZIP])
    listing = amend(plan.read_listing(store, FP, current), {}, [])
    changed = replace(TAR, version="8")
    after = writer(store).write(
        replace_shards(listing, {TAR.key: changed, ZIP.key: None}), current, 2
    )
    assert [u.shard for u in after.units if u.shard] == [changed]
    assert after.photos == 5


def test_large_archive_files_are_opened_at_the_same_time(store: LocalStore) -> None:
    both = Barrier(2, timeout=20)  # broken, unless two are open at once

    def count(shard: ShardRef) -> int:
        both.wait()
        return 600

    zips = [replace(ZIP, key=f"{n}.zip", uri=f"/x/{n}.zip") for n in range(2)]
    found = PlanWriter(store, FP, count_members=count).write(collect(zips), None, 0)
    assert sorted(u.shard.key for u in found.units if u.shard) == ["0.zip", "1.zip"]
