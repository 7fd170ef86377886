from amopo_jax.cli import platforms


def test_chips_are_found_by_their_files_unless_they_are_not_wanted(monkeypatch):
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  monkeypatch.setattr(platforms.glob, "glob", lambda pattern: ["/dev/accel0"] if "accel" in pattern else [])
  assert platforms.has_accelerator()
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  assert not platforms.has_accelerator()
