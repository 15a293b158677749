import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skinbatch.tables.names import (
    column_name,
    count_columns,
    meta_columns,
    original_text,
    prob_columns,
    safe_text,
)


def test_class_names_become_lower_case_with_underscores() -> None:
    assert column_name("Whitehead and Blackhead") == "whitehead_and_blackhead"
    assert column_name("AK/SK-2") == "ak_sk_2"
    assert column_name("Pustel äöü") == "pustel____"


def test_ordinary_names_are_left_alone() -> None:
    for name in ("00000/00012.png", "a b/ä.jpg", "患者/1.webp", "c:\\photos\\x.jpg", "50%.jpg"):
        assert safe_text(name) == name


def test_bytes_that_are_no_utf8_are_written_out_and_found_again() -> None:
    name = os.fsdecode(b"caf\xe9/\xff.jpg")
    assert safe_text(name) == r"caf\x{e9}/\x{ff}.jpg"
    assert os.fsencode(original_text(safe_text(name))) == b"caf\xe9/\xff.jpg"


def test_a_name_that_looks_like_an_escape_is_not_taken_for_one() -> None:
    assert safe_text(r"\x{ff}.jpg") != safe_text(os.fsdecode(b"\xff.jpg"))


@given(
    st.text(
        st.one_of(st.sampled_from("\\x{}05cfd"), st.characters(), st.characters(categories=["Cs"]))
    )
)
def test_safe_text_is_reversible_and_always_utf8(text: str) -> None:
    assert original_text(safe_text(text)) == text
    safe_text(text).encode("utf-8")


def test_classes_that_fall_together_get_a_suffix() -> None:
    assert count_columns(["Papule", "papule", "total"]) == {
        "Papule": "count_papule",
        "papule": "count_papule_2",
        "total": "count_total_2",
    }


@pytest.mark.parametrize(
    ("head", "column"), [("disease", "prob_sk_like"), ("Acne grade", "acne_grade_prob_sk_like")]
)
def test_the_disease_head_has_short_columns_and_others_carry_their_name(
    head: str, column: str
) -> None:
    assert prob_columns(head, ["SK-like"]) == {"SK-like": column}


def test_pass_through_names_are_sorted_kept_and_told_apart_without_regard_to_case() -> None:
    assert list(meta_columns({"age", "Age", "Patient ID", "\udcff"}).values()) == [
        "meta_Age",
        "meta_Patient ID",
        "meta_age_2",
        r"meta_\x{ff}",
    ]
