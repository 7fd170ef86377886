import os
import pathlib
import subprocess
import sys

import pytest

from amopo_jax.cli import doctor
from amopo_jax.cli.main import VERBS, is_known, main, name_platform
from amopo_jax.types import InputError, RunFailure

ROOT = pathlib.Path(__file__).parent.parent.parent


def run(capfd, *arguments):
  """Exit status, standard output and standard error of one command."""
  with pytest.raises(SystemExit) as stop:
    main(["amopo", *arguments])
  return stop.value.code, *capfd.readouterr()


@pytest.mark.parametrize("arguments, status", [((), 2), (("--help",), 0), (("-h",), 0), (("help",), 0)])
def test_usage_lists_the_verbs(capfd, arguments, status):
  code, out, err = run(capfd, *arguments)
  assert (code, err) == (status, "")
  assert all(f"\n  {verb}" in out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_its_flags(capfd, verb):
  code, out, err = run(capfd, verb, "--help")
  assert (code, err) == (0, "")
  assert out.startswith(f"amopo {verb} ")
  assert "\n  --" in out
  assert "flagfile" not in out


def test_help_is_given_whatever_else_is_wrong(capfd):
  assert run(capfd, "train", "--config=no/such.py", "--help")[0] == 0


@pytest.mark.parametrize(
  "arguments, message",
  [
    (("tain",), "amopo: unknown verb 'tain'; the verbs are train, score"),
    (("train",), "amopo train: --workdir is missing: folder of the run"),
    (("train", "--workdir=x"), "amopo train: --config is missing; name a file"),
    (("train", "--workdir"), "amopo train: Missing value for flag --workdir"),
    (("train", "x.py"), "amopo train: unexpected argument 'x.py'; flags are written --name=value"),
    (("train", "--config.seed=1"), "amopo train: --config.seed=1: overrides a key, but --config is missing"),
    (("score",), "amopo score: --model is missing: Hugging Face directory"),
    (("export", "--workdir=x"), "amopo export: --out is missing: directory to write"),
    (("export", "--step=two"), "amopo export: flag --step=two: invalid literal for int()"),
    (("convert", "--data=x"), "amopo convert: --out is missing: file to write"),
    (("lab",), "amopo lab: something must follow the verb; choose one of world"),
    (("lab", "wrld"), "amopo lab: unknown 'wrld'; choose one of world"),
    (("lab", "world", "x"), "amopo lab: unexpected argument 'x'"),
    (("doctor", "--modle=x"), "amopo doctor: Unknown command line flag 'modle'. Did you mean: model ? (--help lists"),
  ],
)
def test_wrong_words_are_one_line_on_stderr(capfd, arguments, message):
  code, out, err = run(capfd, *arguments)
  assert (code, out) == (2, "")
  assert err.startswith(message)
  assert err.count("\n") == 1


@pytest.mark.parametrize(
  "error, status, message",
  [
    (InputError("a file:\n  is wrong"), 2, "amopo doctor: a file: is wrong\n"),
    (RunFailure("step 3: not finite"), 1, "amopo doctor: step 3: not finite\n"),
    (KeyboardInterrupt(), 130, "amopo doctor: interrupted\n"),
  ],
)
def test_how_a_verb_ends_badly(capfd, monkeypatch, error, status, message):
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
  monkeypatch.setattr(doctor, "run", lambda values: (_ for _ in ()).throw(error))
  assert run(capfd, "doctor") == (status, "", message)


@pytest.mark.parametrize(
  "error, wanted",
  [
    (OSError(28, "No space left on device"), True),
    (RuntimeError("Event loop is closed"), True),
    (OSError(2, "No such file or directory"), False),
    (RuntimeError("something else"), False),
    (None, False),
  ],
)
def test_what_comes_late_of_a_failure_that_is_told_is_not_told_again(error, wanted):
  assert is_known(error) == wanted


@pytest.mark.parametrize(
  "given, devices, platforms", [(None, [], "cpu"), (None, ["/dev/accel0"], None), ("tpu", [], "tpu")]
)
def test_no_accelerator_is_looked_for_where_there_is_none(monkeypatch, given, devices, platforms):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
  monkeypatch.setattr("glob.glob", lambda pattern: [found for found in devices if found.startswith(pattern[:-1])])
  monkeypatch.delenv("JAX_PLATFORMS") if given is None else monkeypatch.setenv("JAX_PLATFORMS", given)
  name_platform()
  assert os.environ.get("JAX_PLATFORMS") == platforms


def test_help_and_typing_errors_are_answered_without_loading_jax():
  program = (
    "import sys; from amopo_jax.cli.main import main\n"
    "try: main(['amopo', *sys.argv[1:]])\n"
    "finally: print('jax' in sys.modules)"
  )
  for arguments, status in ((["--help"], 0), (["tain"], 2)):
    done = subprocess.run(
      [sys.executable, "-c", program, *arguments],
      env=os.environ | {"PYTHONPATH": str(ROOT)},
      capture_output=True,
      text=True,
    )
    assert done.returncode == status, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


def test_the_package_is_the_command():
  said = subprocess.run([sys.executable, "-m", "amopo_jax", "--help"], capture_output=True, text=True, check=False)
  assert "usage: amopo VERB" in said.stdout + said.stderr
