import pytest
from absl import flags

from amopo_jax.cli.parse import parse, require
from amopo_jax.types import InputError


@pytest.fixture
def values():
  found = flags.FlagValues()
  flags.DEFINE_integer("step", None, "which one", flag_values=found)
  flags.DEFINE_string("out", None, "where to", flag_values=found)
  return found


def test_flags_are_filled_in(values):
  parse(values, ["--step=3", "--out", "x"])
  assert (values["step"].value, values["out"].value) == (3, "x")
  require(values, "step", "out")


def test_what_is_required_is_explained(values):
  parse(values, ["--step=3"])
  with pytest.raises(InputError, match="--out is missing: where to"):
    require(values, "step", "out")


@pytest.mark.parametrize(
  "arguments, subjects, message",
  [
    (["--step=x"], (), "flag --step=x: invalid literal"),
    (["--stp=1"], (), r"Unknown command line flag 'stp'.*\(--help lists the flags\)"),
    (["--out"], (), "Missing value for flag --out"),
    (["y"], (), "unexpected argument 'y'; flags are written --name=value"),
    ([], ("world",), "something must follow the verb; choose one of world"),
    (["moon"], ("world", "sun"), "unknown 'moon'; choose one of world, sun"),
    (["world", "y"], ("world",), "unexpected argument 'y'"),
  ],
)
def test_what_cannot_be_parsed_is_one_line(values, arguments, subjects, message):
  with pytest.raises(InputError, match=message) as caught:
    parse(values, arguments, subjects=subjects)
  assert "\n" not in str(caught.value)


def test_a_subject_may_come_with_flags(values):
  parse(values, ["world", "--out=x"], subjects=("world",))
  assert values["out"].value == "x"
