"""What the tests of the verbs share."""

import jax
import pytest

from amopo_jax.cli.main import main


@pytest.fixture
def amopo(capfd, monkeypatch):
  """Runs a command in this process: (exit status, standard output, standard error)."""
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")

  def run(*arguments):
    capfd.readouterr()
    with pytest.raises(SystemExit) as stop:
      main(["amopo", *arguments])
    return stop.value.code, *capfd.readouterr()

  caches = jax.config.values["jax_enable_compilation_cache"]
  yield run
  jax.config.update("jax_enable_compilation_cache", caches)


@pytest.fixture
def config_file(make_config, tmp_path):
  """Writes the config of the tiny run, with overrides as `make_config` takes them."""

  def write(**overrides):
    path = tmp_path / "config.py"
    values = make_config(**overrides).to_dict()
    path.write_text(
      "from ml_collections import ConfigDict\n\n\ndef get_config():\n"
      f"  values = {values!r}\n"
      "  config = ConfigDict(values)\n"
      "  config.data.contexts = ConfigDict(values['data']['contexts'], sort_keys=False)\n"
      "  return config\n"
    )
    return path

  return write
