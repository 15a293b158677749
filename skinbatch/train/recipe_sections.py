"""Define how a recipe trains: its tables but [model] and [data], as plain, validated values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from skinbatch.models.stages import Fraction, Name, Positive, Section
from skinbatch.train.recipe_data import AtLeastOne, DataSection


def _factors(value: Any) -> Any:
    """Turn one number such as 1.25 into the range from 1 / 1.25 to 1.25."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return (min(value, 1 / value), max(value, 1 / value))
    return tuple(value) if isinstance(value, list) else value


Count = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Factors = Annotated[tuple[Positive, Positive], BeforeValidator(_factors)]


class AugmentSection(Section):
    """Hold [augment]: random changes to training photos. 0, 1.0 for factors, or no value is off.

    Attributes:
        flip, flip_vertical: share of photos.
        rotate, shear: degrees, both ways.
        scale: factors from and to, log-uniform; one number x means 1 / x to x. At 1.0 the whole
            photo fills the network's input.
        stretch: width against height, as scale.
        translate: share of the input's side, both ways.
        crop: smallest share of the photo's sides that is left. For a detector: the side of a square
            at full scale, as a share of the photo's longer side.
        colour: 0-1, for exposure, contrast, white balance and saturation together.
        brightness: share, both ways.
        blur, jpeg, erase: share of photos that are blurred, strongly compressed as JPEG, or lose a
            rectangle.
        noise: standard deviation, pixel values.
        blemish: largest number of red and brown spots that are drawn on the skin.
        scene: share of faces that are put before another background (segmenter).
        closeup: share of faces of which only a small window of skin, nose or ear is shown
            (segmenter).
        mosaic: share of inputs that combine four photos.
        on_lesion: share of crops that are placed on a lesion (detector).
        off_lesion: share of the other crops that are placed where there is none.
        resolution, sharpen: share of photos that are shrunk and enlarged again, or sharpened.
    """

    flip: Fraction = 0.0
    flip_vertical: Fraction = 0.0
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    shear: Annotated[float, Field(ge=0, le=45)] = 0.0
    scale: Factors = (1.0, 1.0)
    stretch: Factors = (1.0, 1.0)
    translate: Fraction = 0.0
    crop: Fraction = 0.0
    colour: Fraction = 0.0
    brightness: Fraction = 0.0
    blur: Fraction = 0.0
    jpeg: Fraction = 0.0
    erase: Fraction = 0.0
    noise: NotNegative = 0.0
    blemish: Count = 0
    scene: Fraction = 0.0
    closeup: Fraction = 0.0
    mosaic: Fraction = 0.0
    on_lesion: Fraction = 0.0
    off_lesion: Fraction = 0.0
    resolution: Fraction = 0.0
    sharpen: Fraction = 0.0

    @model_validator(mode="after")
    def _check_factors(self) -> AugmentSection:
        for name in ("scale", "stretch"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(
                    f"`{name}` goes from the smaller factor to the larger, not from {low} to {high}"
                )
        return self


class CloneSection(Section):
    """Hold [clone]: lesions of the annotated photos are cloned onto other skin (detector).

    The segmenter of `base` finds the skin. Without [clone] a detector may learn to recognise the
    source of a photo, if one source has all the lesions and another all the clear faces.

    An evaluation clones lesions of the validation photos onto clear faces that are held back. Its
    score is the mean of AP50 and of the share of these lesions that is counted, less the share of
    plain patches that is counted.

    Attributes:
        on_clear, on_annotated: share of the crops of clear or annotated photos that get lesions.
        plain: share of all crops that get patches of plain skin, blended in like lesions, without a
            box.
        most: largest number of patches of either kind in a crop.
        size: sides of lesions, pixels of the network's input, from and to.
        most_plain_counted, most_boxes_a_face: largest share of the plain patches, and largest number
            of boxes on a clear face, that may be counted on the faces held back. The threshold with
            the best counts is raised until both hold.
    """

    on_clear: Fraction = 0.6
    on_annotated: Fraction = 0.3
    plain: Fraction = 0.5
    most: AtLeastOne = 6
    size: tuple[Positive, Positive] = (10.0, 56.0)
    most_plain_counted: Fraction = 1.0
    most_boxes_a_face: Positive | None = None

    @model_validator(mode="after")
    def _check_size(self) -> CloneSection:
        if self.size[0] > self.size[1]:
            raise ValueError(
                f"`size` goes from the smaller to the larger, not from {self.size[0]:g} to {self.size[1]:g}"
            )
        return self


class ScheduleSection(Section):
    """Hold [schedule], with one of epochs, iterations (steps of the optimiser) and minutes.

    Attributes:
        minutes: time on the clock, over all resumptions.
        batch: photos a step, over all workers.
        lr: the highest learning rate. It rises over `warmup` steps and, with decay `cosine`, then
            falls to 0.01 of it.
        hold: share of the schedule before the rate begins to fall. Until then no step depends on
            the length of the schedule.
        clip: largest norm of the gradients; 0 is off.
        ema: decay of the averaged weights, which are then the ones evaluated and kept; 0 is off.
        evaluate_every: epochs.
        patience: evaluations without improvement before training stops; 0 is never.
        class_weights: weights of the loss: one over the frequency (`balanced`) or its root
            (`sqrt`).
        sampling: the photos that a step shows. `all`: each once an epoch. `balanced`: at random.
            Each source of a segmenter is shown as often as the others; so is each class of a
            classifier, and photos of no class as often as all classes together.
    """

    epochs: AtLeastOne | None = None
    iterations: AtLeastOne | None = None
    minutes: Positive | None = None
    batch: AtLeastOne = 8
    lr: Positive = 1e-3
    optimiser: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    weight_decay: NotNegative = 0.0
    momentum: Decay = 0.9
    warmup: Count = 0
    decay: Literal["cosine", "constant"] = "cosine"
    hold: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: NotNegative = 0.0
    ema: Decay = 0.0
    evaluate_every: AtLeastOne = 1
    patience: Count = 0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: Literal["none", "balanced", "sqrt"] = "none"
    sampling: Literal["all", "balanced"] = "all"

    @model_validator(mode="after")
    def _check_length(self) -> ScheduleSection:
        if sum(length is not None for length in (self.epochs, self.iterations, self.minutes)) != 1:
            raise ValueError("give one of `epochs`, `iterations` and `minutes`")
        return self


class CalibrationSection(Section):
    """Hold [calibration]: what a classifier's probabilities and threshold have to achieve.

    After training, the probabilities are fitted to the validation photos. Below the threshold no
    class is named; the threshold is the lowest that reaches both shares on these photos.

    Attributes:
        none_kept: share of the photos in each folder of `negatives` for which no class is named.
        named_right: share of correct classes among the photos for which a class is named.
    """

    none_kept: Fraction = 0.98
    named_right: Fraction = 0.7


class TransferSection(Section):
    """Hold a [[transfer]]: a training before the main one, whose weights the next one starts from.

    Paper 000 trains on other body parts first, then on faces. The model, [augment] and [run] are
    the recipe's.

    Attributes:
        classes: None: the model's. With other classes the last layer starts anew.
        size: side of the network's input, in pixels; None: the model's. A smaller one costs less,
            so the longer part of a training can be done with it.
        data: None: the recipe's own.
    """

    name: Name
    classes: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    size: Annotated[int, Field(ge=32, multiple_of=32)] | None = None
    data: DataSection | None = None
    schedule: ScheduleSection


class RunSection(Section):
    """Hold [run]: where the training runs. No setting here is meant to change a number.

    Attributes:
        precision: `amp` is fp16 where that is safe, on a GPU only; `auto` is `amp` on a GPU. `bf16`
            is bf16 where that is safe, if the GPU or the processor computes in it, else fp32; it is
            for segmenters and classifiers.
        threads: threads of the model on a CPU; None: all.
        workers: workers of Ray Train; 1: without it.
        loader_threads: processes that read and change photos ahead of the model; None: by the
            cores.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "amp", "bf16"] = "auto"
    threads: AtLeastOne | None = None
    workers: AtLeastOne = 1
    loader_threads: Count | None = None
