"""The policy: a Hugging Face decoder in flax.nnx over prompt tries, and the head that takes the moments."""

from amopo_jax.models.config import ModelConfig, RopeScaling
from amopo_jax.models.score import make_score_fn
from amopo_jax.models.transformer import abstract_params, init_params

__all__ = ["ModelConfig", "RopeScaling", "abstract_params", "init_params", "make_score_fn"]
