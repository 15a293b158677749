"""Define the Arrow schemas and their version; convert rows to Parquet and back."""
