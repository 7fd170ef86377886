"""Attention over the prompt trie: the reference in plain XLA, and one kernel per kind of accelerator."""

from amopo_jax.models.attention.reference import ATTENTION_NAME, attention

__all__ = ["ATTENTION_NAME", "attention"]
