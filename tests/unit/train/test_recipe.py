"""Test recipes: what a file may contain, what is refused, and that a printed recipe reads back the same."""

from __future__ import annotations

from pathlib import Path

import pytest

import skinbatch
from skinbatch.errors import PackError, UsageError
from skinbatch.models.stages import ClassifierStage, SegmenterStage
from skinbatch.train.fitting.recipe_parts import parts_of
from skinbatch.train.recipe import Recipe
from skinbatch.train.recipe_file import read_recipe
from skinbatch.train.shipped import find_recipe, headline, shipped_recipes

RECIPES = Path(skinbatch.__file__).parent / "train" / "recipes"
CLASSIFIER = """
stage = "classifier"
name = "mine"
[model]
arch = "resnet50"
classes = ["rosacea", "lupus"]
[data]
train = [{ truth = "photos" }]
valid_share = 0.25
[schedule]
epochs = 3
"""


def read(folder: Path, text: str = CLASSIFIER, stage: str | None = None) -> Recipe:
    (folder / "recipe.toml").write_text(text)
    return read_recipe(folder / "recipe.toml", stage)


def changed(before: str, after: str) -> str:
    assert before in CLASSIFIER
    return CLASSIFIER.replace(before, after)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda p: p.stem)
def test_the_recipes_of_the_papers_are_read(path: Path) -> None:
    recipe = read_recipe(path)
    of_one_pack = path.stem in ("starter_segmenter", "starter_detector", "starter_classifier")
    assert recipe.name == ("new-starter" if of_one_pack else path.stem.replace("_", "-"))
    assert recipe.base == "starter"


def test_the_recipes_say_what_their_papers_say() -> None:
    bisenet = read_recipe(RECIPES / "celebamask_bisenet.toml", "segmenter")
    schedule = bisenet.schedule
    assert (schedule.optimiser, schedule.lr, schedule.momentum, schedule.weight_decay) == (
        "sgd",
        1e-2,
        0.9,
        1e-5,
    )
    assert schedule.iterations == 80_000
    assert bisenet.model.stage.size == 512
    disease = read_recipe(RECIPES / "disease_inception_resnet_v2.toml")
    assert [t.name for t in disease.transfer] == ["body"]
    assert disease.schedule.class_weights == "balanced"
    acne = read_recipe(RECIPES / "acne_densenet121.toml")
    assert isinstance(acne.model.stage, ClassifierStage)
    assert (acne.schedule.lr, acne.schedule.epochs, acne.model.stage.input) == (
        3e-4,
        50,
        "masked_crop",
    )
    lesions = read_recipe(RECIPES / "lesions_cnn_multilabel.toml").model.stage
    assert isinstance(lesions, ClassifierStage)
    assert (lesions.size, lesions.mean, lesions.std, lesions.outputs) == (
        416,
        (0, 0, 0),
        (1, 1, 1),
        "logistic",
    )
    frozen = read_recipe(RECIPES / "lesions_frozen_vgg19.toml")
    assert (frozen.model.freeze, frozen.schedule.optimiser, frozen.schedule.lr) == (
        "backbone",
        "rmsprop",
        1e-4,
    )


def test_a_recipe_of_the_package_is_found_by_its_name_and_described() -> None:
    assert set(shipped_recipes()) == {path.stem for path in RECIPES.glob("*.toml")}
    assert find_recipe("starter_detector") == RECIPES / "starter_detector.toml"
    assert headline(find_recipe("acne_densenet121")).startswith("Paper 001")
    with pytest.raises(
        UsageError, match="starter_detectr: no such recipe; did you mean starter_detector"
    ):
        find_recipe("starter_detectr")


def test_photos_of_a_recipe_of_the_package_are_in_the_current_folder_or_the_one_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = read_recipe(find_recipe("acne04_yolox"))
    assert here.data.train[0].truth == tmp_path / "acne04/train"

    there = read_recipe(find_recipe("acne04_yolox"), data_folder=Path("photos"))
    assert there.data.valid[0].truth == tmp_path / "photos/acne04/valid"
    assert there.data.negatives[0].photos == tmp_path / "photos/celebamask/images"

    # A card prints the same recipe wherever the photos are.
    assert there.as_toml() == here.as_toml()
    assert 'truth = "acne04/train"' in there.as_toml()

    with pytest.raises(
        UsageError, match=f"{tmp_path / 'photos'} is where the photos were looked for; .*--data"
    ):
        there.check_files()


def test_weights_are_looked_for_in_the_recipes_folder_wherever_the_photos_are(
    tmp_path: Path,
) -> None:
    (tmp_path / "own.safetensors").touch()
    (tmp_path / "recipe.toml").write_text(
        changed('"resnet50"', '"resnet50"\nweights = "own.safetensors"')
    )
    recipe = read_recipe(tmp_path / "recipe.toml", data_folder=tmp_path / "elsewhere")
    assert recipe.start_from() == tmp_path / "own.safetensors"
    assert recipe.data.train[0].truth == tmp_path / "elsewhere" / "photos"

    # A file elsewhere gives the same settings with other paths.
    moved = recipe.placed(tmp_path / "deep" / "recipe.toml", {})
    (tmp_path / "deep").mkdir()
    moved.file.write_text(moved.as_toml())
    again = read_recipe(moved.file)
    assert again.data.train[0].truth == recipe.data.train[0].truth
    assert again.start_from() == recipe.start_from()


def test_weights_that_have_to_be_fetched_come_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UsageError,
        match=r"no such file, and no pack; `python -m skinbatch.train.imagenet_backbone`",
    ):
        read_recipe(find_recipe("starter_classifier")).start_from()


def test_what_goes_with_an_architecture_is_filled_in(tmp_path: Path) -> None:
    stage = read(tmp_path).model.stage
    assert isinstance(stage, ClassifierStage)
    assert (stage.size, stage.top, stage.outputs) == (300, "pooled", "logistic")
    text = changed('arch = "resnet50"', 'arch = "bisenet-r18"').replace(
        '"rosacea", "lupus"', '"background", "skin", "nose"'
    )
    segmenter = read(tmp_path, text.replace('"classifier"', '"segmenter"')).model.stage
    assert isinstance(segmenter, SegmenterStage)
    assert segmenter.size == 512


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    recipe = read(tmp_path / "deep", changed("photos", "../photos"))
    assert recipe.data.train[0].truth == tmp_path / "photos"


def test_one_number_for_a_factor_is_both_ways(tmp_path: Path) -> None:
    recipe = read(tmp_path, CLASSIFIER + "[augment]\nscale = 1.25\nstretch = [0.5, 1.0]\n")
    assert recipe.augment.scale == pytest.approx((0.8, 1.25))
    assert recipe.augment.stretch == (0.5, 1.0)


def test_a_recipe_reads_back_as_a_card_prints_it(tmp_path: Path) -> None:
    text = CLASSIFIER + (
        '[data.map]\n"*" = ""\n"lupus erythematosus" = "lupus"\n'
        "[augment]\nscale = 1.3\n"
        '[[transfer]]\nname = "body"\ndata = { train = [{ truth = "body" }], valid = [{ truth = "v" }] }\n'
        "schedule = { minutes = 2 }\n"
    )
    recipe = read(tmp_path, text)
    printed = recipe.as_toml()
    (tmp_path / "again.toml").write_text(printed)
    again = read_recipe(tmp_path / "again.toml")
    assert again.as_dict() == recipe.as_dict()
    assert again.data.map == {"*": "", "lupus erythematosus": "lupus"}
    assert str(tmp_path) not in printed


def test_a_link_to_photos_elsewhere_is_printed_as_the_recipe_has_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "photos").symlink_to(tmp_path / "elsewhere")
    assert '[{ truth = "photos" }]' in read(tmp_path / "recipes").as_toml()


def test_an_earlier_training_has_the_recipes_photos_at_a_size_of_its_own(tmp_path: Path) -> None:
    text = CLASSIFIER + '[[transfer]]\nname = "small"\nsize = 64\nschedule = { epochs = 1 }\n'
    small, last = parts_of(read(tmp_path, text))
    assert (small.stage.size, last.stage.size) == (64, 300)
    assert small.data == last.data

    with pytest.raises(UsageError, match="size"):
        read(tmp_path, text.replace("size = 64", "size = 65"))


def test_a_detector_is_not_trained_in_bf16(tmp_path: Path) -> None:
    text = CLASSIFIER + '[run]\nprecision = "bf16"\n'
    assert read(tmp_path, text).run.precision == "bf16"

    detector = (
        text.replace('"classifier"', '"detector"')
        .replace('"resnet50"', '"yolox-efficientnet-lite0"')
        .replace('"rosacea", "lupus"', '"acne"')
    )
    with pytest.raises(UsageError, match="not trained in bf16"):
        read(tmp_path, detector)


def test_own_class_names_are_themselves_before_the_rest_is_mapped(tmp_path: Path) -> None:
    recipe = read(tmp_path, CLASSIFIER + '[data.map]\n"*" = "lupus"\n')
    assert recipe.data.mapping(recipe.classes) == {
        "rosacea": "rosacea",
        "lupus": "lupus",
        "*": "lupus",
    }


def test_a_group_is_a_pattern_or_a_column(tmp_path: Path) -> None:
    pattern = read(
        tmp_path, CLASSIFIER.replace("valid_share", "group = '(\\w+)_\\d+'\nvalid_share")
    ).data
    assert pattern.grouping is not None
    assert pattern.grouping.of_name("p7_12.jpg") == "p7"
    column = read(
        tmp_path, CLASSIFIER.replace("valid_share", 'group = "patient"\nvalid_share')
    ).data
    assert column.grouping is not None
    assert (column.grouping.pattern, column.grouping.column) == (None, "patient")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            "epochs = 3",
            "epocs = 3",
            "unknown setting `schedule.epocs`; there are: epochs, iterations, minutes",
        ),
        (
            "epochs = 3",
            "epochs = 3\nminutes = 2",
            "[schedule]: give one of `epochs`, `iterations` and `minutes`",
        ),
        (
            "epochs = 3",
            "epochs = 0",
            "setting `schedule.epochs`: Input should be greater than or equal to 1 (got 0)",
        ),
        (
            "valid_share = 0.25",
            "",
            "[data]: give either `valid`, a list of truths, or `valid_share`",
        ),
        (
            "valid_share = 0.25",
            "valid_share = 2.5",
            "setting `data.valid_share`: Input should be less than 1",
        ),
        ('[{ truth = "photos" }]', "[]", "[data]: `train` is a list of truths"),
        (
            '"photos"',
            '"photos", x = 1',
            "unknown setting `data.train.0.x`; there are: crop, face, truth, photos, format",
        ),
        (
            'truth = "photos"',
            'truth = "photos", format = "xml"',
            "setting `data.train.0.format`: Input should be 'voc'",
        ),
        ("valid_share", "group = '('\nvalid_share", "[data]: `group` is not a regular expression"),
        (
            "valid_share",
            'map = { a = "acne" }\nvalid_share',
            "'a' becomes 'acne', which is not a class of the model: rosacea, lupus",
        ),
        ("resnet50", "resnet51", "setting `model.arch`: must be one of resnet50, inception_v3"),
        (
            '"resnet50"',
            '"resnet50"\nsise = 3',
            "unknown setting `model.sise`; there are: arch, classes",
        ),
        (
            '"resnet50"',
            '"resnet50"\nsize = 3',
            "setting `model.size`: Input should be greater than or equal to 32",
        ),
        ('"resnet50"', '"timm"\nbackbone = "none"', "setting `model.backbone`: timm"),
        ('"resnet50"', '"resnet50"\nsha256 = "0"', "unknown setting `model.sha256`"),
        (
            '"resnet50"',
            '"resnet50"\nfit_anchors = 3',
            "setting `model.fit_anchors` is only for detectors",
        ),
        (
            '"resnet50"',
            '"resnet50"\nfreeze = "backbone"',
            "setting `model.freeze` would freeze random weights",
        ),
        (
            "valid_share",
            'apart = ["lupos"]\nvalid_share',
            "setting `data.apart`: 'lupos' is not a class of the model: rosacea",
        ),
        ('name = "mine"', 'name = "my pack"', "setting `name`"),
        (
            "[model]",
            "seed = 4294967296\n[model]",
            "setting `seed`: Input should be less than 4294967296",
        ),
        (
            "[schedule]",
            "[augment]\nmosaic = 0.5\n[schedule]",
            "setting `augment.mosaic` does not apply to a classifier",
        ),
        (
            "valid_share",
            'stretched = "4:3"\nvalid_share',
            "setting `data.stretched` does not apply to a classifier",
        ),
        (
            'stage = "classifier"',
            'stage = "class"',
            "setting `stage`: must be one of segmenter, detector, classifier",
        ),
        ("[schedule]\nepochs = 3", "", "setting `schedule` is missing"),
        ("epochs = 3", "epochs =", "not readable as TOML"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_setting(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    with pytest.raises(UsageError) as error:
        read(tmp_path, changed(before, after))
    (line,) = str(error.value).splitlines()
    assert line.startswith(str(tmp_path / "recipe.toml"))
    assert said in line


def test_several_mistakes_are_a_line_each(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        read(tmp_path, changed("epochs = 3", "epochs = -1").replace("valid_share = 0.25", ""))
    assert len(str(error.value).splitlines()) == 2


def test_a_recipe_of_another_stage_is_told_its_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="skinbatch train classifier"):
        read(tmp_path, stage="segmenter")


def test_files_that_are_not_there_are_named_all_at_once(tmp_path: Path) -> None:
    recipe = read(
        tmp_path, CLASSIFIER.replace("valid_share", 'negatives = ["healthy"]\nvalid_share')
    )
    with pytest.raises(UsageError) as error:
        recipe.check_files()
    assert [
        name in line
        for name, line in zip(("photos", "healthy"), str(error.value).splitlines(), strict=True)
    ]


def test_training_starts_from_a_file_or_from_the_stage_of_a_pack(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "own.safetensors").touch()
    own = read(tmp_path, changed('"resnet50"', '"resnet50"\nweights = "own.safetensors"'))
    assert own.start_from() == tmp_path / "own.safetensors"
    pack = read(tmp_path, changed('"resnet50"', '"resnet50"\nweights = "starter"')).start_from()
    assert pack is not None
    assert pack.name == "classifier-disease.safetensors"
    with pytest.raises(UsageError, match=r"model.weights.*gone.pth: no such file, and no pack"):
        read(tmp_path, changed('"resnet50"', '"resnet50"\nweights = "gone.pth"')).check_files()
    with pytest.raises(PackError, match=r"setting `base`: nobody: no such pack"):
        read(tmp_path, changed('name = "mine"', 'name = "mine"\nbase = "nobody"')).check_files()


@pytest.mark.parametrize(
    ("section", "setting"),
    [("data", 'negatives = ["faces"]'), ("data", "face = true"), ("augment", "on_lesion = 0.5")],
)
def test_what_changes_nothing_of_a_segmenter_is_refused(
    tmp_path: Path, section: str, setting: str
) -> None:
    whole = (RECIPES / "starter_segmenter.toml").read_text()
    with pytest.raises(
        UsageError, match=rf"`{section}\.{setting.split()[0]}` does not apply to a segmenter"
    ):
        read(tmp_path, whole.replace(f"[{section}]\n", f"[{section}]\n{setting}\n"))
