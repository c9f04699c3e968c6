"""A cache in; of each artefact, what it was made from and what a run would use again, out: `dataprep explain`."""
