"""Detectors of mmdet: what they are (`architectures`, `spec`), how they are built, and how they run."""
