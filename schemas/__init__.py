"""The contracts between stages: Arrow schemas, manifests, errors and how files come into being. Imports nothing of ours."""
