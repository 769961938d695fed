"""The commands of the local AWS and of the setup: exit codes and output."""

import subprocess
import sys
from pathlib import Path

import pytest

from tools import environments
from tools.local_aws import __main__ as commands
from tools.local_aws import terminal, up
from tools.local_aws.stack import SamError


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_ends_a_command_with_the_usual_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints one word instead of a traceback."""
    monkeypatch.setattr(up, "down", interrupt)
    assert commands.main(["down"]) == 130
    assert capsys.readouterr() == ("", "\nstopped\n")


@pytest.mark.parametrize("end", [KeyboardInterrupt, SamError])
def test_a_failed_start_leaves_no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: type[BaseException]) -> None:
    """No server is left after Ctrl-C or after a failed build."""
    server = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])

    def fail() -> None:
        raise end

    monkeypatch.setattr(up, "DIRECTORY", tmp_path / "up")
    monkeypatch.setattr(up, "start_server", lambda *_, **__: server)
    monkeypatch.setattr(up, "build", fail)
    with pytest.raises(end):
        up.bring_up(terminal.console())
    assert server.poll() is not None


@pytest.mark.parametrize(("is_terminal", "no_color", "escapes"), [(True, "", True), (True, "1", False), (False, "", False)])
def test_escape_codes_are_only_for_terminals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, is_terminal: bool, no_color: str, escapes: bool
) -> None:
    """NO_COLOR disables them (no-color.org)."""
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    terminal.console().print("[bold green]up[/]")
    assert ("\033" in capsys.readouterr().out) is escapes


@pytest.mark.parametrize("inbox", ["mailpit", ":1025", "127.0.0.1:", "127.0.0.1:smtp"])
def test_an_inbox_that_is_not_host_and_port_is_refused(inbox: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is started; without an inbox mail is only kept."""
    with pytest.raises(SystemExit) as refusal:
        commands.main(["up", "--smtp", inbox])
    assert refusal.value.code == 2
    assert f"{inbox!r} is not HOST:PORT" in capsys.readouterr().err
    assert (up._inbox(""), up._inbox("127.0.0.1:1025")) == (None, ("127.0.0.1", 1025))


@pytest.mark.parametrize("advice", [environments.NO_PYTHON, environments.NO_INDEX])
def test_a_failed_setup_says_what_to_do(capsys: pytest.CaptureFixture[str], advice: str) -> None:
    """The case is a machine without Python 3.13 and without a network."""
    with pytest.raises(SystemExit) as ended:
        environments.run(sys.executable, "-c", "raise SystemExit(3)", advice=advice)
    assert ended.value.code == 3
    assert capsys.readouterr().err == f"{advice}\n"
    assert max(map(len, advice.splitlines())) <= 80


@pytest.mark.parametrize(
    ("function", "event", "said"),
    [
        ("SendFunctio", "events/send.json", "choose from"),
        ("SendFunction", "events/none.json", "No such file"),
        ("SendFunction", "README.md", "cannot be read as JSON"),
    ],
)
def test_a_wrong_function_or_event_is_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str], function: str, event: str, said: str
) -> None:
    """The message says what is wrong."""
    with pytest.raises(SystemExit) as refusal:
        commands.main(["invoke", function, event])
    assert refusal.value.code == 2
    assert said in capsys.readouterr().err
