"""`python -m amopo_jax` is `amopo`, for places where the environment's commands are not on the path."""

from amopo_jax.cli.main import main

main()
