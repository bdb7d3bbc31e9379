"""``idtrace demo``: the main job from end to end, on this machine, with nothing prepared and nothing trusted.

Every step is an ordinary ``idtrace`` command against real nodes; each claim of the report is checked, and the exit code
says whether all of them held.
"""

from __future__ import annotations

import io
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from idtrace.bundle import Bundle
from idtrace.cli import demo_data
from idtrace.cli.demo_check import Prover, Tally, resolve_all
from idtrace.cli.demo_tree import NODES, DemoTree
from idtrace.cli.exits import ExitCode, Failure
from idtrace.cli.options import JsonOption, anchor_of, now, output_of
from idtrace.cli.output import Output, listing, plain
from idtrace.errors import OutcomeUnknownError, Reason
from idtrace.record import Record

HOSTED_LINES: Final = 200
# Resolver, what for, and how many (0: every one).
SWEEPS: Final = (("resolver-a", "cold", 0), ("resolver-a", "warm", 2_500), ("resolver-b", "other resolver", 500))
SCANNED: Final = f"]d2\x1d01{demo_data.GTIN}21D000010\x1d17280531102026A00"
MISREAD: Final = f"(01){demo_data.GTIN[:-1]}3(21)D000010"


@dataclass(slots=True)
class Step:
    """One line of the report: what was tried, what came out, and whether that is what has to come out."""

    name: str
    result: str
    holds: bool


@dataclass(slots=True)
class Story:
    """The demonstration under way."""

    output: Output
    tree: DemoTree
    packages: int
    steps: list[Step] = field(default_factory=list)

    def say(self, name: str, result: str, *, holds: bool = True) -> None:
        """Add a line to the report and show it as it comes."""
        self.steps.append(Step(name, result, holds))
        mark = Text("✓ ", style="green") if holds else Text("✗ ", style="bold red")
        self.output.show(Text.assemble(mark, f"{name:<42}", (plain(result), "dim")))


def run_command(*arguments: str) -> tuple[int, str]:
    """Run one ``idtrace`` command in this process; returns its exit code and all that it printed."""
    from idtrace.cli.app import app

    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            code = typer.main.get_command(app).main(list(arguments), prog_name="idtrace", standalone_mode=False)
        except typer.BadParameter as error:
            return int(ExitCode.USAGE), str(error)
    return int(code or 0), printed.getvalue()


def quiet_command(*arguments: str) -> str:
    """Run one command that has to succeed; returns what it printed.

    Raises:
        Failure: it did not; with what it said.
    """
    code, printed = run_command(*arguments)
    if code != ExitCode.OK:
        shown = " ".join(arguments)
        error = OutcomeUnknownError(Reason.INTERNAL, f"idtrace {shown} ended with {code}: {printed[-1_000:]}")
        raise Failure(ExitCode(code) if code in tuple(ExitCode) else ExitCode.USAGE, error, title="a step failed")
    return printed


def demo(
    ctx: typer.Context,
    serve: Annotated[bool, typer.Option("--serve", help="Leave the tree running and say what to try.")] = False,
    packages: Annotated[
        int, typer.Option("--packages", min=100, max=1_000_000, help="Dose packages to register.")
    ] = demo_data.PACKAGES,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="New folder for keys, stores and proofs; kept.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Play the whole job: a tree of nodes, registration, resolution, lies refused, a proof verified offline."""
    del as_json
    output = output_of(ctx)
    if keep is not None and keep.exists():
        raise typer.BadParameter(f"{keep} exists already", param_hint="--keep")
    temporary = None if keep else tempfile.mkdtemp(prefix="idtrace-demo-")
    story = Story(output, DemoTree(keep or Path(str(temporary)) / "tree", quiet_command), packages)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        holds = _play(story, serve=serve)
    finally:
        story.tree.stop()
        signal.signal(signal.SIGTERM, previous)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    raise typer.Exit(ExitCode.OK if holds else ExitCode.BOGUS)


def _interrupt(_number: int, _frame: Any) -> None:
    """SIGTERM ends the demonstration as Ctrl-C does: with its nodes stopped."""
    raise KeyboardInterrupt


def _play(story: Story, *, serve: bool) -> bool:
    started = time.perf_counter()
    _bring_up(story)
    texts = _register(story)
    if serve:
        _serve(story)
        return True
    bundle = story.tree.folder / "dose.json"
    cold, warm = _resolve(story, texts)
    _scan(story, bundle)
    _lie(story, bundle)
    _recall(story)
    _offline(story, bundle)
    holds = all(step.holds for step in story.steps)
    _report(story, cold, warm, time.perf_counter() - started, holds=holds)
    return holds


def _bring_up(story: Story) -> None:
    tree, started = story.tree, time.perf_counter()
    tree.prepare()
    tree.start()
    tree.delegate()
    nodes = ", ".join(f"{plan.name}" for plan in NODES)
    story.say(f"{len(NODES)} nodes started, 9 zones signed", f"{nodes}; {time.perf_counter() - started:.1f} s")


def _register(story: Story) -> list[str]:
    """Register the manifest, the EPCIS identifiers, and the hosted enterprise's items; returns what can be scanned."""
    tree = story.tree
    manifest = tree.folder / "manifest.csv"
    demo_data.write_manifest(manifest, story.packages)
    started = time.perf_counter()
    _register_file(story, manifest, "88.118.8", "maker")
    seconds = time.perf_counter() - started
    rate = f"{story.packages / seconds:,.0f} a second, each with a receipt checked from the root key"
    story.say(f"{story.packages:,} dose packages registered", rate)
    found, documents, refused = demo_data.epcis_identifiers(demo_data.epcis_folder())
    epcis = tree.folder / "epcis.csv"
    demo_data.write_epcis_manifest(epcis, found)
    _register_file(story, epcis, "gs1", "top")
    story.say(f"{len(found)} identifiers from EPCIS registered", f"{documents} documents read, {refused} texts refused")
    hosted = tree.folder / "hosted.csv"
    lines = [f"88.118.9/BOX-{number:05d}" for number in range(1, HOSTED_LINES + 1)]
    hosted.write_text("identifier,lot\n" + "".join(f"{line},H1\n" for line in lines), encoding="utf-8")
    _register_file(story, hosted, "88.118.9", "secondary")
    story.say(f"{HOSTED_LINES} items of a hosted enterprise", "88.118.9 signs, the node of 88.118 keeps (托管)")
    return [demo_data.code_of(number) for number in range(1, story.packages + 1)] + list(found) + lines


def _register_file(story: Story, file: Path, zone: str, node: str) -> None:
    tree = story.tree
    key, root = str(tree.owner_key(zone)), str(tree.root_key)
    quiet_command("register", "--from", str(file), "--key", key, "--node", tree.endpoints[node], "--root", root)


def _resolve(story: Story, texts: list[str]) -> tuple[Tally, Tally]:
    """Every one through a resolver; then some again, which it has in its cache, and some through the other one."""
    tree = story.tree
    prover = Prover(anchor_of(tree.root_key), now())
    tallies: list[Tally] = []
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=story.output.notes, transient=True, disable=story.output.as_json) as progress:
        for name, what, most in SWEEPS:
            asked = texts[:: max(1, len(texts) // most)] if most else texts
            task = progress.add_task(f"resolving, {what}", total=len(asked))
            tally = resolve_all(tree.endpoints[name], asked, prover, _advance(progress, task))
            story.say(
                f"{len(asked):,} resolved, {what}",
                f"{tally.rate:,.0f} a second, {tally.verdicts['FOUND']:,} proven",
                holds=tally.all_found(len(asked)),
            )
            tallies.append(tally)
    return tallies[0], tallies[1]


def _advance(progress: Progress, task: Any) -> Callable[[int], None]:
    return lambda count: progress.advance(task, count)


def _scan(story: Story, bundle: Path) -> None:
    """A DataMatrix and a drug trace code, as a gun hands them over; and the proof of one dose as a file."""
    tree = story.tree
    trust = ("--resolver", tree.endpoints["resolver-b"], "--root", str(tree.root_key))
    drug = demo_data.code_of(demo_data.DRUG_EVERY)
    for name, text in (("GS1 DataMatrix scanned", SCANNED), ("drug trace code scanned", drug)):
        code, body = _json("scan", text, *trust)
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
    _refused(story, "forged record: lot changed", "VALUE_CHANGED", "verify", str(forged), "--root", root)
    thief = str(tree.owner_key("88.118.9"))
    stolen = ("register", "88.118.8/STOLEN-1", "--value", "lot=X", "--key", thief, "--node", maker)
    _refused(story, "stolen prefix: 88.118.9 signs 88.118.8", "SIGNER_UNKNOWN", *stolen)
    grab = ["delegate", "--zone", "88.118", "--child", "88.118.7", "--key", thief]
    grab += ["--enrol", str(tree.folder / "88.118.9-record.enrol.json"), "--endpoint", tree.endpoints["secondary"]]
    own = tree.folder / "88.118.7.enrol.json"
    quiet_command("key", "enrol", thief, "--zone", "88.118.7", "--role", "zone", "--role", "node", "--out", str(own))
    grab[grab.index("--enrol") + 1] = str(own)
    _refused(
        story, "stolen zone: delegation self-signed", "SIGNER_UNKNOWN", *grab, "--node", tree.endpoints["secondary"]
    )
    trust = ("--resolver", tree.endpoints["resolver-a"], "--root", root)
    code, body = _json("resolve", "88.118.8/NOT-THERE", *trust)
    story.say(
        "unknown code",
        f"{body['verdict']}, by a denial signed by its zone",
        holds=code == ExitCode.PROVEN_NO and body["reason"] == "IDENTIFIER_ABSENT",
    )
    _refused(story, "misread code: check digit", "GS1_CHECK_DIGIT", "scan", MISREAD)


def _forged(text: str) -> str:
    """The bundle with another value in it and its digest made right again, as a forger would."""
    bundle = Bundle.from_json(text)
    assert isinstance(bundle.outcome, Record)
    first, *others = bundle.outcome.values
    values = (replace(first, data=b"another vaccine"), *others)
    return replace(bundle, outcome=replace(bundle.outcome, values=values)).to_json()


def _refused(story: Story, name: str, reason: str, *arguments: str) -> None:
    code, printed = run_command(*arguments, "--json")
    story.say(name, f"refused: {reason}", holds=code not in (ExitCode.OK, ExitCode.PROVEN_NO) and reason in printed)


def _recall(story: Story) -> None:
    tree = story.tree
    text = demo_data.code_of(2)
    key, node = str(tree.owner_key("88.118.8")), tree.endpoints["maker"]
    quiet_command("update", text, "--status", "recalled", "--key", key, "--node", node, "--root", str(tree.root_key))
    trust = ("--resolver", tree.endpoints["resolver-a"], "--root", str(tree.root_key))
    _, body = _json("resolve", text, *trust, "--fresh")
    status = body["record"]["status"]
    story.say("recall of one dose", f"{text} is {status}", holds=status == "recalled")


def _offline(story: Story, bundle: Path) -> None:
    """The nodes are gone; the file and the root key are enough."""
    story.tree.stop()
    alive = [name for name, process in story.tree.processes.items() if process.poll() is None]
    story.say("all nodes stopped", ", ".join(alive) or "none is left", holds=not alive)
    code, body = _json("verify", str(bundle), "--root", str(story.tree.root_key))
    passed = sum(check["passed"] for check in body["checks"])
    story.say(
        "proof verified offline",
        f"{body['verdict']}, {passed} of {len(body['checks'])} checks",
        holds=code == ExitCode.OK and passed == len(body["checks"]),
    )


def _json(*arguments: str) -> tuple[int, dict[str, Any]]:
    code, printed = run_command(*arguments, "--json")
    body: dict[str, Any] = json.loads(printed)
    return code, body


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
    )
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
