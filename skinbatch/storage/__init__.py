"""Read and write object stores through one protocol: local folders and S3."""
