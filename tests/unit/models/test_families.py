"""Test that every architecture has code that handles it, and that its defaults are right for its stage."""

import json

import pytest

from skinbatch.models.architectures import ARCHITECTURES, Architecture
from skinbatch.models.families import defaults_of, family_of
from skinbatch.models.stages import STAGES

ENTRIES = [entry for entries in ARCHITECTURES.values() for entry in entries.values()]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_architecture_belongs_to_a_family_that_builds_it(entry: Architecture) -> None:
    family = family_of(entry)
    assert callable(family.build)
    assert (family.recognise is None) == (entry.weights == "none"), "only fakes are not imported"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_defaults_of_an_architecture_are_fields_of_its_stage(entry: Architecture) -> None:
    backbone = "resnet18" if entry.own_field == "backbone" else None
    own = {"layout": "v8", "config_sha256": "0" * 64, "backbone": "resnet18"}
    fields = {"arch": entry.name, "classes": entry.classes or ("background", "skin", "nose")}
    if entry.own_field:
        fields[entry.own_field] = own[entry.own_field]
    if entry.weights != "none":
        fields["sha256"] = "0" * 64

    fields |= defaults_of(entry, backbone)
    stage = STAGES[entry.stage].model_validate_json(json.dumps(fields))
    assert stage.architecture is entry


def test_own_fields_belong_to_one_architecture_each() -> None:
    fields = [entry.own_field for entry in ENTRIES if entry.own_field]
    assert sorted(fields) == sorted(set(fields)) == ["backbone", "config_sha256", "layout"]
