"""Train detectors: mmdet's models on crops of annotated photos."""
