"""List sources (folders, shards and listings) and read the bytes and pixels of their photos."""
