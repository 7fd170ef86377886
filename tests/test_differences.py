from amopo_jax.differences import MISSING, differences


def test_differing_leaves_are_named_by_their_paths_in_order():
  mine = {"b": {"x": 1, "y": (1, 2)}, "a": 2, "only": None}
  theirs = {"b": {"x": 3, "y": [1, 2]}, "a": 2, "other": 4}
  assert list(differences(mine, theirs, "config")) == [
    ("config.b.x", 1, 3),
    ("config.only", None, MISSING),
    ("config.other", MISSING, 4),
  ]
  assert repr(MISSING) == "nothing"


def test_without_a_name_the_keys_say_enough():
  assert list(differences({"--out": "a"}, {"--out": "b"}, "")) == [("--out", "a", "b")]
  assert list(differences(1, 1, "x")) == []
