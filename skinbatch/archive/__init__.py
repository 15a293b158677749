"""What a source is: folders, archive files and listings, and their bytes as pixels."""
