"""`cache/conversations` in, packed shards out: what `dataprep tokenize` does around its stages."""
