"""Who is let in to Redis and for what: the least of an ACL, passwords, certificates, and what each refusal costs."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
import structlog.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from idtrace.bundle import Verdict
from resolver.driver import Source
from resolver.redis_link import RedisPlace
from resolver.sharing import UNTRACKED_MS
from tests.engines.redis import RedisServer
from tests.engines.tls import Identity
from tests.redis_fixtures import KEYS, PATIENT_MS, item, member, members, tree
from tests.simulator import Tree

USER, PASSWORD = "idtrace", "let-me-in"
KEYS_AND_CHANNEL = f"on >{PASSWORD} resetkeys ~idt:* resetchannels &__redis__:invalidate -@all"
COMMANDS = "+ping +mget +evalsha +eval +script|load +get +getrange +set +del +client|id +client|tracking +subscribe"
# As many attempts as it takes until the breaker has opened: each of them fails for the same cause.
ATTEMPTS = 3


def allow(server: RedisServer, rules: str) -> RedisPlace:
    """A user that may do this much and no more."""
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", USER, "reset", *rules.split(" "))
    return RedisPlace(server.url, username=USER, password=PASSWORD, op_timeout_ms=PATIENT_MS)


@pytest.fixture(autouse=True)
def _as_before(redis_server: RedisServer) -> Iterator[None]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield
        client.execute_command("ACL", "DELUSER", USER)


def rules_but(left_out: str) -> str:
    rules = f"{KEYS_AND_CHANNEL} {COMMANDS}"
    assert left_out in rules
    return rules.replace(f"{left_out} ", "").removesuffix(f" {left_out}")


async def shut_out(place: RedisPlace, *, attempts: int = ATTEMPTS) -> list[str]:
    """What a resolver logs that Redis does not let in, after a few attempts; it answers all the same."""
    with structlog.testing.capture_logs() as logs:
        alone = member(tree(), place)
        alone.resolver.start()
        try:
            await alone.until(lambda: alone.sharing.counters.failures >= attempts, 30)
            assert not alone.store.up
            assert (await alone.resolver.resolve(item(1))).resolution.verdict is Verdict.FOUND
        finally:
            await alone.resolver.close()
    assert {entry["event"] for entry in logs} == {"redis is lost"}
    return [str(entry["error"]) for entry in logs]


async def test_least_permissions_are_enough_for_all_that_is_done(redis_server: RedisServer) -> None:
    place = allow(redis_server, f"{KEYS_AND_CHANNEL} {COMMANDS}")
    built = tree()
    async with members(built, redis_server.url, place=place) as (first, second):
        await first.resolver.resolve(item(1))
        await first.shared()
        assert (await second.resolver.resolve(item(1))).source is Source.CACHE
        assert second.store.tracking
        with redis.Redis.from_url(redis_server.url) as client:
            client.set(KEYS.answer(item(2)), b"forged")
            client.script_flush()
        await second.resolver.resolve(item(2))
        await second.shared()
        await second.shared()
        for one in (first, second):
            assert (one.sharing.counters.refused, one.sharing.counters.failures) == (0, 0)
        with redis.Redis.from_url(redis_server.url) as client:
            client.set(KEYS.answer(item(1)), b"forged by another")
        await first.until(lambda: len(first.resolver.cache) == 0)  # and it has heard of it
        with redis.Redis.from_url(redis_server.url) as client:
            assert client.execute_command("ACL", "LOG") == []


@pytest.mark.parametrize("left_out", ["+mget", "+script|load", "~idt:*"])
async def test_without_leave_to_read_redis_is_dead_and_the_cause_is_told_once(
    left_out: str, redis_server: RedisServer
) -> None:
    told = await shut_out(allow(redis_server, rules_but(left_out)))
    assert len(told) == 1
    assert "permission" in told[0].lower()


@pytest.mark.parametrize("left_out", ["+evalsha", "+set", "+getrange"])
async def test_without_leave_to_write_what_others_have_found_is_used(left_out: str, redis_server: RedisServer) -> None:
    place = allow(redis_server, rules_but(left_out))
    built = tree()
    with structlog.testing.capture_logs() as logs:
        async with (
            members(built, redis_server.url, 1) as (writer,),
            members(built, redis_server.url, 1, place=place) as (reader,),
        ):
            await writer.resolver.resolve(item(1))
            await writer.shared()
            assert (await reader.resolver.resolve(item(1))).source is Source.CACHE
            for number in (2, 3, 4):
                assert (await reader.resolver.resolve(item(number))).resolution.verdict is Verdict.FOUND
            await reader.shared()
            await reader.shared()
            assert reader.store.up
            # Without a look at what stands there nothing is written over it: it could be newer.
            assert reader.sharing.counters.refused >= 3
            assert reader.sharing.counters.written == 0
    told = [entry for entry in logs if entry["event"] == "redis does not take what is written"]
    assert len(told) == 1


@pytest.mark.parametrize("left_out", ["+client|tracking", "+client|id", "+subscribe", "&__redis__:invalidate"])
async def test_without_leave_to_hear_what_changes_answers_are_kept_for_two_seconds(
    left_out: str, redis_server: RedisServer
) -> None:
    place = allow(redis_server, rules_but(left_out))
    with structlog.testing.capture_logs() as logs:
        await untracked(tree(), redis_server, place)
    told = [entry for entry in logs if entry["event"] == "redis does not tell what changes"]
    assert len({entry["error"] for entry in told}) == 1
    assert len(told) == 2  # each of the two members once


async def untracked(built: Tree, server: RedisServer, place: RedisPlace) -> None:
    async with members(built, server.url, place=place) as (first, second):
        await first.resolver.resolve(item(1))
        await first.shared()
        answer = await second.resolver.resolve(item(1))
        assert answer.source is Source.CACHE
        assert 0 < answer.ttl_ms <= UNTRACKED_MS
        assert (first.store.tracking, second.store.tracking) == (False, False)
        for _ in range(12):  # longer than a connection may be silent
            await asyncio.sleep(0.1)
            assert second.store.up


@pytest.mark.parametrize("renamed", ["CLIENT", "SUBSCRIBE"])
async def test_server_whose_command_was_renamed_is_used_without_being_told(
    renamed: str, tmp_path: Path, redis_server: RedisServer
) -> None:
    del redis_server  # says whether there is Redis at all
    server = RedisServer(tmp_path / "renamed", settings=[f'rename-command {renamed} ""'])
    server.start()
    try:
        await untracked(tree(), server, RedisPlace("", op_timeout_ms=PATIENT_MS))
    finally:
        server.stop()


async def test_wrong_password_costs_no_answer_and_is_told_once(redis_server: RedisServer) -> None:
    place = allow(redis_server, f"{KEYS_AND_CHANNEL} {COMMANDS}")
    told = await shut_out(replace(place, password="another"), attempts=ATTEMPTS + 1)
    assert len(told) == 1
    assert "invalid username-password" in told[0]


# --- TLS


@pytest.fixture
def secured(tmp_path: Path, redis_server: RedisServer) -> Iterator[RedisServer]:
    """A server that shows a certificate and wants one."""
    del redis_server  # says whether there is Redis at all
    server = RedisServer(tmp_path / "secured", tls=True, client_certificates=True)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def over_tls(server: RedisServer, host: str = "127.0.0.1", **changes: Path | None) -> RedisPlace:
    assert server.identity is not None
    ours = server.identity
    files = {"ssl_ca_certs": ours.ca, "ssl_certfile": ours.client_certificate, "ssl_keyfile": ours.client_key}
    given = tuple((name, str(path)) for name, path in (files | changes).items() if path is not None)
    return RedisPlace(f"rediss://{host}:{server.port}/0", tls=given, op_timeout_ms=PATIENT_MS)


async def test_both_sides_show_their_certificates(secured: RedisServer) -> None:
    place = over_tls(secured)
    async with members(tree(), place.url, place=place) as (first, second):
        await first.resolver.resolve(item(1))
        await first.shared()
        assert (await second.resolver.resolve(item(1))).source is Source.CACHE
        assert second.store.tracking


async def test_client_without_a_certificate_or_with_one_of_another_authority_is_not_let_in(
    secured: RedisServer, tmp_path: Path
) -> None:
    other = Identity(tmp_path / "other")
    other.make()
    for shown in (
        {"ssl_certfile": None, "ssl_keyfile": None},
        {"ssl_certfile": other.client_certificate, "ssl_keyfile": other.client_key},
    ):
        told = await shut_out(over_tls(secured, **shown), attempts=1)
        assert len(told) == 1


async def test_server_of_another_authority_is_refused(secured: RedisServer, tmp_path: Path) -> None:
    other = Identity(tmp_path / "other")
    other.make()
    told = await shut_out(over_tls(secured, ssl_ca_certs=other.ca))
    assert len(told) == 1
    assert "CERTIFICATE_VERIFY_FAILED" in told[0]


async def test_server_that_no_authority_is_named_for_is_refused_as_the_system_does_not_know_it(
    secured: RedisServer,
) -> None:
    assert "CERTIFICATE_VERIFY_FAILED" in (await shut_out(over_tls(secured, ssl_ca_certs=None), attempts=1))[0]


async def test_server_by_another_name_is_refused(secured: RedisServer) -> None:
    with redis.Redis.from_url(secured.url) as client:
        client.config_set("bind", "127.0.0.1 127.0.0.4")
    told = await shut_out(over_tls(secured, "127.0.0.4"))
    assert len(told) == 1
    assert "IP address mismatch" in told[0]


async def test_server_whose_certificate_has_expired_is_refused(secured: RedisServer, tmp_path: Path) -> None:
    certificate, key = tmp_path / "expired.pem", tmp_path / "expired.key"
    expired(certificate, key)
    with redis.Redis.from_url(secured.url) as client:
        client.execute_command("CONFIG", "SET", "tls-cert-file", str(certificate), "tls-key-file", str(key))
    told = await shut_out(over_tls(secured, ssl_ca_certs=certificate))
    assert len(told) == 1
    assert "certificate has expired" in told[0]


def expired(certificate: Path, key: Path) -> None:
    """A server's certificate of its own authority that was good until yesterday."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(
            issuer_name=name,
            subject_name=name,
            public_key=private.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - dt.timedelta(days=2),
            not_valid_after=now - dt.timedelta(days=1),
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
