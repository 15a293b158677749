"""Gather the photos of a training, keep them in memory and change them at random."""
