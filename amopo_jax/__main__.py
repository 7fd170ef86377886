"""`python -m amopo_jax VERB` is `amopo VERB`."""

from amopo_jax.cli.main import main

if __name__ == "__main__":
  main()
