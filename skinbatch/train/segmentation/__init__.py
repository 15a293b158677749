"""Train segmenters."""
