"""What a model's chat template does: shown on a sample (`dataprep template M`), and proven on probes (`--table`)."""
