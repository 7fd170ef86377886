def test_it_describes_machine_model_data_and_config(amopo, trained, world, config_file):
  status, out, err = amopo(
    "doctor", f"--model={trained[0]}", f"--data={world}/train.jsonl", f"--config={config_file(train__steps=5)}"
  )
  assert (status, err) == (0, "")
  titles = [line for line in out.splitlines() if not line.startswith(" ")]
  assert titles == ["machine", str(trained[0]), f"{world}/train.jsonl", "config", "all of this works"]
  assert "  devices              8 × cpu" in out
  assert "  dimension correctness" in out


def test_the_first_mistake_ends_it(amopo, config_file):
  status, out, err = amopo("doctor", f"--config={config_file(optim__name='adam')}")
  assert status == 2
  assert "all of this works" not in out
  assert err == "amopo doctor: config.optim.name: 'adam' is unknown; choose one of adamw, adafactor, lion\n"
