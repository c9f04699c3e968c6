"""A cache in; what nothing in it refers to is named, and removed where that is wanted: `dataprep gc`."""
