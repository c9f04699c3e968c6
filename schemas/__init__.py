"""The contracts between stages: Arrow schemas, manifests, errors, how files are written. Imports nothing of ours."""
