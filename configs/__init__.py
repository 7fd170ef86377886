"""Configs: Python programs that return an `ml_collections.ConfigDict`; `base.py` explains every key."""
