"""skinbatch scores archives of face photos: skin masks, acne lesions, counts, grades, skin diseases, as Parquet."""

__version__ = "0.1.0"
