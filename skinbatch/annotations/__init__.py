"""Annotated photos: readers of every format, and what is wrong with them."""
