from amopo_jax.models.hf_import import check_model_dir


def test_it_writes_a_model_and_says_which_step(amopo, trained, tmp_path):
  out = tmp_path / "model"
  status, text, err = amopo("export", f"--workdir={trained[0]}", f"--out={out}", "--dtype=bfloat16")
  assert (status, err) == (0, "")
  assert text.startswith(f"{out}: step ")
  assert "PreTrainedTokenizerFast" in text  # the world's word-level tokenizer is not Qwen2's
  assert check_model_dir(out).width == 32


def test_mistakes_are_one_line(amopo, trained, tmp_path):
  for arguments, message in (
    ((f"--workdir={tmp_path}",), f"amopo export: {tmp_path}: not a workdir; give the --workdir of a training run\n"),
    ((f"--workdir={trained[0]}", "--dtype=f16"), "amopo export: --dtype: 'f16' is unknown; choose one of float32, bf"),
    ((f"--workdir={trained[0]}", "--adapters"), f"amopo export: {trained[0]}: trained the whole model, and has no ad"),
    (
      (f"--workdir={trained[0]}", "--weights=1", "--adapters"),
      "amopo export: --weights: adapters are not averaged; leave",
    ),
    ((f"--workdir={trained[0]}", "--weights=1,x"), "amopo export: --weights: 'x' is no number"),
    ((f"--workdir={trained[0]}", "--step=99999"), f"amopo export: {trained[0]}: no checkpoint 99999; there are ["),
  ):
    status, _, err = amopo("export", f"--out={tmp_path}/out", *arguments)
    assert status == 2
    assert err.startswith(message)
    assert not (tmp_path / "out").exists()
