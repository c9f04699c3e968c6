"""Arrangements of rows: one module for each kind, which gives the messages that a row holds."""
