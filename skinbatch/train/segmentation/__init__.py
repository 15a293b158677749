"""Training of segmenters."""
