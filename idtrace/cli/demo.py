"""``idtrace demo``: the main job from end to end, on this machine, with nothing prepared and nothing trusted.

Every step is an ordinary ``idtrace`` command against real nodes; each claim of the report is checked, and the exit code
says whether all of them held.
"""

from __future__ import annotations

import shlex
import shutil
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from idtrace.bundle import Bundle
from idtrace.cli import demo_data, demo_faults, demo_vaccine
from idtrace.cli.demo_check import Prover, Tally
from idtrace.cli.demo_engines import DATACENTER, Engines
from idtrace.cli.demo_story import Story, json_command, quiet_command, register_file, run_command, sweep
from idtrace.cli.demo_tree import NODES, ZONES, DemoTree
from idtrace.cli.exits import ExitCode
from idtrace.cli.options import JsonOption, anchor_of, now, output_of
from idtrace.cli.output import listing
from idtrace.record import Record

__all__ = ["demo", "quiet_command", "run_command"]

HOSTED_LINES: Final = 200
# Has asked nobody before its sweep: whatever it need not ask the tree for, it has from the cache that resolvers share.
SHARER: Final = "resolver-b"
# Resolver, what for, and how many (0: every one).
SWEEPS: Final = (("resolver-a", "cold", 0), ("resolver-a", "warm", 2_500), (SHARER, "other resolver", 500))
SCANNED: Final = f"]d2\x1d01{demo_data.GTIN}21D000010\x1d17280531102026A00"
MISREAD: Final = f"(01){demo_data.GTIN[:-1]}3(21)D000010"


def demo(
    ctx: typer.Context,
    serve: Annotated[bool, typer.Option("--serve", help="Leave the tree running and say what to try.")] = False,
    packages: Annotated[
        int, typer.Option("--packages", min=100, max=1_000_000, help="Dose packages to register.")
    ] = demo_data.PACKAGES,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="New folder for keys, stores and proofs; kept.")
    ] = None,
    cassandra: Annotated[
        str, typer.Option("--cassandra", metavar="HOST:PORT", help="Keep records there, in a keyspace of our own.")
    ] = "",
    datacenter: Annotated[
        str, typer.Option("--datacenter", metavar="NAME", help="Data centre of that Cassandra.")
    ] = DATACENTER,
    redis: Annotated[
        str, typer.Option("--redis", metavar="URL", help="Let resolvers share answers there: redis://HOST:PORT/DB.")
    ] = "",
    kill_redis: Annotated[
        str, typer.Option("--kill-redis", metavar="COMMAND", help="Kills that Redis, half-way through the questions.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Play the whole job: a tree of nodes, registration, resolution, lies refused, a proof verified offline.

    Without options it needs nothing but itself. With servers of yours:

    idtrace demo --cassandra 127.0.0.1:9042 --redis redis://127.0.0.1:6379/0 --kill-redis 'docker kill redis'
    """
    del as_json
    output = output_of(ctx)
    engines = Engines(cassandra.lower(), datacenter, redis, kill_redis)
    if keep is not None and keep.exists():
        raise typer.BadParameter(f"{keep} exists already", param_hint="--keep")
    temporary = None if keep else tempfile.mkdtemp(prefix="idtrace-demo-")
    story = Story(output, DemoTree(keep or Path(str(temporary)) / "tree", quiet_command, engines), packages)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        holds = _play(story, serve=serve)
    finally:
        story.tree.stop()
        signal.signal(signal.SIGTERM, previous)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
            if story.tree.has_tables:
                engines.drop()
    raise typer.Exit(ExitCode.OK if holds else ExitCode.BOGUS)


def _interrupt(_number: int, _frame: Any) -> None:
    """SIGTERM ends the demonstration as Ctrl-C does: with its nodes stopped."""
    raise KeyboardInterrupt


def _play(story: Story, *, serve: bool) -> bool:
    started = time.perf_counter()
    _bring_up(story)
    story.title("A dose's life")
    others = demo_vaccine.play(story)
    story.title(f"{story.packages:,} at once, and those who lie")
    texts = _register(story)
    if story.engines.cassandra:
        demo_faults.kept(story, len(texts) + others)
    if serve:
        _serve(story)
        return True
    bundle = story.tree.folder / "dose.json"
    cold, warm = _resolve(story, texts)
    _scan(story, bundle)
    _lie(story, bundle)
    if story.engines.cassandra:
        demo_faults.registry_killed(story)
    if story.engines.kill_redis:
        demo_faults.redis_killed(story, texts)
    _recall(story)
    _offline(story, bundle)
    holds = all(step.holds for step in story.steps)
    _report(story, cold, warm, time.perf_counter() - started, holds=holds)
    return holds


def _bring_up(story: Story) -> None:
    tree, started = story.tree, time.perf_counter()
    demo_faults.found(story)
    tree.prepare()
    tree.start()
    tree.delegate()
    nodes = ", ".join(f"{plan.name}" for plan in NODES)
    story.say(
        f"{len(NODES)} nodes started, {len(ZONES) + 1} zones signed", f"{nodes}; {time.perf_counter() - started:.1f} s"
    )


def _register(story: Story) -> list[str]:
    """Register the manifest, the EPCIS identifiers, and the hosted enterprise's items; returns what can be scanned."""
    tree = story.tree
    manifest = tree.folder / "manifest.csv"
    demo_data.write_manifest(manifest, story.packages)
    started = time.perf_counter()
    register_file(story, manifest, "88.118.8", "maker")
    seconds = time.perf_counter() - started
    rate = f"{story.packages / seconds:,.0f} a second, each with a receipt checked from the root key"
    story.say(f"{story.packages:,} dose packages registered", rate)
    found, documents, refused = demo_data.epcis_identifiers(demo_data.epcis_folder())
    epcis = tree.folder / "epcis.csv"
    demo_data.write_epcis_manifest(epcis, found)
    register_file(story, epcis, "gs1", "top")
    story.say(f"{len(found)} identifiers from EPCIS registered", f"{documents} documents read, {refused} texts refused")
    hosted = tree.folder / "hosted.csv"
    lines = [f"88.118.9/BOX-{number:05d}" for number in range(1, HOSTED_LINES + 1)]
    hosted.write_text("identifier,lot\n" + "".join(f"{line},H1\n" for line in lines), encoding="utf-8")
    register_file(story, hosted, "88.118.9", "secondary")
    story.say(f"{HOSTED_LINES} items of a hosted enterprise", "88.118.9 signs, the node of 88.118 keeps (托管)")
    return [demo_data.code_of(number) for number in range(1, story.packages + 1)] + list(found) + lines


def _resolve(story: Story, texts: list[str]) -> tuple[Tally, Tally]:
    """Every one through a resolver; then some again, which it has in its cache, and some through the other one."""
    prover = Prover(anchor_of(story.tree.root_key), now())
    tallies: list[Tally] = []
    for name, what, most in SWEEPS:
        asked = texts[:: max(1, len(texts) // most)] if most else texts
        hits = story.engines.redis_hits() if story.engines.redis else 0
        tally = sweep(story, name, what, asked, prover)
        rate = f"{tally.rate:,.0f} a second, {tally.summary}"
        story.say(f"{len(asked):,} resolved, {what}", rate, holds=tally.all_found(len(asked)))
        if story.engines.redis and name == SHARER:
            demo_faults.shared(story, tally, hits)
        tallies.append(tally)
    return tallies[0], tallies[1]


def _scan(story: Story, bundle: Path) -> None:
    """A DataMatrix and a drug trace code, as a gun hands them over; and the proof of one dose as a file."""
    tree = story.tree
    trust = ("--resolver", tree.endpoints["resolver-b"], "--root", str(tree.root_key))
    drug = demo_data.code_of(demo_data.DRUG_EVERY)
    for name, text in (("GS1 DataMatrix scanned", SCANNED), ("drug trace code scanned", drug)):
        code, body = json_command("scan", text, *trust)
        verdict = body["resolution"]["verdict"]
        story.say(name, f"{body['identifier']} is {verdict}", holds=code == ExitCode.OK and verdict == "FOUND")
    quiet_command("resolve", demo_data.code_of(1), *trust, "--save", str(bundle))
    story.say("proof of one dose saved", f"{bundle.name}, {bundle.stat().st_size:,} bytes, readable JSON")


def _lie(story: Story, bundle: Path) -> None:
    """Each of these has to fail, and for the right reason."""
    tree = story.tree
    root, maker = str(tree.root_key), tree.endpoints["maker"]
    forged = tree.folder / "forged.json"
    text = bundle.read_text("utf-8")
    forged.write_text(_forged(text), encoding="utf-8")
    story.refused("forged record: lot changed", "VALUE_CHANGED", "verify", str(forged), "--root", root)
    thief = str(tree.owner_key("88.118.9"))
    stolen = ("register", "88.118.8/STOLEN-1", "--value", "lot=X", "--key", thief, "--node", maker)
    story.refused("stolen prefix: 88.118.9 signs 88.118.8", "SIGNER_UNKNOWN", *stolen)
    grab = ["delegate", "--zone", "88.118", "--child", "88.118.7", "--key", thief]
    grab += ["--enrol", str(tree.folder / "88.118.9-record.enrol.json"), "--endpoint", tree.endpoints["secondary"]]
    own = tree.folder / "88.118.7.enrol.json"
    quiet_command("key", "enrol", thief, "--zone", "88.118.7", "--role", "zone", "--role", "node", "--out", str(own))
    grab[grab.index("--enrol") + 1] = str(own)
    story.refused("stolen zone: delegation self-signed", "SIGNER_UNKNOWN", *grab, "--node", tree.endpoints["secondary"])
    trust = ("--resolver", tree.endpoints["resolver-a"], "--root", root)
    code, body = json_command("resolve", "88.118.8/NOT-THERE", *trust)
    story.say(
        "unknown code",
        f"{body['verdict']}, by a denial signed by its zone",
        holds=code == ExitCode.PROVEN_NO and body["reason"] == "IDENTIFIER_ABSENT",
    )
    story.refused("misread code: check digit", "GS1_CHECK_DIGIT", "scan", MISREAD)


def _forged(text: str) -> str:
    """The bundle with another value in it and its digest made right again, as a forger would."""
    bundle = Bundle.from_json(text)
    assert isinstance(bundle.outcome, Record)
    first, *others = bundle.outcome.values
    values = (replace(first, data=b"another vaccine"), *others)
    return replace(bundle, outcome=replace(bundle.outcome, values=values)).to_json()


def _recall(story: Story) -> None:
    tree = story.tree
    text = demo_data.code_of(2)
    key, node = str(tree.owner_key("88.118.8")), tree.endpoints["maker"]
    quiet_command("update", text, "--status", "recalled", "--key", key, "--node", node, "--root", str(tree.root_key))
    trust = ("--resolver", tree.endpoints["resolver-a"], "--root", str(tree.root_key))
    _, body = json_command("resolve", text, *trust, "--fresh")
    status = body["record"]["status"]
    story.say("recall of one dose", f"{text} is {status}", holds=status == "recalled")


def _offline(story: Story, bundle: Path) -> None:
    """The nodes are gone; the file and the root key are enough."""
    story.tree.stop()
    alive = [name for name, process in story.tree.processes.items() if process.poll() is None]
    story.say("all nodes stopped", ", ".join(alive) or "none is left", holds=not alive)
    code, body = json_command("verify", str(bundle), "--root", str(story.tree.root_key))
    passed = sum(check["passed"] for check in body["checks"])
    story.say(
        "proof verified offline",
        f"{body['verdict']}, {passed} of {len(body['checks'])} checks",
        holds=code == ExitCode.OK and passed == len(body["checks"]),
    )
    demo_vaccine.check_offline(story)


def _report(story: Story, cold: Tally, warm: Tally, seconds: float, *, holds: bool) -> None:
    broken = [step.name for step in story.steps if not step.holds]
    body = {
        "holds": holds,
        "seconds": round(seconds, 1),
        "cold_per_second": round(cold.rate),
        "warm_per_second": round(warm.rate),
        "steps": [{"name": s.name, "result": s.result, "holds": s.holds} for s in story.steps],
    }
    story.output.document(body)
    demo_vaccine.show_summary(story)
    verdict = "everything held" if holds else f"did not hold: {', '.join(broken)}"
    style = "bold green" if holds else "bold red"
    story.output.show("", Text(f"{verdict}; {len(story.steps)} checks in {seconds:.1f} s", style=style))


def _serve(story: Story) -> None:
    """Leave the tree running until Ctrl-C."""
    tree = story.tree
    trust = f"--resolver {tree.endpoints['resolver-a']} --root {tree.root_key}"
    table = listing("node", "address")
    for name, address in tree.endpoints.items():
        table.add_row(name, address)
    owner, maker = tree.owner_key("88.118.8"), tree.endpoints["maker"]
    tries = (
        f"idtrace resolve {demo_data.code_of(1)} {trust}",
        f"idtrace scan '{demo_data.code_of(10)}' {trust}",
        f"idtrace scan {demo_data.code_of(100)} {trust}",
        f"idtrace resolve 88.118.8/NOT-THERE {trust}",
        f"idtrace register 88.118.8/MINE-1 --value lot=L1 --key {owner} --node {maker}",
        f"idtrace update 88.118.8/MINE-1 --status recalled --key {owner} --node {maker}",
        f"idtrace resolve 88.118.8/MINE-1 {trust} --fresh --save mine.json",
        f"idtrace verify mine.json --root {tree.root_key}",
        *demo_vaccine.tries(story),
    )
    (tree.folder / "env").write_text("".join(f"export {line}\n" for line in _variables(tree)), encoding="utf-8")
    story.output.show("", table, "", Text("Try, in another terminal:", style="bold"))
    for line in tries:
        if not story.output.as_json:
            story.output.screen.print(f"  {line}", soft_wrap=True)
    story.output.document({"endpoints": tree.endpoints, "root_key": str(tree.root_key), "try": list(tries)})
    story.output.note("Ctrl-C stops the tree")
    try:
        signal.pause()
    except KeyboardInterrupt:
        story.output.note("stopping")


def _variables(tree: DemoTree) -> list[str]:
    """Where everything is, for a shell: ``. DIR/env``."""
    named = [f"{name.upper().replace('-', '_')}={address}" for name, address in tree.endpoints.items()]
    return [*named, f"KEYS={shlex.quote(str(tree.folder.resolve()))}", 'IDTRACE_ROOT="$KEYS/root.key.pub"']
