import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

REPLY = "The answer is 605.\n"
LINE_AFTER_DEATH = "Run the command again to start a new one."


def test_the_answer_alone_is_on_stdout_and_the_reasoning_on_stderr(run_cli):
    outcome = run_cli("ask", "What is 348 + 257?")
    assert (outcome.status, outcome.out, outcome.err) == (0, REPLY, "Let me think.\n")


def test_quiet_leaves_the_answer_only(run_cli):
    outcome = run_cli("ask", "-q", "What is 348 + 257?")
    assert (outcome.out, outcome.err) == (REPLY, "")


def test_statistics_are_a_line_on_stderr_when_asked_for(run_cli):
    outcome = run_cli("ask", "--stats", "-q", "What?")
    assert outcome.err == (
        "19 tokens (9 reasoning) · 42.5 tok/s · 90% of drafts accepted · 0.5 s\n"
    )


def test_json_is_the_object_of_the_design_and_nothing_else(run_cli):
    outcome = run_cli("ask", "--json", "What?")
    assert outcome.err == ""
    assert json.loads(outcome.out) == {
        "model": "tiny",
        "reasoning": "Let me think.",
        "answer": "The answer is 605.",
        "finish_reason": "stop",
        "stats": {
            "prompt_tokens": 12,
            "cached_tokens": 4,
            "prompt_tps": 100.0,
            "generated_tokens": 19,
            "decode_tps": 42.5,
            "seconds": 0.5,
            "draft": {
                "steps": 10,
                "drafted": 10,
                "accepted": 9,
                "accepted_by_position": [0.9],
                "mean_depth": 1.0,
                "tokens_per_step": 1.9,
            },
        },
    }


@pytest.mark.parametrize(
    ("given", "sent"), [("auto", "auto"), ("off", "off"), ("0", "off"), ("1", 1), ("4", 4)]
)
def test_drafts_are_chosen_fixed_or_off(run_cli, given, sent):
    outcome = run_cli("ask", "echo", "--mtp", given)
    assert json.loads(outcome.out)["load"]["mtp"] == sent


@pytest.mark.parametrize("given", ["5", "-1", "on", "1.5", "²", ""])
def test_a_depth_of_drafts_that_makes_no_sense_is_refused(run_cli, given):
    outcome = run_cli("ask", "echo", f"--mtp={given}")
    assert outcome.status == 2
    assert "is not auto, off or a number from 1 to 4" in outcome.err


def test_every_option_reaches_the_engine(run_cli):
    outcome = run_cli(
        "ask", "echo", "-s", "Be brief.", "--max-tokens", "7", "--temperature", "0.5",
        "--top-p", "0.9", "--top-k", "40", "--min-p", "0.05", "--repeat-penalty", "1.1",
        "--seed", "3", "--stop", "A", "--stop", "B", "--no-think", "--ctx", "512",
        "--threads", "2", "--mtp", "off", "--think-budget", "99", "--typical-p", "0.9",
        "--top-n-sigma", "1", "--xtc-probability", "0.5", "--xtc-threshold", "0.2",
        "--repeat-last-n", "32", "--presence-penalty", "0.3", "--frequency-penalty", "-0.3",
        "--dry-multiplier", "0.8", "--dry-base", "2", "--dry-allowed-length", "3",
        "--dry-penalty-last-n", "99", "--logit-bias", "12=-1.5", "--logit-bias", "a=b=false",
        "--effort", "max",
    )  # fmt: skip
    sent = json.loads(outcome.out)
    assert sent["request"] == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "echo"},
        ],
        "sampling": {
            "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05,
            "repeat_penalty": 1.1, "seed": 3, "typical_p": 0.9, "top_n_sigma": 1.0,
            "xtc_probability": 0.5, "xtc_threshold": 0.2, "repeat_last_n": 32,
            "presence_penalty": 0.3, "frequency_penalty": -0.3, "dry_multiplier": 0.8,
            "dry_base": 2.0, "dry_allowed_length": 3, "dry_penalty_last_n": 99,
            "logit_bias": [[12, -1.5], ["a=b", None]], "schema": "", "grammar": "",
        },
        "max_tokens": 7,
        "stop": ["A", "B"],
        "think": False,
        "think_budget": 99,
        "effort": "max",
        "begun_reasoning": "",
        "begun_answer": "",
        "keep": True, "raw": False,
    }  # fmt: skip
    assert (sent["load"]["ctx"], sent["load"]["threads"], sent["load"]["mtp"]) == (512, 2, "off")


def test_words_files_and_stdin_are_joined_to_one_prompt(run_cli, tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("from a file\n")
    outcome = run_cli("ask", "say", "these", "-f", str(file), stdin=b"from stdin\n")
    assert outcome.out == "these\n\nfrom a file\n\nfrom stdin\n"


def test_a_prompt_from_stdin_alone_is_enough(run_cli):
    assert run_cli("ask", stdin=b"say it").out == "it\n"


def test_an_empty_prompt_is_wrong_use(run_cli):
    outcome = run_cli("ask", stdin=b" \n")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == (
        'localseek: The prompt is empty. Try: localseek ask "What is 348 + 257?"\n'
    )


def test_a_file_that_is_no_utf8_is_named(run_cli, tmp_path):
    file = tmp_path / "latin.txt"
    file.write_bytes(b"caf\xe9")
    outcome = run_cli("ask", "-f", str(file))
    assert outcome.status == 2
    assert outcome.err == (
        f"localseek: {file} is not valid UTF-8 (byte 3 is 0xe9). "
        "Convert it first, for example with iconv.\n"
    )


def test_a_missing_file_is_named(run_cli):
    outcome = run_cli("ask", "-f", "nowhere.txt")
    assert outcome.status == 2
    assert outcome.err == "localseek: nowhere.txt cannot be read: No such file or directory.\n"


@pytest.mark.parametrize(
    ("option", "value", "rule"),
    [
        ("--temperature", "-1", "from 0 to 100"),
        ("--temperature", "nan", "from 0 to 100"),
        ("--temperature", "hot", "from 0 to 100"),
        ("--top-p", "1.5", "from 0 to 1"),
        ("--max-tokens", "0", "1 or more"),
        ("--seed", "4294967296", "from 0 to 4,294,967,295"),
        ("--ctx", "-5", "from 0 to 2,147,483,647"),
        ("--ctx", "2147483648", "from 0 to 2,147,483,647"),
        ("--threads", "1025", "from 0 to 1,024"),
    ],
)
def test_a_number_out_of_range_is_wrong_use_and_the_range_is_named(run_cli, option, value, rule):
    outcome = run_cli("ask", "hi", f"{option}={value}")
    assert outcome.status == 2
    assert outcome.err == (
        f"localseek: argument {option}: {value!r} is not a number {rule}. "
        "See localseek ask --help.\n"
    )


def test_an_engine_that_dies_is_one_line_and_keeps_what_was_printed(run_cli):
    outcome = run_cli("ask", "die")
    assert (outcome.status, outcome.out) == (1, "half an ans\n")
    assert outcome.err.startswith("localseek: The engine died of signal 9. Systems do so when")
    assert outcome.err.endswith(f"{LINE_AFTER_DEATH}\n") and outcome.err.count("\n") == 1


def test_a_request_that_is_refused_is_one_line(run_cli):
    outcome = run_cli("ask", "fail")
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == (
        "localseek: The prompt has 9,000 tokens, the context 2,048. Try --ctx.\n"
    )


def test_a_model_that_cannot_be_loaded_is_one_line(run_cli, monkeypatch):
    monkeypatch.setenv("FAKE_ENGINE", "load-fails")
    outcome = run_cli("ask", "hi")
    assert (outcome.status, outcome.out, outcome.err) == (1, "", "localseek: No memory. Buy.\n")


def test_what_the_engine_finds_wrong_in_the_options_is_wrong_use(run_cli, monkeypatch):
    outcome = run_cli("ask", "refuse")
    assert (outcome.status, outcome.err) == (2, "localseek: The grammar is wrong.\n")
    monkeypatch.setenv("FAKE_ENGINE", "load-refuses")
    for words in (("ask", "hi"), ("chat",)):
        outcome = run_cli(*words, stdin=b"hi\n")
        assert outcome.err == "localseek: There is no device 'X'. There is: CPU.\n"
        assert outcome.status == 2 or words == ("chat",)


def test_an_engine_that_aborts_while_loading_is_one_line(run_cli, monkeypatch):
    monkeypatch.setenv("FAKE_ENGINE", "load-dies")
    outcome = run_cli("ask", "hi")
    assert outcome.status == 1
    assert outcome.err.startswith("localseek: The engine died of signal 6. ")


def test_an_answer_that_was_cut_off_says_so(run_cli):
    outcome = run_cli("ask", "-q", "length")
    assert (outcome.status, outcome.out) == (0, REPLY)
    assert outcome.err == (
        "The answer was cut off at the token limit; --max-tokens can raise it.\n"
    )


def test_a_notice_of_the_engine_is_on_stderr(run_cli):
    outcome = run_cli("ask", "notice")
    assert (outcome.out, outcome.err) == ("42\n", "The context is nearly full.\n")


def test_a_pipe_gets_the_text_as_the_model_wrote_it(run_cli):
    assert run_cli("ask", "escape").out == "c\x1b]0;title\x07\u202ed\x9b\n"


def test_a_damaged_model_never_reaches_the_engine(run_cli, tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\x03\0\0\0" + b"\xff" * 64)
    outcome = run_cli("ask", "hi", "-m", str(broken))
    assert outcome.status == 1
    assert "is damaged: it claims" in outcome.err and outcome.err.count("\n") == 1


def test_interrupt_keeps_what_was_printed_and_exits_130(command, environment):
    process = subprocess.Popen(
        [*command, "ask", "-m", "tiny", "forever"], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == b"line 0\n"
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    shown = rest.splitlines(keepends=True)
    assert shown == [f"line {number + 1}\n".encode() for number in range(len(shown))]
    assert errors == b"Hm.\n"


def test_interrupt_while_the_model_loads_exits_130_without_a_word(command, environment, home):
    process = subprocess.Popen(
        [*command, "ask", "-m", "tiny", "hi"], env={**environment, "FAKE_ENGINE": "load-hangs"},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    log = home / "logs" / "engine.log"
    while not (log.exists() and b"loading" in log.read_bytes()):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 130


def test_a_reader_that_leaves_early_ends_the_command_quietly(command, environment):
    process = subprocess.Popen(
        [*command, "ask", "-m", "tiny", "-q", "long"], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == b"line 0\n"
    process.stdout.close()
    assert process.stderr and process.stderr.read() == b""
    assert process.wait(60) == 1


def on_terminal(command: list[str], environment: dict[str, str]) -> str:
    """Run a command with all its streams on a new terminal and give what is drawn."""
    pid, descriptor = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, environment)
    drawn = b""
    try:
        while chunk := os.read(descriptor, 65536):
            drawn += chunk
    except OSError:  # the end of a terminal is an error on Linux
        pass
    os.waitpid(pid, 0)
    os.close(descriptor)
    return drawn.decode().replace("\r\n", "\n").replace("\r\x1b[2K", "")


def without_status(drawn: str) -> str:
    """Leave out the line that says what is waited for: it shows only when that takes long."""
    for status in ("loading tiny", "reading the prompt"):
        while f"\x1b[2m{status}" in drawn:
            start = drawn.index(f"\x1b[2m{status}")
            drawn = drawn[:start] + drawn[drawn.index("\x1b[0m", start) + 4 :]
    return drawn


def test_a_terminal_shows_dim_reasoning_then_the_answer_then_statistics(command, environment):
    drawn = on_terminal([*command, "ask", "-m", "tiny", "What?"], environment)
    assert without_status(drawn) == (
        "\x1b[2mLet me \x1b[0m\x1b[2mthink.\x1b[0m\n\nThe answer is 605.\n"
        "\x1b[2m19 tokens (9 reasoning) · 42.5 tok/s · 90% of drafts accepted · 0.5 s\x1b[0m\n"
    )


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_colours_words_tell_reasoning_and_answer_apart(command, environment, variable):
    words = [*command, "ask", "-m", "tiny", "--no-stats", "What?"]
    drawn = on_terminal(words, {**environment, **variable})
    assert drawn == "[reasoning]\nLet me think.\n\n[answer]\nThe answer is 605.\n"


def test_a_model_cannot_drive_the_terminal(command, environment):
    words = [*command, "ask", "-m", "tiny", "--no-stats", "escape"]
    drawn = without_status(on_terminal(words, environment))
    assert drawn == "\x1b[2ma␛[31mb\x1b[0m\n\nc␛]0;title␇\ufffdd\ufffd\n"


def test_a_prompt_of_stdin_is_not_awaited_on_a_terminal(command, environment):
    drawn = on_terminal([*command, "ask", "-m", "tiny"], environment)
    assert drawn == 'localseek: The prompt is empty. Try: localseek ask "What is 348 + 257?"\n'


def test_the_home_holds_no_more_than_a_log_after_an_answer(run_cli, home):
    run_cli("ask", "hi")
    files = sorted(str(p.relative_to(home)) for p in Path(home).rglob("*") if p.is_file())
    assert files == ["logs/engine.log", "models/tiny.gguf"]


def test_an_interrupt_that_comes_too_late_to_cut_the_answer_off_exits_0(
    command, environment, tmp_path
):
    process = subprocess.Popen(
        [*command, "ask", "-m", "tiny", f"tail {tmp_path / 'reached'}"], env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    while not (tmp_path / "reached").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == (b"all but the end\n", b"")
    assert process.returncode == 0


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_a_closed_stream_is_as_an_empty_one(command, environment, closed):
    words = ["sh", "-c", f'exec "$@" {closed}', "sh", *command, "ask", "-m", "tiny", "-q", "say hi"]
    done = subprocess.run(
        words, env=environment, capture_output=True, timeout=60, check=False, input=b""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hi\n", b"")


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_an_answer_with_nowhere_to_go_is_an_error(command, environment, closed):
    words = ["sh", "-c", f'exec "$@" {closed}', "sh", *command, "ask", "-m", "tiny", "-q", "say hi"]
    done = subprocess.run(
        words, env=environment, capture_output=True, timeout=60, check=False, input=b""
    )
    told = b"" if "2>&-" in closed else b"localseek: standard output: Bad file descriptor.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", told)


def test_a_name_that_no_file_can_have_is_one_line(run_cli):
    outcome = run_cli("ask", "hi", "-m", "a" * 300)
    assert (outcome.status, outcome.err.count("\n")) == (1, 1)
    assert outcome.err.startswith("localseek: ") and "File name too long" in outcome.err


def test_an_engine_answers_without_a_log_that_cannot_be_written(run_cli, home):
    (home / "logs" / "engine.log").mkdir(parents=True)
    outcome = run_cli("ask", "hi")
    assert (outcome.status, outcome.out) == (0, "The answer is 605.\n")
