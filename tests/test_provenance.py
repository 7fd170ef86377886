import subprocess

from amopo_jax import provenance


def test_the_commit_is_that_of_the_checkout_and_says_whether_files_have_changed(tmp_path, monkeypatch):
  git = lambda *words: subprocess.run(
    ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True, capture_output=True
  )
  (tmp_path / "package").mkdir()
  file = tmp_path / "package" / "provenance.py"
  file.write_text("")
  git("init", "-q")
  git("add", ".")
  git("commit", "-qm", "one")
  monkeypatch.setattr(provenance, "__file__", str(file))
  assert len(clean := provenance.commit()) == 40
  (tmp_path / "new").write_text("")
  assert provenance.commit() == clean
  file.write_text("other")
  assert provenance.commit() == f"{clean} with changes"


def test_there_is_none_outside_of_a_checkout_or_without_git(tmp_path, monkeypatch):
  monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
  monkeypatch.setattr(provenance, "__file__", str(tmp_path / "package" / "provenance.py"))
  assert provenance.commit() == ""
  monkeypatch.setenv("PATH", str(tmp_path))
  assert provenance.commit() == ""


def test_the_processor_has_a_name():
  assert provenance.processor()


def test_there_is_none_where_the_package_lies_in_another_project_s_checkout(tmp_path, monkeypatch):
  (tmp_path / "venv" / "package").mkdir(parents=True)
  git = lambda *words: subprocess.run(
    ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True, capture_output=True
  )
  git("init", "-q")
  git("commit", "-qm", "one", "--allow-empty")
  monkeypatch.setattr(provenance, "__file__", str(tmp_path / "venv" / "package" / "provenance.py"))
  assert provenance.commit() == ""


def test_the_digest_of_the_source_changes_with_any_file_and_with_nothing_else(tmp_path, monkeypatch):
  for name, text in (
    ("one/provenance.py", "x"),
    ("one/room/a.py", "y"),
    ("two/provenance.py", "x"),
    ("two/room/a.py", "y"),
  ):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
  (tmp_path / "two" / "room" / "a.pyc").write_text("z")

  def digest(folder):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / folder / "provenance.py"))
    return provenance.source_digest()

  assert digest("one") == digest("two")
  (tmp_path / "two" / "room" / "b.py").write_text("")
  assert digest("one") != digest("two")
