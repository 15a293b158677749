"""The texts of the starter pack, written from what its trainers recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]

_TERMS = """\
| data | used for | terms |
|---|---|---|
| CelebAMask-HQ (subset of 800 faces) | segmenter; faces without disease for detector and classifier | non-commercial research |
| ACNE04 (Roboflow v5 export) | detector; negatives of the classifier | free for academic use (the export says CC BY 4.0) |
| DermNet NZ (seven classes) | classifier | non-commercial, no derivatives (from memory, unverified) |
| seborrheic keratosis photos from the open web | classifier | unknown |
"""


def licence() -> str:
    """LICENSE.md: the weights' own terms."""
    return f"""# Licence of these weights

The code of skinbatch is under Apache-2.0. These weights are not: they were learned from photos of real people, some of
them patients, whose collections have terms of their own.

You may use the weights to demonstrate, test and study software, for research, without charging for it. You may not use
them commercially. You may not use them to diagnose, treat or advise anyone: they are not a medical device, were not
examined as one, and are wrong often. You may pass them on unchanged with this text. There is no warranty of any kind.

What they were learned from, and on which terms:

{_TERMS}
If the terms of a collection are stricter than this text, they come first. For any other use train your own.
"""


def card(records: Mapping[str, Record], rival: Record | None, size: int) -> str:
    """CARD.md. records: of the three stages. rival: of the Faster R-CNN that was trained beside the detector, if it
    was. size: of all weights, bytes."""
    parts = [
        f"""# Model card

Three small networks, trained from nothing in minutes on processor cores, {size / 1e6:.1f} MB in half precision. A
research demonstration: non-commercial, **not for clinical use**. They show that the pipeline works from end to end, on
real photos; whoever needs better numbers brings better models.

The numbers are those that the trainers of `jobs/train_starter.py` wrote down; `python jobs/train_starter.py assemble
--work DIR` writes this card from them, and `python jobs/train_starter.py all --work DIR` trains all stages anew, with the
recipes as they are now and therefore with somewhat other numbers. Where the recipe was changed during a training, that
stage says so. The weights that were measured are the averaged ones, rounded to half precision, as shipped.

Validation photos were never trained on, but they decided which evaluation's weights were kept (segmenter, classifier) and
when to stop, so these numbers are kind. `minutes` are processor time for segmenter and classifier, and time on the clock
of a busy machine for the detectors.

## Data and terms

{_TERMS}
No photo, crop or picture of one is part of this pack. Groups of people are not represented evenly: CelebAMask-HQ shows
celebrities, and, as far as a look at some photos tells, ACNE04 mostly East Asian faces and DermNet mostly light skin.
Nothing was measured by group.
""",
        _segmenter(records["segmenter"]),
        _detector(records["detector"], rival),
        _classifier(records["classifier"]),
    ]
    return "\n".join(parts)


def _segmenter(record: Record) -> str:
    counts = record["data"]["CelebAMask-HQ subset"]
    rows = [[name, f"{record['metrics'][f'dice_{name}']:.3f}"] for name in record["classes"]]
    return f"""## Segmenter: {record["arch"]}, {_millions(record)} parameters, {record["size"]} px

{counts["train"]} faces for training, {counts["valid"]} held back (the last by id). Ears, neck, lips, brows and eyes are
background, as CelebAMask-HQ has them. Training views are turned, near, far, cut off, recoloured and spotted, because the
photos to be scored are often half faces with inflamed skin; the validation photos are whole faces, so that this Dice says
little about half ones. Known to fail: profiles, where the neck is often taken for face and the nose is put somewhere else,
and small faces of people whose clothes or walls have the colour of skin. Dice over all validation pixels:

{_table(["class", "Dice"], rows)}
{_trained(record)}

{_curve(record, ["step", "minutes", "loss", "dice_skin", "dice_nose"])}"""


def _detector(record: Record, rival: Record | None) -> str:
    metrics = record["metrics"]
    both = [record] if rival is None else [record, rival]
    names = {
        "ap50": "AP50",
        "count_mae": "count error (MAE)",
        "count_mae_of_guessing_the_training_mean": "the same of guessing the training mean",
        "boxes_on_clear_faces": f"boxes on a face without acne (mean of {metrics['clear_faces']})",
    }
    rows = [[text, *(_number(r["metrics"].get(key)) for r in both)] for key, text in names.items()]
    rows += [
        ["threshold", *(_number(r["threshold"]) for r in both)],
        ["parameters", *(_millions(r) for r in both)],
        ["minutes of training", *(_number(r["minutes"]) for r in both)],
        ["stopped because", *(r["stopped"] for r in both)],
    ]
    text = f"""## Detector: {record["arch"]}, {_millions(record)} parameters, {record["size"]} px, one class

{record["data"]["train"]} photos with {record["data"]["train_boxes"]} boxes for training, {metrics["valid_photos"]} for
validation (ACNE04's own split). The data's four box names only repeat the photo's severity, so there is one class,
`acne`; boxes are visibly incomplete and photos were stretched to squares before we had them. The threshold is the one
that counts best on {metrics["threshold_from_train_photos"]} training photos. With one class of every kind of lesion,
Hayashi grades are overestimates: the scheme counts papules and pustules only.

{_table(["", "shipped: " + record["arch"], *([] if rival is None else ["for comparison: " + rival["arch"]])], rows)}
{record["hardware"]}, seed {record["seed"]}. The curve (on part of the validation photos):

{_curve(record, ["epoch", "minutes", "loss", "ap50", "count_mae"])}"""
    if rival is not None:
        columns = ["epoch", "minutes", "loss", "ap50", "count_mae"]
        text += f"\nThe curve of {rival['arch']}:\n\n{_curve(rival, columns)}"
    return text


def _classifier(record: Record) -> str:
    metrics = record["metrics"]
    rows = [
        [
            name + (" (confounded)" if name == "seborrheic_keratosis" else ""),
            str(metrics["photos"][name]),
            f"{metrics['average_precision'][name]:.2f}",
            f"{metrics['average_precision_of_guessing'][name]:.2f}",
            f"{metrics['recall'][name]:.2f}",
        ]
        for name in record["classes"]
    ]
    rows.append(["none of them", str(metrics["photos"]["none"]), "", "", f"{metrics['recall']['none']:.2f}"])
    plain = [name for name in record["classes"] if name != "seborrheic_keratosis"]
    mean_ap = sum(metrics["average_precision"][name] for name in plain) / len(plain)
    mean_recall = sum(metrics["recall"][name] for name in plain) / len(plain)
    data = [[name, str(c["train"]), str(c["valid"])] for name, c in record["data"].items()]
    return f"""## Classifier: {record["backbone"]} with the head of paper 000, {_millions(record)} parameters, {record["size"]} px

Per-class logistic outputs; faces without disease and faces with acne are photos of none of the classes. Split by the
order of file names, because neighbours may show one patient; a patient at the border may still be on both sides.
Watermarks were cut away and all photos brought to one resolution. Most photos of a disease are close-ups, many not of
faces: on whole faces expect less than what is printed here.

{_table(["source", "train", "valid"], data)}
Recall: the share of a class's validation photos whose top class it is, at the threshold {record["threshold"]}, which was
chosen on training photos; for `none of them`, the share without a top class. Average precision ranks all validation
photos; guessing gives a class's share.

{_table(["class", "valid photos", "average precision", "guessing", "recall"], rows)}
Without seborrheic keratosis: mean average precision {mean_ap:.2f}, mean recall {mean_recall:.2f}.
**Seborrheic keratosis is confounded** and reported apart: its photos come from another source than all others, and that
may be what was learned. Rosacea and squamous cell carcinoma have so few validation photos that their numbers are close
to anecdotes.

{_trained(record)}

{_curve(record, ["step", "minutes", "loss", "score"])}
`score` is the mean average precision without seborrheic keratosis.
"""


def _trained(record: Record) -> str:
    """notes: what a person added to the record about this training, such as changes to the recipe on the way."""
    run = (
        f"{record['steps']} steps in {record['seconds'] / 60:.0f} minutes, stopped because: "
        f"{record['stopped']}; {record['hardware']}, seed {record['seed']}."
    )
    return "\n".join([run, *(f"- {note}" for note in record.get("notes", ()))])


def _curve(record: Record, columns: Sequence[str]) -> str:
    return _table(columns, [[_number(point[name]) for name in columns] for point in record["curve"]])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _millions(record: Record) -> str:
    return f"{record['parameters'] / 1e6:.2f} M"
