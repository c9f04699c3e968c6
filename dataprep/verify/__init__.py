"""Shards, or another tool's tokenised data, in; what is wrong with them out: `dataprep verify`."""
