"""Object stores behind one protocol: local folders and S3."""
