"""Attention over the prompt trie: the reference in plain XLA, and one faster way per kind of device."""

from amopo_jax.models.attention.dispatch import BACKENDS, XLA, Attention, Choice, choose_attention
from amopo_jax.models.attention.reference import ATTENTION_NAME, attention

__all__ = ["ATTENTION_NAME", "BACKENDS", "XLA", "Attention", "Choice", "attention", "choose_attention"]
