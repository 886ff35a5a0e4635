import sys, time, copy
from pathlib import Path
import pytest
from lying_federation import *
from lies import LIES, asked
from zk0.params import parse_params
from zk0.files import write_json
from zk0.resolve import resolve_sources
from zk0.stages import prepare

@pytest.fixture(scope="module")
def lying(params_content, tmp_path_factory):
    t=time.perf_counter()
    c = copy.deepcopy(params_content)
    c["data"]["partition"]["sites"] = 4
    c["training"] |= {"local_steps": 1, "batch": 2}
    c["federation"] |= {"rounds": 2, "min_replies": 0.75}
    params = parse_params(c)
    root = tmp_path_factory.mktemp("four")
    write_json(root / "sources.lock.json", resolve_sources(params, root))
    prepare.run(root, params)
    print("prepared", time.perf_counter()-t)
    with lying_federation(root, tmp_path_factory.mktemp("lying"), params) as f:
        yield f

def test_time(lying):
    for i in range(4):
        t=time.perf_counter()
        o = lying.run(None)
        print("honest", time.perf_counter()-t, o.peak_bytes/1e6, [r["digest"] for r in o.rows])
    import cProfile, pstats
    pr=cProfile.Profile(); pr.enable(); o = lying.run(None); pr.disable()
    pstats.Stats(pr).sort_stats("cumtime").print_stats(45)

def test_all(lying):
    import json, os, traceback, gc
    pick = os.environ.get("LIES", "")
    found = {}
    honest = lying.run(None)
    refs = {}
    for kind in ("query.summary", "query.statistics", "train", "evaluate"):
        try:
            o = lying.run(Lie(kind, away, "away") if False else Lie(kind, lambda r: Message(Error(ERROR_CODE, AWAY), reply_to=asked(r)), "away"))
            refs[kind] = [r["digest"] for r in o.rows]
            print(kind, refs[kind], o.reasons())
        except Exception as e:
            print("reference", kind, type(e), str(e)[:300])
    out = open("/tmp/w/lies_found.jsonl", "w")
    for name, lie in LIES.items():
        if pick not in name: continue
        t = time.perf_counter()
        r = {"name": name}
        try:
            o = lying.run(lie)
            r |= {"ok": True, "reasons": {s: [x[:160] for x in v] for s, v in o.reasons().items()}, "longest": max([len(x) for v in o.reasons().values() for x in v], default=0), "same": refs.get(lie.kind) == [x["digest"] for x in o.rows], "honest": [x["digest"] for x in honest.rows] == [x["digest"] for x in o.rows], "peak": o.peak_bytes/honest.peak_bytes,
              "losses": [x["held_out_loss"] for x in o.rows], "best": o.report["best_round"]}
        except BaseException as e:
            r |= {"ok": False, "type": type(e).__name__, "why": str(e)[:300], "at": traceback.format_exc()[-400:]}
        r["s"] = time.perf_counter() - t
        try:
            out.write(json.dumps(r) + "\n"); out.flush()
        except Exception as e:
            out.write(json.dumps({"name": name, "ok": False, "why": repr(e)[:200]}) + "\n")
