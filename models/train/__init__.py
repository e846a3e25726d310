"""Trains the embedded models: `python -m models.train TASK --data DIR --out DIR`."""
