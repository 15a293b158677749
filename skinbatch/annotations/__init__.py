"""Read annotated photos in many formats, and find what is wrong with them."""
