"""Sources as text, and hints for names that are mistyped."""

from __future__ import annotations

import pytest

from zk0.sources import Source
from zk0.words import nearest_hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sim:pull-blue-bar", Source("sim", "pull-blue-bar")),
        ("sim:pull-blue-bar@0", Source("sim", "pull-blue-bar", room=0)),
        ("sim:pull-blue-bar@999999", Source("sim", "pull-blue-bar", room=999_999)),
        ("local:~/my data/cups", Source("local", "~/my data/cups")),
        ("local:C:/cups@home", Source("local", "C:/cups@home")),
        ("hub:lerobot/svla_so100@v3.0", Source("hub", "lerobot/svla_so100", "v3.0")),
    ],
)
def test_source_survives_parsing_and_printing(text: str, expected: Source) -> None:
    assert Source.parse(text) == expected
    assert str(expected) == text


def test_hub_source_without_a_revision_is_main() -> None:
    assert str(Source.parse("hub:lerobot/svla_so100")) == "hub:lerobot/svla_so100@main"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cube", "must be sim:TASK, sim:TASK@ROOM, local:PATH or hub:OWNER/NAME@REVISION"),
        ("sim:", "must be sim:TASK, sim:TASK@ROOM, local:PATH or hub:OWNER/NAME@REVISION"),
        ("hub:cube", "must name a repository as hub:OWNER/NAME@REVISION"),
        ("hub:a/b/c", "must name a repository as hub:OWNER/NAME@REVISION"),
        ("sim:pull-blue-bar@", "names the room ''; a whole number from 0 to 999999 was expected"),
        ("sim:pull-blue-bar@-1", "names the room '-1'; a whole number from 0 to 999999 was expected"),
        ("sim:pull-blue-bar@07", "names the room '07'; a whole number from 0 to 999999 was expected"),
        ("sim:pull-blue-bar@1000000", "as in sim:pull-blue-bar@7"),
        ("sim:pull-blue-bar@kitchen", "as in sim:pull-blue-bar@7"),
        ("locl:data", "unknown kind; did you mean 'local'?"),
        ("ftp:data", "unknown kind; known are hub, local, sim"),
    ],
)
def test_other_text_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=f"^source '{text}' ") as refused:
        Source.parse(text)
    assert said in str(refused.value)


def test_hint_names_the_nearest_or_all() -> None:
    assert nearest_hint("fedprx", ["fedavg", "fedprox"]) == "; did you mean 'fedprox'?"
    assert nearest_hint("krum", ["fedprox", "fedavg"]) == "; known are fedavg, fedprox"
