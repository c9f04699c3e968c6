"""The stages, in order: read, normalize, render, tokenize, pack, write."""
