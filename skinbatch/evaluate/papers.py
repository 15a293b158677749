"""Hold the figures of the papers, to print beside what was measured here.

They come from other photos and other conditions, so they are aims and not baselines.
"""

from __future__ import annotations

ACNE = "paper 003"
ACNE_NOTE = (
    "paper 003: Faster R-CNN R101, 1,222 hand-cleaned ACNE04 photos with re-shrunk boxes, a random 7:3 split, very severe "
    "photos left out of training, counts over all photos, training ones included, at score 0.25"
)
AP50 = 0.536
COUNT_THRESHOLD = 0.25
COUNT_ERROR = {"mae": 3.49, "rmse": 6.79, "mean": -0.16, "sd": 6.79}
COUNT_MAE = {"mild": 1.26, "moderate": 3.37, "severe": 5.76, "very severe": 31.53}

# Measured on ACNE04's annotators: 38 pairs of its photos have the same bytes and were counted twice.
ANNOTATORS = {"of": "ACNE04", "pairs": 38, "count_difference": 3.0, "same_severity": 0.79}

FACES = "paper 001"
FACES_NOTE = "paper 001: BiSeNet trained on the whole of CelebAMask-HQ, 512 x 512"
DICE = {"skin": 0.924, "nose": 0.941, "background": 0.719, "mean": 0.861}

DISEASES = "paper 000"
DISEASES_NOTE = "paper 000: Inception-ResNet-v2 with transfer from other body parts, its own clinical photos of faces"
RECALL = {
    "lupus_erythematosus": 0.929,
    "basal_cell_carcinoma": 0.892,
    "seborrheic_keratosis": 0.843,
    "actinic_keratosis": 0.541,
    "mean": 0.770,
}
PRECISION = {"mean": 0.708}
# The order of the classes in the paper's Figure 3.
ORDER = (
    "basal_cell_carcinoma",
    "lupus_erythematosus",
    "rosacea",
    "seborrheic_keratosis",
    "actinic_keratosis",
    "squamous_cell_carcinoma",
)
