"""Hold what a training leaves: the stage, its pack, card and curves."""
