"""Attention over the prompt trie: the reference in plain XLA, and one kernel per kind of accelerator."""

from amopo_jax.models.attention.dispatch import BACKENDS, XLA, Attention, Choice, choose_attention
from amopo_jax.models.attention.reference import ATTENTION_NAME, attention

__all__ = ["ATTENTION_NAME", "BACKENDS", "XLA", "Attention", "Choice", "attention", "choose_attention"]
