"""Choose photos of a scored destination: by SQL, by chance, by doubt, by contradiction."""
