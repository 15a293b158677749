"""The Arrow schemas and their version; rows to Parquet and back."""
