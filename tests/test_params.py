"""params.yaml: what is refused, and how it is said."""

from __future__ import annotations

import functools
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from zk0.params import Params, ParamsError, load_params, parse_params

ROOT = Path(__file__).parents[1]
LEAST: dict[str, Any] = {"policy": {"base": "random:nano"}, "data": {"sites": {"a": "sim:push-red-cube-left"}}}


def with_value(path: str, value: Any) -> dict[str, Any]:
    """The least params with one more value, at a dotted path."""
    content = yaml.safe_load(yaml.safe_dump(LEAST))
    *sections, key = path.split(".")
    place = content
    for section in sections:
        place = place.setdefault(section, {})
    place[key] = value
    return content


def refusal(content: dict[str, Any]) -> str:
    with pytest.raises(ParamsError) as refused:
        parse_params(content)
    return str(refused.value)


def test_least_params_have_defaults() -> None:
    params = parse_params(LEAST)

    assert params.training.local_steps == 30
    assert params.data.unseen == {} and params.data.partition.scheme == "none"


@pytest.mark.parametrize("profile", sorted((ROOT / "profiles").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_loads(profile: Path) -> None:
    assert load_params(profile).federation.rounds > 0


def test_shipped_params_are_the_demo_profile() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (ROOT / "profiles/demo.yaml").read_bytes()


def descriptions(model: type[BaseModel] = Params, section: str = "") -> dict[str, str]:
    """Dotted names of all params and sections to what the code says of them."""
    found = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= {f"{section}{name}": inspect.getdoc(kind) or ""} | descriptions(kind, f"{section}{name}.")
        else:
            found[f"{section}{name}"] = field.description or ""
    return found


def comments(path: Path) -> dict[str, str]:
    """Dotted names of a params file to the comment beside each."""
    found: dict[str, str] = {}
    name: list[str] = []
    for line in path.read_text().splitlines():
        if setting := re.match(r"( *)([\w-]+):( .*)?$", line):
            name = [*name[: len(setting[1]) // 2], setting[2]]
        if comment := re.search(r" # (.*)$", line):
            found[".".join(name)] = f"{found.get('.'.join(name), '')} {comment[1]}".strip()
    return found


def value_of(params: Params, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), params)


def test_every_param_is_described_in_code() -> None:
    assert not [name for name, text in descriptions().items() if not text.endswith(".")]


@pytest.mark.parametrize(
    "file", [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))], ids=lambda p: p.stem
)
def test_comments_are_the_descriptions_in_code(file: Path) -> None:
    """Word for word; profiles that explain nothing but their own choices may say why a value is another one."""
    own, shipped = (parse_params(yaml.safe_load(path.read_text())) for path in (file, ROOT / "params.yaml"))
    said = {name: text.split(". ")[0].rstrip(".") for name, text in descriptions().items()}
    gives_reasons = "this file says what differs and why" in file.read_text()

    for name, comment in comments(file).items():
        reason = gives_reasons and value_of(own, name) != value_of(shipped, name)
        assert reason or comment.casefold() == said[name].casefold(), name


def test_params_are_frozen() -> None:
    params = parse_params(LEAST)

    with pytest.raises(ValidationError):
        params.training.batch = 1  # type: ignore[misc]
    with pytest.raises(ValidationError):
        params.seed = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("seed", -1, "greater than or equal to 0"),
        ("threads", 0, "greater than or equal to 1"),
        ("policy.device", "tpu", "'cpu', 'cuda', 'mps' or 'auto'"),
        ("data.held_out", 0, "greater than 0"),
        ("data.held_out", 1, "less than 1"),
        ("data.episodes", 1, "greater than or equal to 2"),
        ("data.noise", 1.5, "less than or equal to 1"),
        ("data.fps", 0, "greater than or equal to 1"),
        ("data.decoded_limit_bytes", -1, "greater than or equal to 0"),
        ("data.partition.alpha", 0.0, "greater than 0"),
        ("data.partition.sites", 0, "greater than or equal to 1"),
        ("training.local_steps", 0, "greater than or equal to 1"),
        ("training.batch", 0, "greater than or equal to 1"),
        ("training.learning_rate", 0.0, "greater than 0"),
        ("training.learning_rate", float("inf"), "finite number"),
        ("training.weight_decay", float("nan"), "greater than or equal to 0|finite number"),
        ("training.grad_clip", -1.0, "greater than or equal to 0"),
        ("federation.strategy", "fedsgd", "'krum' or 'multi-krum'"),
        ("federation.rounds", 0, "greater than or equal to 1"),
        ("federation.min_replies", 0.0, "greater than 0"),
        ("federation.min_replies", 1.1, "less than or equal to 1"),
        ("federation.timeout_s", 0.0, "greater than 0"),
        ("federation.fraction", 0.0, "greater than 0"),
        ("federation.fraction", 1.5, "less than or equal to 1"),
        ("federation.server_learning_rate", 0.0, "greater than 0"),
        ("federation.server_schedule", "linear", "'constant', 'cosine' or 'plateau'"),
        ("federation.proximal_schedule", "cosine", "'constant', 'linear' or 'trend'"),
        ("federation.server_least_share", 1.1, "less than or equal to 1"),
        ("federation.schedule_patience", 0, "greater than or equal to 1"),
        ("federation.schedule_factor", 1.0, "less than 1"),
        ("federation.stop_after", -1, "greater than or equal to 0"),
        ("federation.stop_margin", 1.0, "less than 1"),
        ("evaluation.seed", 99_999, "greater than or equal to 100000"),
        ("evaluation.step_factor", 0.9, "greater than or equal to 1"),
        ("evaluation.cut_share", 1.0, "less than 1"),
        ("evaluation.perturbation_deg", -1.0, "greater than or equal to 0"),
        ("benchmark.margin", 0.0, "greater than 0"),
        ("engine.name", "dask", "'inprocess' or 'ray'"),
        ("engine.gpus", 1.5, "less than or equal to 1"),
        ("engine.address", "ray://head:10001", "String should match pattern"),
        ("promotion.metric", "held_out_loss", "'success_rate' or 'action_error_deg'"),
        ("promotion.site_margin", 0.0, "greater than 0"),
        ("promotion.confidence", 0.5, "greater than 0.5"),
    ],
)
def test_value_out_of_range_is_refused_with_rule_and_value(path: str, value: Any, rule: str) -> None:
    message = refusal(with_value(path, value))

    assert message.startswith(f"params: {path}: ")
    assert any(part in message for part in rule.split("|"))
    assert f"(got {value!r})" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            with_value("training", {"learning_rate": 1e-4, "final_learning_rate": 2e-4}),
            "training: final_learning_rate 0.0002 is above learning_rate 0.0001",
        ),
        (
            with_value("training", {"warmup_steps": 10, "decay_steps": 10}),
            "training: decay_steps 10 must be above warmup_steps 10",
        ),
        (with_value("federation.proximal_mu", 0.1), "proximal_mu 0.1 needs strategy fedprox"),
        (
            with_value("federation", {"strategy": "fedprox", "proximal_schedule": "linear"}),
            "proximal_schedule linear needs strategy fedprox with a proximal_mu above 0",
        ),
        (
            with_value("federation.proximal_schedule", "trend"),
            "proximal_schedule trend needs strategy fedprox with a proximal_mu above 0",
        ),
        (
            with_value(
                "federation",
                {
                    "strategy": "fedprox",
                    "proximal_mu": 0.1,
                    "proximal_schedule": "trend",
                    "proximal_least_share": 0.0,
                },
            ),
            "so proximal_least_share must be above 0",
        ),
        (with_value("federation.stop_margin", 0.1), "stop_margin 0.1 needs a stop_after above 0"),
        (
            with_value("federation", {"server_schedule": "plateau", "schedule_patience": 3, "stop_after": 3}),
            "stop_after 3 ends the run before server_schedule plateau, which waits schedule_patience 3 rounds, lowers",
        ),
        (with_value("evaluation", {"rollouts": 1, "videos": 2}), "evaluation: videos 2 is above rollouts 1"),
        (
            with_value("policy.device", "cuda") | {"engine": {"name": "ray"}},
            "engine.gpus is 0, and Ray hides every GPU from a worker with none, but policy.device is cuda",
        ),
        (
            with_value("policy.processes", 2) | {"engine": {"name": "ray", "gpus": 0.5}},
            "engine.gpus is 0.5, but each of policy.processes 2 needs a GPU of its own",
        ),
        (with_value("promotion", {"site_margin": 10.0}), "promotion: site_margin 10.0 is above 1; of success_rate"),
        (with_value("data.unseen", {"a": "sim:pull-blue-bar"}), "data: a cannot be both a site and unseen"),
        (with_value("data.sites", {"a b": "sim:x"}), "site name 'a b' may hold letters, digits, '-' and '_' only"),
        (with_value("data.sites", {}), "data.sites: Dictionary should have at least 1 item"),
        (with_value("data.sites.a", "sym:x"), "source 'sym:x' has an unknown kind; did you mean 'sim'?"),
        (with_value("data.unseen", {"b": "cube"}), "source 'cube' must be sim:TASK, sim:TASK@ROOM, local:PATH or hub"),
        (
            with_value("data", {"sites": {"a": "sim:x", "b": "sim:y"}, "partition": {"scheme": "equal"}}),
            "partition.scheme 'equal' splits one source, but sites names 2",
        ),
        ({"policy": {"base": "random:nano"}}, "params: data is missing"),
        ({**LEAST, "policy": {}}, "params: policy.base is missing"),
    ],
)
def test_contradiction_is_refused(content: dict[str, Any], said: str) -> None:
    assert said in refusal(content)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("trainning", "unknown key 'trainning'; did you mean 'training'?"),
        ("training.lerning_rate", "unknown key 'training.lerning_rate'; did you mean 'learning_rate'?"),
        ("data.partition.shceme", "unknown key 'data.partition.shceme'; did you mean 'scheme'?"),
        ("benchmark.xyzzy", "unknown key 'benchmark.xyzzy'; known are chunks, margin, steps"),
    ],
)
def test_unknown_key_comes_with_its_nearest_neighbour(path: str, said: str) -> None:
    assert refusal(with_value(path, 1)) == f"params: {said}"


def test_every_problem_is_listed() -> None:
    content = with_value("training.batch", 0) | {"sed": 3}

    assert refusal(content).splitlines() == [
        "params: training.batch: Input should be greater than or equal to 1 (got 0)",
        "params: unknown key 'sed'; did you mean 'seed'?",
    ]


def test_fedprox_may_have_a_proximal_term() -> None:
    params = parse_params(with_value("federation", {"strategy": "fedprox", "proximal_mu": 0.1}))

    assert params.federation.proximal_mu == 0.1


@pytest.mark.parametrize(("decay_steps", "expected"), [(0, 4 * 25), (70, 70)])
def test_decay_ends_with_the_last_round_unless_said(decay_steps: int, expected: int) -> None:
    training = {"local_steps": 25, "decay_steps": decay_steps}
    params = Params.model_validate(LEAST | {"training": training, "federation": {"rounds": 4}})

    assert params.decay_steps == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: [1", "is not valid YAML"),
        ("- seed", "must be a mapping of sections, but holds list"),
        ("", "must be a mapping of sections, but holds NoneType"),
    ],
)
def test_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)

    with pytest.raises(ParamsError, match=said):
        load_params(path)


def test_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="run from the project's root"):
        load_params(tmp_path / "params.yaml")


def test_messages_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(with_value("seed", -1)))

    with pytest.raises(ParamsError, match=r"mine\.yaml: seed: "):
        load_params(path)
