"""`train verify`: that what the trainer promises holds for the user's own model and shards, shown by numbers."""
