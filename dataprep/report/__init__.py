"""A cache in, one page out that tells what is in it: `dataprep report`."""
