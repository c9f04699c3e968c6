"""Cleaning: what is mended, turned away or only counted in conversations that were read, each step by its name."""
