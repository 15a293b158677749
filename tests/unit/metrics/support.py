"""Call pycocotools directly, to compare our numbers with."""

from __future__ import annotations

import contextlib
import io

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from skinbatch.metrics.boxes import Boxes


def coco_eval(
    truth: Boxes, found: Boxes, crowds: Boxes | None = None, *, by_class: bool, most: list[int]
) -> COCOeval:
    """Run pycocotools over the same boxes. Without classes, all have label 1."""

    def annotation(boxes: Boxes, n: int, is_crowd: int = 0) -> dict[str, object]:
        x1, y1, x2, y2 = boxes.xyxy[n].tolist()
        return {
            "id": n + 1,
            "image_id": int(boxes.photo[n]),
            "category_id": int(boxes.label[n]) if by_class else 0,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": is_crowd,
        }

    crowds = crowds if crowds is not None else Boxes.stack([()] * truth.photos)
    regions = [annotation(crowds, n, 1) | {"id": len(truth) + n + 1} for n in range(len(crowds))]
    gt = COCO()
    gt.dataset = {
        "images": [{"id": n} for n in range(truth.photos)],
        "categories": [
            {"id": n}
            for n in (sorted({*truth.label, *found.label, *crowds.label}) if by_class else [0])
        ],
        "annotations": [annotation(truth, n) for n in range(len(truth))] + regions,
    }
    results = [annotation(found, n) | {"score": float(found.score[n])} for n in range(len(found))]
    with contextlib.redirect_stdout(io.StringIO()):
        gt.createIndex()
        run = COCOeval(gt, gt.loadRes(results), "bbox")
        run.params.maxDets = most
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.evaluate()
        run.accumulate()
    return run
