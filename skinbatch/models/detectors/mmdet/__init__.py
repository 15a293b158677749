"""Detectors of mmdet: what they are (`types`, `architectures`), how they are built, and how they run."""
