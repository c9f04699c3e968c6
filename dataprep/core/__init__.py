"""What several stages share: chunks, workers, encoders, progress."""
