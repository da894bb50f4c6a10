import json

import pytest


@pytest.fixture
def v3_config(tmp_path):
    """DeepSeek-V3's published config.json, as far as it says anything of shapes."""
    config = {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
        "num_hidden_layers": 61, "hidden_size": 7168, "intermediate_size": 18432,
        "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1,
        "num_experts_per_tok": 8, "first_k_dense_replace": 3, "num_attention_heads": 128,
        "num_key_value_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 129280,
        "n_group": 8, "topk_group": 4, "topk_method": "noaux_tc", "scoring_func": "sigmoid",
        "norm_topk_prob": True, "routed_scaling_factor": 2.5, "rms_norm_eps": 1e-6,
        "rope_theta": 10000, "max_position_embeddings": 163840, "num_nextn_predict_layers": 1,
        "hidden_act": "silu", "tie_word_embeddings": False, "attention_bias": False,
        "moe_layer_freq": 1, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16",
        "rope_scaling": {
            "type": "yarn", "factor": 40, "original_max_position_embeddings": 4096,
            "beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0,
        },
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return str(path)


def test_a_config_alone_is_planned_for_a_machine_that_is_not_there(run_cli, v3_config):
    done = run_cli("plan", v3_config, "--type", "Q4_K_M", "--vram", "24GiB", "--ram", "128GiB",
                   "--cores", "16")  # fmt: skip
    assert done.status == 0 and not done.err
    assert "cache: 70,272 B a token in f16" in done.out
    assert "full attention would take 4,997,120 B a token in f16, 71 times it" in done.out
    drawn = [line.split() for line in done.out.splitlines() if "▀" in line or "▄" in line]
    assert drawn[0][0] == "processor" and set(drawn[0][1]) <= set("·▄▓")
    assert drawn[1][0] == "GPU0" and len(drawn[1][1]) == 62
    assert "read from disk" in done.out


def test_a_config_alone_is_planned_for_this_machine(real_engine, v3_config):
    done = real_engine("plan", v3_config, "--type", "Q2_K", "--ctx", "1024", "--json")
    machine = json.loads(done.out)["machine"]
    assert machine["ram_total"] > 0 and not machine["imagined"]


def test_several_types_are_compared(run_cli, v3_config):
    done = run_cli("plan", v3_config, "--type", "Q8_0", "--type", "Q2_K", "--vram", "24G",
                   "--ram", "1T")  # fmt: skip
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["TYPE", "Q8_0", "Q2_K"]


def test_the_plan_of_a_file_is_json_that_adds_up(run_cli, nano_gguf):
    done = run_cli("plan", str(nano_gguf), "--vram", "1G", "--ram", "8G", "--json")
    found = json.loads(done.out)
    assert found["weights_bytes"] == sum(one["weights"] for one in found["placement"]["memory"])
    assert found["placement"]["layers"] == ["GPU0"] * 5
    assert found["cache_bytes_per_token"] == 1280


def test_the_engine_plans_for_this_machine_and_measures(nano_gguf, real_engine):
    done = real_engine("plan", str(nano_gguf), "--ctx", "1024", "--json")
    found = json.loads(done.out)["placement"]
    assert found["measured"] and found["memory"][0]["compute"] > 1_000_000
    assert real_engine("plan", str(nano_gguf), "--device", "CUDA9").status == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--vram", "lots"], "is not a size: write it like 24GB"),
        (["--vram", "1G", "--place", "ffn"], "is not REGEX=DEVICE"),
        (["--vram", "1G", "--place", "ffn=GPU7"], "no device 'GPU7'"),
        (["--vram", "1G", "--device", "GPU7"], "There is: GPU0, CPU"),
        (["--type", "Q8_0"], "--type is for a config.json"),
        (["--vram", "1G", "--cache-type", "f17"], "invalid choice"),
    ],
)
def test_wrong_use_ends_in_one_line(run_cli, nano_gguf, words, says):
    done = run_cli("plan", str(nano_gguf), *words)
    assert done.status == 2 and says in done.err and done.err.count("\n") == 1


def test_a_type_that_there_is_not_is_wrong_use(run_cli, v3_config):
    done = run_cli("plan", v3_config, "--type", "nope", "--vram", "24GiB")
    assert done.status == 2 and "unknown type 'nope'" in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--cores", "-2"], "is not a number from 1 to"),
        (["--cores", "0"], "is not a number from 1 to"),
        (["--vram", "24GiB", "--remote", "127.0.0.1:50052"], "Leave one out."),
    ],
)
def test_machines_that_cannot_be_made_up_are_wrong_use(run_cli, v3_config, words, says):
    done = run_cli("plan", v3_config, *words)
    assert done.status == 2 and says in done.err and done.err.count("\n") == 1


def test_a_files_own_name_cannot_drive_the_terminal(run_cli, tmp_path, nano_gguf):
    path = tmp_path / "model.gguf"
    named = nano_gguf.read_bytes().replace(b"checkpoint", b"\x1b[31mX\n\nYZ", 1)
    path.write_bytes(named)
    done = run_cli("plan", str(path), "--vram", "1GiB", "--ram", "8GiB")
    assert done.status == 0 and "\x1b" not in done.out and "X YZ: " in done.out.splitlines()[0]
