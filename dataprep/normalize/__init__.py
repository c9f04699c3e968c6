"""Raw files in, `cache/conversations` out: what `dataprep normalize` does around its stages."""
