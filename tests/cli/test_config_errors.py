import pytest

from amopo_jax.cli.config_errors import explain


@pytest.fixture
def program(tmp_path):
  def write(text, name="config.py"):
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)

  return write


GOOD = "from ml_collections import ConfigDict\ndef get_config():\n  return ConfigDict({'a': {'b': 1}})\n"


@pytest.mark.parametrize(
  "text, message",
  [
    ("x = (\n", ":1: SyntaxError: '(' was never closed; mend the config"),
    ("def get_config():\n  x = 1\n  return x / 0\n", ":3: ZeroDivisionError: division by zero; mend the config"),
    ("from json import loads\ndef get_config():\n  return loads('{')\n", ":3: JSONDecodeError: "),
    ("x = 1\n", ": defines no get_config()"),
    ("def get_config():\n  pass\n", ": get_config() returns NoneType, not a ConfigDict"),
  ],
)
def test_the_place_in_the_user_s_own_file_is_named(program, text, message):
  path = program(text)
  assert explain("?", path, ()).startswith(f"{path}{message}")


def test_a_failure_in_what_the_config_imports_is_placed_there(program, tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  helper = program("def f():\n  raise ValueError('no')\n", "helper_of_a_config.py")
  path = program("import helper_of_a_config\ndef get_config():\n  return helper_of_a_config.f()\n")
  assert explain("?", path, ()) == f"{helper}:2: ValueError: no; mend the config"


@pytest.mark.parametrize(
  "override, message",
  [
    ("--config.c=1", "config.c: unknown key; the keys are a"),
    ("--config.a.c=1", "config.a.c: unknown key; the keys are b"),
    ("--config.a.b.c=1", "config.a.b.c: unknown key; config.a.b is a value, not a section"),
  ],
)
def test_an_override_of_no_key_is_named(program, override, message):
  assert explain("?", program(GOOD), ["--config.a.b=2", override]) == message


def test_otherwise_the_error_itself_is_told(program):
  path = program(GOOD)
  assert explain("flag --step=x: no number", path, ["--config.a.b=2"]) == "flag --step=x: no number"
  assert explain("flag --config.a.b=x: no number", path, ["--config.a.b=x"]).endswith(
    "no number; configs/base.py says what it means"
  )
