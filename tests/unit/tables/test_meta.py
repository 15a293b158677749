"""Test that pass-through fields are one JSON object per row in files, and columns when tables are read."""

from __future__ import annotations

import json

import pyarrow as pa

from skinbatch.tables.meta import add_meta_columns, meta_json, with_meta
from skinbatch.tables.schema import META_FIELD


def table(*texts: str) -> pa.Table:
    ids = pa.array([str(n) for n in range(len(texts))])
    return pa.table(
        [ids, pa.array(texts, pa.string())],
        schema=pa.schema([pa.field("image_id", pa.string()), META_FIELD]),
    )


def test_fields_are_sorted_and_nothing_is_an_empty_object() -> None:
    assert meta_json({}) == "{}"
    assert meta_json({"b": "2", "a": 'x "y"'}) == r'{"a": "x \"y\"", "b": "2"}'


def test_control_characters_and_other_letters_come_back() -> None:
    fields = {"a": "x\x00\x01\n", "Größe": "é😀", "": "no name"}
    assert json.loads(meta_json(fields)) == fields


def test_bytes_that_are_no_utf8_are_written_out() -> None:
    assert json.loads(meta_json({"\udcff": "\udcfe"})) == {r"\x{ff}": r"\x{fe}"}


def test_each_field_becomes_a_column() -> None:
    both = pa.concat_tables([table('{"b": "2"}', "{}"), table('{"a": "1", "b": "3"}'), table()])
    found = add_meta_columns(both)
    assert found.column_names == ["image_id", "meta", "meta_a", "meta_b"]
    assert found.column("meta_a").to_pylist() == [None, None, "1"]
    assert found.column("meta_b").to_pylist() == ["2", None, "3"]
    assert found.schema.field("meta_a").type == pa.string()


def test_names_that_differ_in_case_only_or_are_taken_are_numbered() -> None:
    taken = table('{"Age": "1", "age": "2", "x": "3"}').append_column("meta_x", pa.array([0.5]))
    assert add_meta_columns(taken).column_names == [
        "image_id",
        "meta",
        "meta_x",
        "meta_Age",
        "meta_age_2",
        "meta_x_2",
    ]


def test_names_that_are_no_utf8_are_escaped_once() -> None:
    assert add_meta_columns(table(meta_json({"\udcff": "1"}))).column_names[-1] == r"meta_\x{ff}"


def test_a_table_without_rows_or_fields_stays_as_it_is() -> None:
    assert add_meta_columns(table()).equals(table())
    assert add_meta_columns(table("{}")).equals(table("{}"))


def test_values_that_are_no_text_are_shown_as_json() -> None:
    shown = add_meta_columns(table('{"n": 1, "list": [1, "é"], "no": null}'))
    assert shown.select(shown.column_names[2:]).to_pylist() == [
        {"meta_list": '[1, "é"]', "meta_n": "1"}
    ]


def test_tables_of_version_1_give_the_same_columns_again() -> None:
    old = pa.table(
        {
            "image_id": ["0", "1"],
            "meta_prob_x": [0.5, 0.1],
            "meta_b": ["2", None],
            r"meta_\x{ff}": [None, "3"],
        }
    )
    new = with_meta(old, ["meta_prob_x"])
    assert new.column_names == ["image_id", "meta_prob_x", "meta"]
    assert new.schema.field("meta").equals(META_FIELD)
    shown = add_meta_columns(new)
    assert shown.select(sorted(old.column_names)).equals(old.select(sorted(old.column_names)))
    assert with_meta(new) is new
