"""Pure functions from masks and boxes to counts and grades: no files, no models."""
