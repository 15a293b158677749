"""Hold what all trainings share: the loop, checkpoints, devices and machines, and progress."""
