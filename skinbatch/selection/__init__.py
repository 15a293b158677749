"""Choose photos of a scored destination: by SQL, at random, by uncertainty, by contradiction."""
