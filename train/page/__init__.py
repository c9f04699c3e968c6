"""The page of a run: what is known of it in, one HTML file out."""
