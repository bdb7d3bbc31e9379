"""Commands that need no node: the program itself, keys, scans, files, and how errors are shown."""

import re
from pathlib import Path

import pytest

from idtrace.bundle import Bundle
from idtrace.cli import app as app_module
from idtrace.cli import files, scan
from idtrace.cli.exits import MEANINGS, ExitCode, gravest
from idtrace.cli.output import plain, plain_bytes
from idtrace.cli.show import span
from idtrace.delegation import Role
from idtrace.errors import InputError, Reason
from idtrace.serving.keyfile import load_signer
from idtrace.signature import CheckBudget, Kind
from idtrace.statements import check_enrolment
from tests.cli import idtrace, key_file
from tests.core_fixtures import (
    NOW,
    PINNED,
    links,
)

AT_NOW = ("--at", str(NOW))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Path(f"{key_file(tmp_path, PINNED)}.pub")


def saved(tmp_path: Path, what: Bundle, form: str = "json") -> Path:
    path = tmp_path / f"bundle.{form}"
    files.write_bundle(path, what)
    return path


# --- the program -----------------------------------------------------------------------------------------------------


def test_help_lists_every_exit_code_with_its_meaning() -> None:
    ran = idtrace("--help")
    assert ran.code == 0
    for code, meaning in MEANINGS.items():
        assert f"{code.value} {meaning}" in ran.said
    assert set(MEANINGS) == set(ExitCode)


def test_every_command_has_help_with_an_example() -> None:
    groups = {"key": ("new", "show", "enrol"), "prefix": ("apply", "status", "set"), "node": ("run",)}
    single = ("delegate", "register", "update", "retire", "resolve", "scan", "verify")
    for command in [*((name,) for name in single), *((group, name) for group in groups for name in groups[group])]:
        ran = idtrace(*command, "--help")
        assert ran.code == 0
        assert f"idtrace {' '.join(command)}" in ran.said.split("Options")[0].replace("Usage:", "", 1)


def test_the_version_is_the_packages() -> None:
    assert re.fullmatch(r"idtrace \d+\.\d+\.\d+\n", idtrace("--version").out)


def test_wrong_usage_ends_with_2_and_says_nothing_on_stdout() -> None:
    for arguments in (["nonsense"], ["scan"], ["resolve", "a/b"], ["verify", "x", "--at"], ["key", "enrol", "k"]):
        ran = idtrace(*arguments)
        assert (ran.code, ran.out) == (ExitCode.USAGE, "")
        assert ran.err


@pytest.mark.parametrize("address", ["localhost", "localhost:0", "localhost:99999", "http://x:1", "x y:1"])
def test_an_address_is_host_and_port(address: str) -> None:
    ran = idtrace("prefix", "status", "88.118", "--node", address)
    assert (ran.code, "is not host:port" in ran.said) == (ExitCode.USAGE, True)


def test_a_file_that_is_not_there_is_named_and_no_traceback_is_shown(root: Path) -> None:
    ran = idtrace("verify", "nowhere.json", "--root", root)
    assert ran.code == ExitCode.USAGE
    assert "nowhere.json" in ran.err
    assert "Traceback" not in ran.err


def test_a_reader_that_leaves_ends_the_program_quietly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def gone(_: str) -> object:
        raise BrokenPipeError

    closed = []
    monkeypatch.setattr(scan, "read_code", gone)
    monkeypatch.setattr(app_module, "_forget_stdout", lambda: closed.append(1))
    ran = idtrace("scan", "88.118/x")
    assert (ran.code, ran.out, ran.err) == (ExitCode.BROKEN_PIPE, "", "")
    assert closed


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(scan, "read_code", interrupted)
    ran = idtrace("scan", "88.118/x")
    assert (ran.code, ran.err) == (ExitCode.INTERRUPTED, "interrupted\n")


def test_a_lie_outweighs_every_other_answer() -> None:
    assert gravest([ExitCode.OK, ExitCode.BOGUS, ExitCode.UNREACHABLE, ExitCode.PROVEN_NO]) is ExitCode.BOGUS
    assert gravest([ExitCode.PROVEN_NO, ExitCode.UNREACHABLE]) is ExitCode.UNREACHABLE
    assert gravest([]) is ExitCode.OK


# --- strangers' text on a terminal -----------------------------------------------------------------------------------


@pytest.mark.parametrize("char", ["\x1b", "\x07", "\n", "\r", "\x7f", "\x9b", "\u202e", "\u200b", "\u2028", "\ue000"])
def test_no_stranger_reaches_the_terminal(char: str) -> None:
    assert char not in plain(f"a{char}b")
    assert char not in plain_bytes(f"a{char}b".encode())


def test_visible_text_is_shown_as_it_is_and_other_bytes_as_hex() -> None:
    assert plain("Impfstoff 疫苗 [bold]é") == "Impfstoff 疫苗 [bold]é"
    assert plain_bytes(b"\xff\x00") == "0xff00"
    assert len(plain("x" * 1_000, 40)) == 40


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "250 ms"),
        (1, "1 s"),
        (90, "90 s"),
        (300, "5 min"),
        (3_600, "1 h"),
        (86_400, "1 day"),
        (950_400, "11 days"),
    ],
)
def test_spans_are_short_words(seconds: float, text: str) -> None:
    assert span(seconds) == text


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_new_key_is_shown_and_can_be_shown_again(tmp_path: Path) -> None:
    made = idtrace("key", "new", tmp_path / "k", "--json")
    assert made.code == 0
    for name in ("k", "k.pub"):
        shown = idtrace("key", "show", tmp_path / name, "--json").json["keys"]
        assert shown == [{field: made.json[field] for field in ("key_id", "algorithm", "key")}]
    assert made.json["key_id"] in idtrace("key", "show", tmp_path / "k").out


def test_nothing_is_overwritten_not_even_half_of_a_pair(tmp_path: Path) -> None:
    (tmp_path / "k.pub").write_text("precious")
    ran = idtrace("key", "new", tmp_path / "k")
    assert ran.code == ExitCode.USAGE
    assert not (tmp_path / "k").exists()
    idtrace("key", "new", tmp_path / "other")
    assert idtrace("key", "new", tmp_path / "other").code == ExitCode.USAGE


def test_a_passphrase_comes_from_the_environment_or_the_keyboard(tmp_path: Path) -> None:
    env = {"SECRET": "open sesame"}
    assert idtrace("key", "new", tmp_path / "a", "--passphrase-env", "SECRET", env=env).code == 0
    assert load_signer(tmp_path / "a", b"open sesame")
    assert idtrace("key", "show", tmp_path / "a", "--passphrase-env", "SECRET", env=env).code == 0
    assert idtrace("key", "show", tmp_path / "a", "--passphrase-prompt", typed="open sesame\n").code == 0
    typed = "my words\nmy words\n"
    assert idtrace("key", "new", tmp_path / "b", "--passphrase-prompt", typed=typed).code == 0
    assert load_signer(tmp_path / "b", b"my words")


def test_a_passphrase_that_is_missing_or_wrong_is_said_so(tmp_path: Path) -> None:
    idtrace("key", "new", tmp_path / "a", "--passphrase-env", "SECRET", env={"SECRET": "right"})
    assert "no passphrase" in idtrace("key", "show", tmp_path / "a").err
    assert "SECRET is not set" in idtrace("key", "show", tmp_path / "a", "--passphrase-env", "SECRET").err
    wrong = idtrace("key", "show", tmp_path / "a", "--passphrase-env", "SECRET", "--json", env={"SECRET": "wrong"})
    assert wrong.json["error"]["reason"] == Reason.KEY_MALFORMED
    assert wrong.json["error"]["exit_code"] == wrong.code == ExitCode.USAGE
    assert wrong.err == ""
    assert idtrace("key", "new", tmp_path / "b", "--passphrase-env", "UNSET").code == ExitCode.USAGE
    assert not (tmp_path / "b").exists()


def test_an_enrolment_proves_possession_for_each_role(tmp_path: Path) -> None:
    path = key_file(tmp_path, "a")
    ran = idtrace("key", "enrol", path, "--zone", "88.118.8", "--role", "record", "--role", "node", "--role", "node")
    assert ran.code == 0
    proofs = files.read_signed(Path(f"{path}.enrol.json"), Kind.ENROLMENT)
    checked = [check_enrolment(signed, budget=CheckBudget(9)) for signed in proofs]
    assert [e.role for e in checked] == [Role.NODE, Role.RECORD]
    assert {str(e.zone) for e in checked} == {"88.118.8"}
    again = idtrace("key", "enrol", path, "--zone", "", "--role", "zone", "--out", tmp_path / "e.json", "--json")
    assert again.json["zone"] == ""
    assert idtrace("key", "enrol", path, "--zone", "8 8", "--role", "zone").code == ExitCode.USAGE


# --- files of signed statements --------------------------------------------------------------------------------------


def test_signed_statements_come_back_as_they_were(tmp_path: Path) -> None:
    files.write_signed(tmp_path / "f", links())
    assert files.read_signed(tmp_path / "f", Kind.DELEGATION) == links()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"format": "idtrace-signed/v2", "statements": []}',
        b'{"format": "idtrace-signed/v1", "statements": []}',
        b'{"format": "idtrace-signed/v1", "statements": [1]}',
        b'{"format": "idtrace-signed/v1", "statements": [{}]}',
        b'{"format": "idtrace-signed/v1", "statements": [{"payload": "", "payload_type": "x", "signatures": []}]}',
    ],
)
def test_a_file_of_something_else_is_refused_by_its_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f.json").write_bytes(content)
    path = key_file(tmp_path, "a")
    ran = idtrace("delegate", "--root-zone", "--key", path, "--enrol", tmp_path / "f.json", "--out", tmp_path / "o")
    assert ran.code == ExitCode.USAGE
    assert "f.json" in ran.err


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b" " * 11)
    with pytest.raises(InputError):
        files.read_file(tmp_path / "f", 10)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.replace_file(tmp_path / "f", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "old"


# --- scan ------------------------------------------------------------------------------------------------------------


def test_a_scanned_code_is_named_with_its_scheme_and_claims() -> None:
    ran = idtrace("scan", "(01)09506000134352(17)301231(21)SN-1", "--json")
    assert ran.code == 0
    assert ran.json["identifier"] == "gs1.01.09506000134352/21.SN-1"
    assert (ran.json["scheme"], ran.json["attributes"]) == ("gs1", {"17": "301231"})
    assert "(17) 301231" in idtrace("scan", "(01)09506000134352(17)301231(21)SN-1").said


def test_a_code_that_is_none_says_why_and_what_would_be_one() -> None:
    ran = idtrace("scan", "hello")
    assert (ran.code, ran.out) == (ExitCode.USAGE, "")
    assert "SCAN_UNKNOWN_SCHEME" in ran.err
    assert "hint" in ran.err
    assert idtrace("scan", "hello", "--json").json["error"]["reason"] == "SCAN_UNKNOWN_SCHEME"


def test_a_wedge_scanner_types_a_code_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = b"88.118.8/SN-1\r\n\n\xff\xfe\n83123456789012345678\n" + b"x" * 20_000 + b"\n88.118.8/SN-2"
    ran = idtrace("scan", "-", "--json", typed=typed)
    assert [line.get("identifier") for line in ran.lines if "identifier" in line] == [
        "88.118.8/SN-1",
        "drug.8312345/6789012345678",
        "88.118.8/SN-2",
    ]
    assert ran.code == ExitCode.USAGE
    assert idtrace("scan", "-", typed=b"88.118.8/SN-1\n").code == 0
    assert idtrace("scan", "-", typed=b"").code == 0


def test_resolving_a_scan_needs_the_root_key() -> None:
    ran = idtrace("scan", "88.118.8/SN-1", "--resolver", "localhost:1")
    assert ran.code == ExitCode.USAGE
    assert "--root" in ran.err
