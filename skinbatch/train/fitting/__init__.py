"""What all trainings share: the loop, its checkpoints, devices and machines, what is said meanwhile."""
