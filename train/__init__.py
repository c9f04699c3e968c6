"""A thin DeepSpeed trainer that reads packed shards and nothing else."""
