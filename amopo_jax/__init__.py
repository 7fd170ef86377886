"""amopo_jax: preference optimisation over several dimensions at once (AMoPO, arXiv 2506.07165) in JAX.

The parts, from pure to stateful: `amopo_jax.objective` (maths), `amopo_jax.models` (Flax decoder),
`amopo_jax.data` (records to token rows), `amopo_jax.train` (the loop), `amopo_jax.cli` (the command `amopo`).
"""

__version__ = "0.1.0"
