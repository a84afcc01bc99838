"""The cache on disk: spaces of arrays, shards, and digests of files."""
