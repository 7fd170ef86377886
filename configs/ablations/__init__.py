"""Configs that change one thing."""
