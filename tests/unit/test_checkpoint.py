"""A checkpoint's body has one spelling, and everything else is refused with the one reason."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idtrace.checkpoint import EXTENSION_LINES_MAX, ORIGIN_BYTES_MAX, Checkpoint
from idtrace.errors import Reason
from idtrace.merkle import EMPTY_ROOT, SIZE_MAX
from tests.log_fixtures import refusal

# The example of the specification.
SPECIFIED = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
ORIGINS = st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"]), min_size=1, max_size=60)
CHECKPOINTS = st.builds(
    Checkpoint,
    origin=ORIGINS,
    size=st.integers(0, SIZE_MAX),
    root=st.binary(min_size=32, max_size=32),
    extensions=st.lists(ORIGINS, max_size=3).map(tuple),
)


def test_the_specifications_example_is_read_and_written() -> None:
    found = Checkpoint.parse(SPECIFIED)
    assert found == Checkpoint("example.com/behind-the-sofa", 20_852_163, base64.b64decode(ROOT))
    assert found.text == SPECIFIED


def test_an_empty_log_and_extension_lines_are_kept_as_they_are() -> None:
    text = f"a log with spaces + plus\n0\n{base64.b64encode(EMPTY_ROOT).decode()}\nTimestamp: 5\n\u00e9\n"
    assert Checkpoint.parse(text).extensions == ("Timestamp: 5", "\u00e9")
    assert Checkpoint.parse(text).text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\n\n\n",
        "o\n1\n",
        f"o\n1\n{ROOT}",
        f"\n1\n{ROOT}\n",
        f"o\n\n{ROOT}\n",
        f"o\n1\n{ROOT}\n\n",
        f"o\n1\n{ROOT}\n\next\n",
        f"o\n01\n{ROOT}\n",
        f"o\n+1\n{ROOT}\n",
        f"o\n-1\n{ROOT}\n",
        f"o\n 1\n{ROOT}\n",
        f"o\n1_0\n{ROOT}\n",
        f"o\n1.0\n{ROOT}\n",
        f"o\n0x1\n{ROOT}\n",
        f"o\n\u0661\n{ROOT}\n",
        f"o\n{SIZE_MAX + 1}\n{ROOT}\n",
        f"o\n{10**30}\n{ROOT}\n",
        f"o\n1\n{ROOT[:-1]}\n",
        f"o\n1\n {ROOT}\n",
        f"o\n1\n{ROOT}=\n",
        f"o\n1\n{ROOT[:-2]}J=\n",
        f"o\n1\n{ROOT.replace('/', '_')}\n",
        f"o\n1\n{base64.b64encode(b'x' * 31).decode()}\n",
        f"o\n1\n{base64.b64encode(b'x' * 33).decode()}\n",
        f"o\n1\n\u00e9{ROOT[1:]}\n",
        f"o\r\n1\n{ROOT}\n",
        f"o\t\n1\n{ROOT}\n",
        f"o\0\n1\n{ROOT}\n",
        f"\ud800\n1\n{ROOT}\n",
        f"{'x' * (ORIGIN_BYTES_MAX + 1)}\n1\n{ROOT}\n",
        f"{chr(0xE9) * 128}\n1\n{ROOT}\n",
        f"o\n1\n{ROOT}\n" + "e\n" * (EXTENSION_LINES_MAX + 1),
    ],
)
def test_what_is_not_the_one_spelling_is_refused(text: str) -> None:
    assert refusal(Checkpoint.parse, text) is Reason.CHECKPOINT_MALFORMED


def test_limits_are_reached() -> None:
    for text in (
        f"{'x' * ORIGIN_BYTES_MAX}\n{SIZE_MAX}\n{ROOT}\n",
        f"o\n1\n{ROOT}\n" + "e\n" * EXTENSION_LINES_MAX,
    ):
        assert Checkpoint.parse(text).text == text


@given(CHECKPOINTS)
def test_what_is_written_is_read_back(body: Checkpoint) -> None:
    assert Checkpoint.parse(body.text) == body


@given(st.text(st.characters(), max_size=120) | st.text(alphabet="o1\nA= /+", max_size=60))
def test_any_text_is_a_canonical_checkpoint_or_refused(text: str) -> None:
    refused = refusal(Checkpoint.parse, text)
    assert refused is Reason.CHECKPOINT_MALFORMED or Checkpoint.parse(text).text == text


@given(CHECKPOINTS, st.data())
def test_a_checkpoint_with_one_character_changed_is_another_one_or_none(body: Checkpoint, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(body.text) - 1))
    changed = body.text[:at] + data.draw(st.characters()) + body.text[at + 1 :]
    if refusal(Checkpoint.parse, changed) is None:
        assert Checkpoint.parse(changed).text == changed
        assert (Checkpoint.parse(changed) == body) == (changed == body.text)
