"""Photos of a training: gathered, kept in memory, changed at random."""
