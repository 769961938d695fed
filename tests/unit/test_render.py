"""Rendering a folder of JSON files to mails."""

import json
from pathlib import Path

import pytest

from mailer_ops.render import main

ORDER = {
    "fromAddress": "post@bücher.example",
    "fromName": "Bücher",
    "message": {"to": [{"email": "jo@example.com"}], "bcc": [{"email": "hidden@example.com"}], "subject": "Hello", "text": "Hi"},
}


def written(folder: Path, name: str, content: str) -> tuple[Path, Path]:
    source, target = folder / "in", folder / "out"
    source.mkdir(exist_ok=True)
    (source / f"{name}.json").write_text(content, encoding="utf-8")
    assert main([str(source), str(target)]) == 0
    return source, target


def test_a_mail_is_written_with_its_envelope(tmp_path: Path) -> None:
    """NAME.json becomes NAME.eml and NAME.envelope.json."""
    _, target = written(tmp_path, "hello", json.dumps(ORDER))
    assert b"From: =?utf-8?b?" in (target / "hello.eml").read_bytes()
    envelope = json.loads((target / "hello.envelope.json").read_text())
    assert envelope == {"mailFrom": "post@xn--bcher-kva.example", "rcptTo": ["jo@example.com", "hidden@example.com"]}
    assert not (target / "hello.rejected").exists()


def test_a_rejected_message_is_written_as_its_problems(tmp_path: Path) -> None:
    """NAME.rejected has the code and every path, of the sender and of the message."""
    _, target = written(tmp_path, "hello", json.dumps(ORDER | {"fromAddress": "x", "message": {"subject": "\n"}}))
    rejected = json.loads((target / "hello.rejected").read_text())
    assert rejected["code"] == "invalid_request"
    assert [error["path"] for error in rejected["errors"]] == ["fromAddress", "message.to", "message.subject", "message"]
    assert not (target / "hello.eml").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"fromAddress": "a@b.example"}'])
def test_an_invalid_file_does_not_stop_the_others(tmp_path: Path, content: str) -> None:
    """A file may have any content."""
    written(tmp_path, "a", content)
    _, target = written(tmp_path, "b", json.dumps(ORDER))
    assert sorted(file.name for file in target.iterdir()) == ["a.rejected", "b.eml", "b.envelope.json"]


def test_an_older_result_is_replaced(tmp_path: Path) -> None:
    """A file's rejection is removed when the file is corrected."""
    written(tmp_path, "a", "{")
    _, target = written(tmp_path, "a", json.dumps(ORDER))
    assert sorted(file.name for file in target.iterdir()) == ["a.eml", "a.envelope.json"]


def test_without_folders_the_usage_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 2."""
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(("source", "target"), [("none", "out"), ("in/a.json", "out"), ("in", "in/a.json"), ("", "out"), ("in", "")])
def test_an_unusable_folder_is_reported(
    source: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line; a mistyped name is not an empty folder."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/a.json").write_text("{}", encoding="utf-8")
    assert main([source, target]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
