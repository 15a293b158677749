"""Pure functions over arrays: how well boxes, counts, grades, masks and classes agree with the truth."""
