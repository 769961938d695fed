"""Invalid arguments of the operators' commands are rejected with one sentence, before any call."""

import pytest

from mailer_ops.operate import main


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["replay", "--since", ""], "'' is not a time such as 2026-11-24T08:00:00Z"),
        (["replay", "--since", "yesterday"], "'yesterday' is not a time such as 2026-11-24T08:00:00Z"),
        (["replay", "--since", "0001-01-01T00:01Z"], "'0001-01-01T00:01Z' is not a time such as 2026-11-24T08:00:00Z"),
        (["replay", "--since", "0001-01-01T00:01+05:00"], "'0001-01-01T00:01+05:00' is not a time"),
        (["console", "--port", "65536"], "'65536' is not a port, 0 to 65535"),
        (["console", "--port", "-1"], "'-1' is not a port"),
        (["console", "--port", "http"], "'http' is not a port"),
        (["trouble", "--hours", "1e12"], "'1e12' is not a number of hours, more than 0 and at most 87672"),
        (["trouble", "--hours", "nan"], "'nan' is not a number of hours"),
        (["trouble", "--hours", "0"], "'0' is not a number of hours"),
        (["trouble", "--hours", "a day"], "'a day' is not a number of hours"),
        (["ask", "GET", "tenants/acme/provider"], "'tenants/acme/provider' is not a path such as /tenants/acme/provider"),
        (["ask", "POST", "/tenants/acme/provider/verify", "simulate"], "'simulate' is not NAME=VALUE"),
        (["list"], "argument COMMAND: invalid choice: 'list'"),
        (["erase", "tenant", ""], "'' is not a tenantId"),
        (["erase", "tenant", "acme/"], "'acme/' is not a tenantId"),
        (["erase", "request", "acme", "../r1"], "'../r1' is not a requestId"),
        (["erase", "request", "", "r1"], "'' is not a tenantId"),
        (["erase", "request", "acme", "r1", "--upload", "5f"], "'5f' is not the key that POST …/attachments gave"),
    ],
)
def test_an_invalid_argument_is_refused(
    arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 2, as for any wrong usage, without a traceback."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as refusal:
        main(arguments)
    assert refusal.value.code == 2
    said = capsys.readouterr().err
    assert sentence in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("command", ["", "dlq", "dlq redrive", "trouble", "ask", "erase", "erase request", "console", "replay", "mark"])
def test_the_help_fits_the_terminal(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """No line is wider than 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
