"""What a message to a site costs over the network's services besides the site's own work, on loopback.

Beside an app that does nothing on the same SuperLink, gateway and SuperNode, and beside our own ClientApp without a
trainer, which loads policy and data in the process that Flower starts for each message.
"""

from __future__ import annotations

from benchmarks.harness import Outcome, plain_app
from benchmarks.isolated import isolated
from benchmarks.pieces import Pieces
from zk0.measuring.rows import row
from zk0.measuring.timing import Spread

NAME = "network"
EMPTY = "Flower 1.41, a ClientApp that does nothing"
LOADING = "Flower 1.41, a ClientApp that loads policy and data"


def measure(quick: bool, command: str, pieces: Pieces) -> Outcome:
    """Ours and the empty app in turns, then some messages that load."""
    rounds, loading, repeats = (4, 2, 1) if quick else (9, 4, 2)
    found = pieces.get(
        "messages",
        isolated,
        "benchmarks.own_network:messages",
        rounds=rounds,
        loading_rounds=loading,
        repeats=repeats,
        threads=2,
    )
    warm, empty, loads = (Spread.of(found[name]) for name in ("warm", "empty", "loading"))
    work = "one message of a round's two, 2 M policy, one site over TLS on loopback, the site's own work taken out"
    above = {at: getattr(warm, at) - getattr(empty, at) for at in ("low", "median", "high")}
    return Outcome(
        title="Messages over the network",
        about=(
            "SuperLink, gateway, SuperNode and the site's trainer as the documented commands start them, on loopback; "
            "from the server's sending a message to its having the checked reply, less the seconds in which the site "
            "trained or judged. Round 1 is left out. The empty app sends messages without content by the same Grid to "
            "a ClientApp that answers at once: most of it is Flower's, whose SuperNode asks for messages every 3 s, "
            "looks for replies every 0.5 s, and starts a process for each. "
            "So when a message comes in that cycle decides most of its time, and the ends tell more than the middle: "
            "ours less an empty one, with 2.2 MB of tensors and all checks, is "
            f"{above['low']:+.2f} s for the fastest, {above['median']:+.2f} s at the median and {above['high']:+.2f} s "
            "for the slowest."
        ),
        rows=[
            row("message to a site, warm", work, "s", warm.median, command, peer=empty.median, peer_name=EMPTY),
            row(
                "message to a site, warm, beside loading",
                work,
                "s",
                warm.median,
                command,
                peer=loads.median,
                peer_name=LOADING,
            ),
        ],
        spread={
            "warm": f"{warm} s",
            EMPTY: f"{empty} s",
            LOADING: f"{loads} s",
            "the site's own work": f"{Spread.of(found['working'])} s",
        },
        more={"above_empty_s": above["median"]},
    )


app = plain_app(NAME, "Time messages to a site over the network's services.", measure)

if __name__ == "__main__":
    app()
