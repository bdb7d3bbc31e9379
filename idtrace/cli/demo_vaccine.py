"""The first act of the demonstration: four doses on their way through five parties, and a verdict on each.

One is sound, one froze in a truck, one bears a copied code, one is recalled. Every step is an ordinary command against
the nodes of the parties; every verdict is proven from the root key by the command that shows it, and one of them once
more from its file when no node is left.
"""

from __future__ import annotations

import json
import time
from typing import Final

from rich.text import Text

from idtrace.cli import demo_vaccine_events as told
from idtrace.cli.demo_story import Story, json_command, quiet_command, run_command
from idtrace.cli.demo_tree import ZONES, DemoTree
from idtrace.cli.demo_vaccine_events import CARRIER, CENTRE, CLINIC, MAKER, STRANGER, Documents
from idtrace.cli.exits import ExitCode
from idtrace.cli.judge import unpacked
from idtrace.cli.options import anchor_of
from idtrace.coldchain.extract import readings
from idtrace.coldchain.profiles import BUILT_IN
from idtrace.party import PartyRole
from idtrace.product import PRODUCT_TYPE, Product
from idtrace.recall import RECALL_TYPE, RECALLS_SUFFIX, Recall, Scope, ScopeKind, format_recall
from idtrace.verdict.findings import Code, Use
from idtrace.verdict.statement import check_verdict

PARENT: Final = "88.118"
RESOLVER: Final = "resolver-a"
# Prefix, role, names.
PARTIES: Final = (
    (MAKER, PartyRole.MAKER, "Vaccine Works", "疫苗厂"),
    (CENTRE, PartyRole.DISTRIBUTOR, "Provincial CDC", "省疾控中心"),
    (CARRIER, PartyRole.CARRIER, "Cold Chain Express", "冷链物流"),
    (CLINIC, PartyRole.CLINIC, "First Clinic", "第一接种门诊"),
    (STRANGER, PartyRole.CLINIC, "Far Clinic", "远方接种门诊"),
)
EVIDENCE: Final = "frozen.verdict"
# What parties report reaches the nodes of the things within a second; a busy machine needs a multiple of that.
DELIVERED_SECONDS_MAX: Final = 60.0
# By the goal it takes 10 s at most from a recall to the first refusal, on machines of their own.
RECALL_SECONDS_MAX: Final = 60.0
POLL_SECONDS: Final = 0.1
_WORDS: Final = {Use.USE: "USE 可以使用", Use.HOLD: "HOLD 暂停使用", Use.DO_NOT_USE: "DO NOT USE 禁止使用"}
_CODES: Final = {Use.USE: ExitCode.OK, Use.HOLD: ExitCode.HOLD, Use.DO_NOT_USE: ExitCode.DO_NOT_USE}


def play(story: Story) -> int:
    """Play it; returns how many identifiers it has registered.

    Raises:
        Failure: a command did not succeed that has to.
    """
    now_ms = int(time.time() * 1000)
    papers = _papers(story)
    events = _capture(story, told.tell(now_ms), "told by 4 parties, each signed by its own key")
    _trace(story)
    judged(story, told.SOUND, "a dose that was always cold", Use.USE)
    judged(story, told.FROZEN, "a dose that froze in a truck", Use.DO_NOT_USE, Code.FROZEN, EVIDENCE)
    _show_readings(story)
    events += _capture(story, told.tell_copies(now_ms), "one code given at two clinics")
    judged(story, told.COPIED, "a dose whose code was copied", Use.DO_NOT_USE, Code.OVER_DISPENSED)
    judged(story, told.RECALLED, "a dose of a lot not yet recalled", Use.USE)
    _recall(story)
    return papers + events + 1


def check_offline(story: Story) -> None:
    """The evidence of one verdict, when every node is gone."""
    saved = story.tree.folder / EVIDENCE
    code, body = json_command("judge", "--check", str(saved), "--root", str(story.tree.root_key))
    codes = [finding["code"] for finding in body.get("findings", ())]
    size = f"{saved.stat().st_size:,} bytes with every proof"
    holds = code == ExitCode.DO_NOT_USE and Code.FROZEN in codes
    story.say("frozen dose judged again offline", f"{body.get('use', 'no verdict')}, {size}", holds=holds)


def _papers(story: Story) -> int:
    started = time.perf_counter()
    register_papers(story.tree)
    for dose in told.DOSES:
        lot = told.LOT_RECALLED if dose == told.RECALLED else told.LOT
        values = ("--value", f"lot={lot}", "--value", f"expiry={told.EXPIRY}")
        quiet_command("register", dose, "--class", told.PRODUCT, *values, *by(story.tree, MAKER))
    said = f"and a vaccine (2 to 8 °C) with 4 doses; {time.perf_counter() - started:.1f} s"
    story.say(f"{len(PARTIES)} parties licensed by {PARENT}", said)
    return len(PARTIES) + 1 + len(told.DOSES)


def register_papers(tree: DemoTree) -> None:
    """Licences by the parent, the product by its maker.

    Raises:
        Failure: as :func:`play`.
    """
    parent = ("--key", str(tree.owner_key(PARENT)), "--node", tree.endpoints["secondary"], "--root", str(tree.root_key))
    for prefix, role, english, chinese in PARTIES:
        places = [f"{told.uri(truck)},vehicle" for truck in (*told.TRUCKS, told.VAN)] if prefix == CARRIER else []
        named = [word for place in places for word in ("--location", place)]
        names = ("--role", role, "--name-en", english, "--name-zh", chinese, *named)
        term = ("--from", "2026-01-01", "--until", "2099-01-01")
        quiet_command("party", "license", prefix, "--zone", PARENT, *names, *term, *parent)
    product = Product(told.PRODUCT, "MMR vaccine, live", "麻腮风联合减毒活疫苗", MAKER, 1, 0, BUILT_IN["2-8"])
    template = tree.folder / "product.template.json"
    template.write_text('{"fields": [], "open": true}\n', encoding="utf-8")
    as_class = ("--kind", "class", "--template", str(template))
    value = f"{PRODUCT_TYPE}={product.payload().decode()}"
    quiet_command("register", told.PRODUCT, *as_class, "--value", value, *by(tree, MAKER))


def _capture(story: Story, documents: Documents, what: str) -> int:
    """Each party's document at its own node; then wait until the nodes of the things know of the events."""
    tree, started = story.tree, time.perf_counter()
    count = 0
    for party, file in documents.write(tree.folder).items():
        printed = quiet_command("capture", str(file), "--party", party, *by(tree, party), "--json")
        lines = [json.loads(line) for line in printed.splitlines()]
        count += sum("receipt" in line for line in lines)
    expected = sum(map(len, documents.events.values()))
    seconds = time.perf_counter() - started
    known = delivered(tree, documents)
    story.say(f"{count} events captured in {seconds:.1f} s", what, holds=count == expected and known)
    return count


def delivered(tree: DemoTree, documents: Documents) -> bool:
    """Whether nothing waits in the outboxes of the nodes that captured."""
    deadline = time.monotonic() + DELIVERED_SECONDS_MAX
    nodes = {_node(party) for party in documents.events}
    while time.monotonic() < deadline:
        nodes = {node for node in nodes if json_command("outbox", "--node", tree.endpoints[node])[1]["items"]}
        if not nodes:
            return True
        time.sleep(POLL_SECONDS)
    return False


def _trace(story: Story) -> None:
    """The history of the sound dose: in what it was, verified event by event."""
    trust = _trust(story)
    code, printed = run_command("trace", told.SOUND, "--tree", *trust)
    _, body = json_command("trace", told.SOUND, *trust)
    inside = {one["container"] for one in body["inside"]}
    hands = [one["party"] for one in body["custody"]]
    expected = {told.BOXES[0], told.CARTONS[0], told.PALLETS[0], told.TRUCKS[0], told.VAN}
    holds = code == ExitCode.OK and inside == expected and hands == [MAKER, CARRIER, CENTRE, CARRIER, CLINIC]
    if not story.output.as_json:
        story.output.screen.print("", printed.strip(), "", sep="\n", highlight=False, markup=False)
    found = f"{len(body['steps'])} events, {len(inside)} packages and vehicles, {len(hands)} times in other hands"
    story.say(f"history of {told.SOUND}", found, holds=holds)


def judged(story: Story, dose: str, name: str, use: Use, cause: str = "", evidence: str = "") -> None:
    """Add a line: the verdict on a dose, proven by the command from the root key, has to be this one."""
    kept = ("--evidence-out", str(story.tree.folder / evidence)) if evidence else ()
    code, body = json_command("judge", dose, *_trust(story), *kept)
    if "use" not in body:
        story.say(name, f"no verdict: {json.dumps(body)[:200]}", holds=False)
        return
    codes = [finding["code"] for finding in body["findings"]]
    first = next((one["en"] for one in body["findings"] if one["code"] == cause), "")
    proven = all(check["passed"] for check in body["checks"] if check["made"])
    holds = code == _CODES[use] and body["use"] == use.name and proven and (cause in codes if cause else not codes)
    said = first if holds else ", ".join(codes)
    story.say(name, " ".join(part for part in (_WORDS[Use[body["use"]]], said) if part), holds=holds)


def _show_readings(story: Story) -> None:
    """The readings on which the frozen dose's verdict rests, out of the saved evidence."""
    tree = story.tree
    report = check_verdict(unpacked((tree.folder / EVIDENCE).read_bytes()), anchor_of(tree.root_key), {})
    findings = report.judgement.findings if report.judgement is not None else ()
    named = {name for one in findings if one.code is Code.FROZEN for name in one.evidence}
    found = [one for one in (report.facts.observed if report.facts is not None else ()) if one.identifier in named]
    measured = [one.celsius for one in readings(found)]
    cold = [value for value in measured if value <= 0]
    events = ", ".join(f"{one.identifier[:28]}…" for one in found)
    holds = bool(cold) and {one.party for one in found} == {CARRIER}
    lowest = f"lowest {min(measured):.1f} °C" if measured else "none"
    story.say("  the truck's own readings say so", f"{len(cold)} below zero, {lowest}; {events}", holds=holds)


def _recall(story: Story) -> None:
    """One signed statement by the maker, and the time until a resolver that was told refuses the dose."""
    now = int(time.time())
    scope = Scope(ScopeKind.LOT, told.PRODUCT, told.LOT_RECALLED)
    recall = Recall(MAKER, "R-2026-01", scope, 1, "glass in a vial", "西林瓶中有玻璃碎屑", now)
    value = f"{RECALL_TYPE}={format_recall(recall).decode()}"
    quiet_command("register", f"{MAKER}/{RECALLS_SUFFIX}", "--value", value, *by(story.tree, MAKER))
    started = time.perf_counter()
    code, seconds = int(ExitCode.OK), 0.0
    while code != ExitCode.DO_NOT_USE and seconds < RECALL_SECONDS_MAX:
        code, _ = json_command("judge", told.RECALLED, *_trust(story))
        seconds = time.perf_counter() - started
    name = f"lot {told.LOT_RECALLED} recalled by its maker"
    story.say(name, f"refused {seconds:.1f} s after the node had it", holds=code == ExitCode.DO_NOT_USE)
    judged(story, told.RECALLED, "the same dose now", Use.DO_NOT_USE, Code.RECALLED)


def show_summary(story: Story) -> None:
    """In one look: what came out, and whom nobody had to trust for it."""
    words = (
        "One dose may be used; one froze, one is a copy, one is recalled, and each of these is refused with its "
        "reason. No node, cache or resolver was trusted: every verdict was judged again by its reader, from proofs "
        "that lead to one pinned key."
    )
    story.output.show("", Text(words))


def tries(story: Story) -> tuple[str, ...]:
    """Commands for whoever has the tree running."""
    trust = " ".join(_trust(story))
    return tuple(
        f"idtrace {words} {trust}"
        for words in (f"trace {told.SOUND}", f"judge {told.FROZEN}", f"judge {told.RECALLED}")
    )


def _node(party: str) -> str:
    return next(plan.node for plan in ZONES if plan.zone == party)


def by(tree: DemoTree, party: str) -> tuple[str, ...]:
    """Options of a command with which a party signs, and speaks to its own node."""
    return ("--key", str(tree.owner_key(party)), "--node", tree.endpoints[_node(party)], "--root", str(tree.root_key))


def _trust(story: Story) -> tuple[str, ...]:
    return ("--resolver", story.tree.endpoints[RESOLVER], "--root", str(story.tree.root_key))
