"""Detectors of mmdet: what they are (`spec`), how they are built (`family`), how they run (`detector`)."""
