"""A stranger's checkpoint: nothing of it runs, no path in it is followed, and it is refused in one line."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lerobot.configs.policies import PreTrainedConfig
from lerobot.policies.act.configuration_act import ACTConfig
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.processor import PolicyProcessorPipeline, ProcessorStepRegistry
from safetensors.numpy import load_file, save_file
from standin_policy import smolvla_base
from tests_support import REPO

from zk0.checkpoints import CheckpointError, read_checkpoint
from zk0.checkpoints.reading import _STEPS
from zk0.checkpoints.settings import VLM_FOLDER, Settings, Vlm
from zk0.federation.protocol import SiteTask
from zk0.network.client.trainer import BaseMissing, Bases
from zk0.params import parse_params
from zk0.policy.checkpoint import LoadedPolicy, load_checkpoint, save_checkpoint
from zk0.policy.start import load_start
from zk0.sources_lock import resolve_sources

BASE = REPO / "models" / "nano-base"
FILES = {file.relative_to(BASE).as_posix(): file.read_text() for file in sorted(BASE.rglob("*.json"))}
FULL_VLM = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"
STATS = "policy_preprocessor_step_5_normalizer_processor.safetensors"
Edit = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the embedded base, to be spoilt."""
    return Path(shutil.copytree(BASE, tmp_path / "checkpoint"))


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that is there once something of a checkpoint ran."""
    path = tmp_path / "it-ran"
    yield path
    assert not path.exists()


def edit(file: str, change: Callable[[Any], object]) -> Edit:
    """Change a JSON file in place."""

    def run(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return run


def put(file: str, **values: Any) -> Edit:
    return edit(file, lambda content: content.update(values))


def write(file: str, text: str) -> Edit:
    return lambda folder: (folder / file).write_text(text)


def step(number: int, **values: Any) -> Edit:
    return edit("policy_preprocessor.json", lambda content: content["steps"][number]["config"].update(values))


def extra(**content: Any) -> Edit:
    return edit("policy_preprocessor.json", lambda file: file["steps"].append(content))


def nested(file: str, part: str, **values: Any) -> Edit:
    return edit(file, lambda content: content[part].update(values))


def link(name: str, target: str) -> Edit:
    def run(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return run


def state_file(name: str) -> Edit:
    return edit("policy_preprocessor.json", lambda content: content["steps"][5].update(state_file=name))


def tensors(file: str, change: Callable[[dict[str, np.ndarray]], object]) -> Edit:
    def run(folder: Path) -> None:
        found = load_file(folder / file)
        change(found)
        save_file(found, folder / file)

    return run


def header(text: str, length: int | None = None) -> Edit:
    """A file of weights that is nothing but a header."""
    packed = struct.pack("<Q", len(text) if length is None else length) + text.encode()
    return lambda folder: (folder / "model.safetensors").write_bytes(packed)


def pipe(name: str) -> Edit:
    return lambda folder: os.mkfifo(folder / name)


HUGE = json.dumps({"x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}})
CONFIG, BEFORE, AFTER, VLM = "config.json", "policy_preprocessor.json", "policy_postprocessor.json", "vlm/config.json"
TOKENIZER = "vlm/tokenizer_config.json"
POPEN = {"class": "subprocess.Popen", "config": {"args": ["touch", "it-ran"]}}

REFUSED: dict[str, tuple[Edit, str]] = {
    # steps
    "a class of another module": (extra(**POPEN), "policy_preprocessor.json, step 6: the class 'subprocess.Popen'"),
    "a class of the postprocessor": (edit(AFTER, lambda c: c["steps"].append(POPEN)), "policy_postprocessor.json, st"),
    "a class beside a name": (extra(registry_name="to_batch_processor", **POPEN), "both or neither of class and reg"),
    "a step that names nothing": (extra(config={}), "both or neither of class and registry_name; expected one"),
    "another step of LeRobot's": (
        extra(registry_name="action_tokenizer_processor", config={"trust_remote_code": True}),
        "step 6: the step 'action_tokenizer_processor'; expected one of the steps that a SmolVLA has: rename_obs",
    ),
    "a class of LeRobot's that is no step": (extra(**{"class": "lerobot.utils.utils.say"}), "the class 'lerobot.utils"),
    "trust in a tokenizer's code": (step(3, trust_remote_code=True), r"step 3 \(tokenizer_processor\): 'trust_remote"),
    "an object as tokenizer": (step(3, tokenizer={"class": "x"}), "'tokenizer' is not known; expected only max_length"),
    "another task's key": (step(3, task_key="password"), "'task_key' is 'password'; expected 'task'"),
    "a device that is none": (step(4, device="cuda; touch x"), r"step 4 \(device_processor\): 'device' is 'cuda; tou"),
    "statistics among arguments": (step(5, stats={"action": {}}), "'stats' is not known"),
    "a step with a state that has none": (
        edit(BEFORE, lambda c: c["steps"][1].update(state_file=STATS)),
        "step 1: a state file of to_batch_processor",
    ),
    "a step that is no mapping": (edit(BEFORE, lambda c: c["steps"].append("x")), "step 6: 'the whole' is 'x'; expec"),
    "no step for words": (edit(BEFORE, lambda c: c["steps"].pop(3)), "no step tokenizer_processor; expected the step"),
    "ten thousand steps": (edit(BEFORE, lambda c: c.update(steps=c["steps"][:2] * 5000)), "'steps' is .*at most 32"),
    # paths
    "a tokenizer at a path": (step(3, tokenizer_name="/etc/tokenizer"), "'tokenizer_name' is '/etc/tokenizer'; expec"),
    "a tokenizer above": (step(3, tokenizer_name="../other"), "'tokenizer_name' is '../other'; expected 'vlm'"),
    "a language model at a path": (put(CONFIG, vlm_model_name="/srv/vlm"), "'vlm_model_name' is '/srv/vlm'; expected"),
    "a language model of anybody": (put(CONFIG, vlm_model_name="mallory/vlm"), "'vlm_model_name' is 'mallory/vlm'"),
    "a state file above": (state_file("../other.safetensors"), r"'state_file' is '\.\./other.safetensors'; expected"),
    "a state file at a path": (state_file("/etc/x.safetensors"), "'state_file' is '/etc/x.safetensors'"),
    "a state file that is missing": (state_file("other.safetensors"), "other.safetensors: missing, or a link to noth"),
    "a link out of it": (link("config.json", "/etc/passwd"), "config.json: a link to /etc/passwd, outside the checkp"),
    "a link out of its vlm": (link("vlm/README.md", "/etc/passwd"), "vlm/README.md: a link to /etc/passwd, outside"),
    "a link that nobody reads": (link("notes.txt", "../../.."), "notes.txt: a link to a folder"),
    "a link to a device": (link("vlm/vocab.json", "/dev/zero"), "vlm/vocab.json: a link to /dev/zero, outside"),
    "a link to itself": (link("notes.txt", "notes.txt"), "notes.txt: missing, or a link to nothing"),
    "a pipe": (pipe("notes.txt"), "notes.txt: no regular file"),
    # code of the language model
    "code for its settings": (put(VLM, auto_map={"AutoConfig": "code.Config"}), "vlm/config.json: 'auto_map' is not k"),
    "code for its tokenizer": (put(TOKENIZER, auto_map={"AutoTokenizer": ["x.T", None]}), "'auto_map' is not known"),
    "code for its processor": (put("vlm/processor_config.json", auto_map={"AutoProcessor": "x.P"}), "'auto_map' is n"),
    "a file of code": (write("vlm/code.py", "open('it-ran', 'w')"), "vlm/code.py: not known; expected config.json, t"),
    "pickled weights of it": (write("vlm/pytorch_model.bin", ""), "vlm/pytorch_model.bin: not known"),
    "adapters of it": (write("vlm/adapter_config.json", "{}"), "vlm/adapter_config.json: not known"),
    "a kernel of the Hub": (put(VLM, _attn_implementation="mallory/attention"), "'_attn_implementation' is not known"),
    "quantisation": (put(VLM, quantization_config={"quant_method": "x"}), "'quantization_config' is not known"),
    "another kind of model": (put(VLM, model_type="mallory"), "'model_type' is 'mallory'; expected 'smolvlm'"),
    "another kind of text model": (nested(VLM, "text_config", model_type="t5"), "'text_config.model_type' is 't5'"),
    "another tokenizer's class": (put(TOKENIZER, tokenizer_class="Mallory"), "'tokenizer_class' is 'Mallory'"),
    "a tokenizer's file elsewhere": (put(TOKENIZER, vocab_file="/etc/passwd"), "'vocab_file' is not known"),
    "another processor": (put("vlm/processor_config.json", processor_class="Mallory"), "'processor_class' is 'Mallory"),
    "sound, from elsewhere": (put("vlm/processor_config.json", audio_tokenizer={}), "'audio_tokenizer' is not known"),
    "a pattern that never ends": (
        nested("vlm/tokenizer.json", "pre_tokenizer", pattern={"Regex": "(a+)+$"}),
        "vlm/tokenizer.json, pre_tokenizer: a regular expression",
    ),
    "another kind of tokenizer": (nested("vlm/tokenizer.json", "model", type="Unigram"), "'model.type' is 'Unigram'"),
    "words on which the tokenizer panics": (
        nested("vlm/tokenizer.json", "model", continuing_subword_prefix="##"),
        "vlm/tokenizer.json: 'model.continuing_subword_prefix' is '##'",
    ),
    "weights without a file": (put(CONFIG, load_vlm_weights=True), "load_vlm_weights without weights in vlm/"),
    "no such folder": (lambda folder: shutil.rmtree(folder / "vlm"), "a model in vlm/, which is not there"),
    # settings
    "another policy": (put(CONFIG, type="act"), "'type' is 'act'; expected 'smolvla'"),
    "a plug-in's policy": (put(CONFIG, type="mallory"), "'type' is 'mallory'; expected 'smolvla'"),
    "a setting that nobody knows": (put(CONFIG, hook="os.system"), "'hook' is not known; expected only adapt_to_pi"),
    "adapters": (put(CONFIG, use_peft=True), "'use_peft' is True; expected False"),
    "adapters' settings": (write("adapter_config.json", "{}"), "adapter_config.json: adapters beside a policy"),
    "10**9 layers": (put(CONFIG, num_vlm_layers=10**9), "'num_vlm_layers' is 1000000000; expected less than or equal"),
    "a chunk of 10**9": (put(CONFIG, chunk_size=10**9), "'chunk_size' is 1000000000; expected less than or equal to"),
    "a number of 400 digits": (put(CONFIG, num_steps=10**400), "'num_steps' is a number of 1329 bits"),
    "not a number": (write(CONFIG, '{"type": NaN}'), r"config.json: not valid JSON \(NaN is no number of JSON\)"),
    "an endless number": (put(CONFIG, max_period=float("inf")), r"config.json: not valid JSON \(Infinity is no number"),
    "a number beyond floats": (write(CONFIG, FILES[CONFIG].replace("4.0", "1e999")), "'max_period' is inf"),
    "a key twice": (write(CONFIG, '{"type": "act", "type": "smolvla"}'), r"\(the key .type. is there twice\)"),
    "endless nesting": (write(CONFIG, "[" * 100_000), "config.json: not valid JSON"),
    "two megabytes": (write(CONFIG, " " * 2_000_000), "config.json: more than 1048576 bytes; expected at most 1048576"),
    "bytes that are no text": (lambda folder: (folder / CONFIG).write_bytes(b"\xff\xfe{}"), "config.json: not valid"),
    "a list": (write(CONFIG, "[]"), r"config.json: 'the whole' is \[\]"),
    "half a character": (write(CONFIG, '{"\\ud800": 1}'), r"config.json: '"),
    "words for a terminal": (put(CONFIG, type="a\n\x1b[31mall is well"), r"'type' is 'a\\n\\x1b\[31mall is well'"),
    "no camera": (edit(CONFIG, lambda c: c["input_features"].pop("observation.images.top") and c["input_features"].pop(
        "observation.images.wrist")), "at least one camera of shape"),
    "no state": (edit(CONFIG, lambda c: c["input_features"].pop("observation.state")), "observation.state of type ST"),
    "an older format": (lambda folder: (folder / BEFORE).unlink(), "missing, as in checkpoints before LeRobot 0.4"),
    # weights and statistics
    "a header of 2**60 bytes": (header("{}", 2**60), "model.safetensors: a header of 1152921504606846976 bytes"),
    "tensors of terabytes": (header(HUGE), "model.safetensors: no safetensors file"),
    "no weights at all": (header("{}"), "model.safetensors: 0 layers of the language model; expected 4"),
    "something pickled": (lambda f: torch.save({}, f / "model.safetensors"), "model.safetensors: a header of"),
    "fewer layers than settings say": (put(CONFIG, num_vlm_layers=2), "4 layers of the language model; expected 2 by"),
    "a wider expert": (put(CONFIG, expert_width_multiplier=4.0), r"action_in_proj.weight: of shape \[96, 6\]; expec"),
    "a wider state": (put(CONFIG, max_state_dim=1000), r"model.state_proj.weight: of shape \[128, 6\]; expected shap"),
    "a wider language model": (nested(VLM, "text_config", intermediate_size=65_536), "text_model.layers.0.mlp.gate_pr"),
    "more words": (nested(VLM, "text_config", vocab_size=1_000_000), r"embed_tokens.weight: of shape \[349, 128\]"),
    "larger pictures": (nested(VLM, "vision_config", image_size=4092), "position_embedding.weight: of shape"),
    "layers that are cut away": (nested(VLM, "text_config", num_hidden_layers=128), "128 layers for the 4 that are"),
    "statistics that are no numbers": (
        tensors(STATS, lambda t: t["action.mean"].__setitem__(0, np.nan)),
        f"{STATS}, 'action.mean': numbers that are not finite",
    ),
    "a negative deviation": (tensors(STATS, lambda t: t["action.std"].__setitem__(0, -1)), "a negative deviation"),
    "statistics of three joints": (
        tensors(STATS, lambda t: t.update({"action.mean": np.zeros(3, np.float32)})),
        r"shape \[3\]; expected that of the feature, \[6\]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_in_one_line(
    kind: str, folder: Path, marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the commands above would leave their file
    spoil, said = REFUSED[kind]
    spoil(folder)

    with pytest.raises(CheckpointError, match=said) as refusal:
        load_checkpoint(folder)

    text = str(refusal.value)
    assert text.startswith(f"{folder} is refused: ") and "; expected " in text
    assert text.isprintable() and len(text) < 1500


def test_pickled_weights_are_not_looked_at(folder: Path, marker: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")

    with pytest.raises(
        FileNotFoundError, match=r"not found in it \(pytorch_model.bin is not read: unpickling runs cod"
    ):
        load_checkpoint(folder)


def test_weights_that_are_no_numbers_are_named(folder: Path) -> None:
    name = "model.action_out_proj.bias"
    tensors("model.safetensors", lambda t: t[name].__setitem__(2, np.inf))(folder)

    with pytest.raises(CheckpointError, match=rf"model.safetensors, {name}: numbers that are not finite"):
        load_checkpoint(folder)


def test_what_no_check_foresees_is_told_as_well(folder: Path) -> None:
    edit(TOKENIZER, lambda content: content.pop("fake_image_token"))(folder)

    with pytest.raises(CheckpointError, match=r"LeRobot makes no policy of it \(AttributeError: .*fake_image_token"):
        load_checkpoint(folder)


def test_a_chat_template_is_never_rendered(folder: Path, marker: Path) -> None:
    """It is text to everything here, and travels with the checkpoint as it is."""
    template = "{{ cycler.__init__.__globals__.os.system('touch it-ran') }}{{ 1 / 0 }}"
    put(TOKENIZER, chat_template=template)(folder)
    (folder / "vlm" / "chat_template.jinja").write_text(template)

    loaded = load_checkpoint(folder)

    batch = {"task": ["push"], "observation.state": torch.zeros(1, 6), "action": torch.zeros(1, 8, 6)}
    assert loaded.preprocess(batch)["observation.language.tokens"].shape[0] == 1


class TestEveryWayIn:
    """A step that starts a process, by the ways in which a checkpoint comes."""

    @pytest.fixture(autouse=True)
    def spoilt(self, folder: Path, marker: Path) -> None:
        extra(**{"class": "subprocess.Popen", "config": {"args": ["touch", str(marker)]}})(folder)

    def test_as_base_of_a_project(self, folder: Path) -> None:
        params = parse_params({"policy": {"base": folder.name}, "data": {"sites": {"a": "sim:push-red-cube-left"}}})

        with pytest.raises(ValueError, match=r"policy.base: .*step 6: the class 'subprocess.Popen'"):
            resolve_sources(params, folder.parent)
        with pytest.raises(CheckpointError, match="step 6"):
            load_start(folder.parent, folder.name, "cpu")

    @pytest.mark.parametrize("own", [True, False])
    def test_as_base_that_a_federation_or_the_site_names(self, folder: Path, own: bool) -> None:
        task = SiteTask.model_construct(base=str(folder), base_digest="0" * 64, seed=1)
        bases = Bases(folder.parent, str(folder) if own else "random:nano")

        with pytest.raises(BaseMissing, match=r"is refused: policy_preprocessor.json, step 6"):
            bases.find(task)

    def test_by_lerobots_own_commands(self, folder: Path) -> None:
        with pytest.raises(CheckpointError, match="step 6"):
            PreTrainedConfig.from_pretrained(folder)
        with pytest.raises(CheckpointError, match="step 6, is refused: the class 'subproc"):
            PolicyProcessorPipeline.from_pretrained(folder, config_filename="policy_preprocessor.json")

    def test_by_lerobots_own_commands_of_another_policy(self, folder: Path) -> None:
        ACTConfig(device="cpu")._save_pretrained(folder)

        assert PreTrainedConfig.from_pretrained(folder).type == "act"
        with pytest.raises(CheckpointError, match="expected one of LeRobot's, or the registered name of a step whose"):
            PolicyProcessorPipeline.from_pretrained(folder, config_filename="policy_preprocessor.json")

    def test_with_trust_in_a_folders_code(self, folder: Path) -> None:
        content = {"steps": [{"registry_name": "action_tokenizer_processor", "config": {"trust_remote_code": True}}]}
        (folder / "policy_preprocessor.json").write_text(json.dumps({"name": "x", **content}))

        with pytest.raises(CheckpointError, match="trust_remote_code, which runs a file of a repository"):
            PolicyProcessorPipeline.from_pretrained(folder, config_filename="policy_preprocessor.json")


def test_what_zk0_exports_is_sound(loaded: LoadedPolicy, tmp_path: Path) -> None:
    save_checkpoint(loaded, tmp_path / "exported")

    found = read_checkpoint(tmp_path / "exported")

    assert found.vlm == tmp_path / "exported" / "vlm"
    assert found.preprocessor.state["policy_preprocessor_step_5_normalizer_processor"]["action.mean"].shape == (6,)


def test_the_embedded_base_is_sound() -> None:
    assert read_checkpoint(BASE).settings.chunk_size == 8


def test_steps_by_their_class_are_lerobots_as_well(folder: Path) -> None:
    def by_class(content: dict[str, Any]) -> None:
        for one in content["steps"]:
            one["class"] = _STEPS[one.pop("registry_name")][0]

    edit(BEFORE, by_class)(folder)
    edit(AFTER, by_class)(folder)

    assert [type(one).__name__ for one in load_checkpoint(folder).preprocess.steps][2] == "NewLineTaskProcessorStep"


def test_steps_and_settings_are_those_of_this_lerobot() -> None:
    """An upgrade that adds a setting, or moves a class, shows here."""
    for name, (place, _) in _STEPS.items():
        step_class = ProcessorStepRegistry.get(name)
        assert place == f"{step_class.__module__}.{step_class.__name__}"
    assert set(Settings.model_fields) == {field.name for field in fields(SmolVLAConfig)} | {"type"}
    assert {VLM_FOLDER, SmolVLAConfig.vlm_model_name} < set(get_args(Vlm))


def test_what_the_hub_has_as_smolvla_base_is_sound(tmp_path: Path) -> None:
    """Its processors, with statistics under names that no feature has; settings of the size that it has."""
    published = smolvla_base(tmp_path)["models/lerobot/smolvla_base"]
    sizes = {"chunk_size": 50, "n_action_steps": 50, "max_state_dim": 32, "max_action_dim": 32, "num_vlm_layers": 16}
    older = {"prefix_length": 0, "num_expert_layers": 0, "pad_language_to": "max_length", "load_vlm_weights": True}
    images = {f"observation.images.camera{n}": {"type": "VISUAL", "shape": [3, 256, 256]} for n in (1, 2, 3)}
    put(CONFIG, device="cuda", tokenizer_max_length=48, resize_imgs_with_padding=[512, 512])(published)
    put(CONFIG, **sizes, **older)(published)
    nested(CONFIG, "input_features", **images)(published)
    added_later = ("repo_id", "private", "tags", "license", "pretrained_path", "pretrained_revision", "rtc_config")
    edit(CONFIG, lambda content: [content.pop(name) for name in added_later])(published)
    statistics = {
        f"so100{kind}.buffer.action.{s}": np.ones(6, np.float32) for kind in ("", "-red") for s in ("mean", "std")
    }
    save_file(statistics, published / STATS)
    (published / "README.md").write_text("A policy")

    found = read_checkpoint(published, weights=False)

    assert found.vlm is None and found.settings.vlm_model_name == FULL_VLM
    assert set(found.preprocessor.state[STATS.removesuffix(".safetensors")]) == set(statistics)


def test_the_published_language_model_may_travel_with_a_checkpoint(folder: Path) -> None:
    """Its settings as they are published, with all that nobody reads any more."""
    published = {
        "architectures": ["SmolVLMForConditionalGeneration"], "model_type": "smolvlm", "torch_dtype": "float32",
        "transformers_version": "4.47.1", "use_reentrant_checkpointing": False, "vocab_size": 49280,
    }  # fmt: skip
    put(VLM, **published)(folder)
    text = {
        "architectures": ["VLlama3ForCausalLM"], "is_llama_config": True, "neftune_noise_alpha": 0.0,
        "pixel_shuffle_factor": 4, "qk_layer_norms": False, "rope_interleaved": False, "rope_theta": 100000,
        "torch_dtype": "bfloat16", "use_resampler": False, "_flash_attn_2_enabled": True, "_name_or_path": "None",
    }  # fmt: skip
    nested(VLM, "text_config", **text)(folder)
    vision = {"max_image_size": {"longest_edge": 512}, "size": {"longest_edge": 2048}, "use_base_siglip": False}
    nested(VLM, "vision_config", **vision, tie_word_embeddings=False)(folder)
    (folder / "vlm" / "preprocessor_config.json").write_text(
        json.dumps({
            "do_convert_rgb": True, "do_image_splitting": True, "image_mean": [0.5, 0.5, 0.5], "resample": 1,
            "image_processor_type": "SmolVLMImageProcessor", "processor_class": "SmolVLMProcessor",
            "max_image_size": {"longest_edge": 512}, "rescale_factor": 0.00392156862745098,
            "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 512}},
        })
    )  # fmt: skip
    extras = {"image_token": "<image>", "end_of_utterance_token": "<end_of_utterance>"}
    put(TOKENIZER, tokenizer_class="GPT2Tokenizer", extra_special_tokens=extras, model_max_length=8192)(folder)
    (folder / "vlm" / "added_tokens.json").write_text(json.dumps({"<image>": 5}))

    assert read_checkpoint(folder).vlm == folder / "vlm"


POOL: list[Any] = [
    "subprocess.Popen", "os.system", "../../x", "/etc/passwd", "vlm", "", "\ud800", "\n\x1b[31m", None, True, False,
    0, -1, 1, 10**9, 10**30, 1.5, -1e300, float("inf"), float("nan"), [], {}, [[[]]], {"a": {"b": 1}},
    {"Regex": "(a+)+$"}, {"trust_remote_code": True}, {"AutoConfig": "x.Y"}, "cuda:7", "meta",
]  # fmt: skip
KEYS = ["auto_map", "trust_remote_code", "class", "_attn_implementation", "vocab_file", "num_labels", "state_file", "x"]


def _spoil(file: str, seed: int) -> str:
    """A file with one or two values set, removed or added, anywhere in it."""
    draw, content = random.Random(seed), json.loads(FILES[file])
    for _ in range(draw.choice((1, 1, 2))):
        place: Any = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw.choice(keys) if keys else None
            if key is None or not isinstance(place[key], (dict, list)) or not place[key] or draw.random() < 0.3:
                break
            place = place[key]
        value, kind = draw.choice(POOL), draw.choice(("set", "remove", "add"))
        if kind == "add" and isinstance(place, dict):
            place[draw.choice(KEYS)] = value
        elif kind == "add" and isinstance(place, list):
            place.append(value)
        elif kind == "remove" and key is not None:
            del place[key]
        elif key is not None:
            place[key] = value
    return json.dumps(content)


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that every example edits and mends."""
    return Path(shutil.copytree(BASE, tmp_path_factory.mktemp("edited") / "checkpoint"))


def _tried(folder: Path, file: str, text: str, read: Callable[[Path], object]) -> bool:
    """Whether an edited file is taken; what is refused is refused in one printable line."""
    (folder / file).write_text(text)
    try:
        read(folder)
    except CheckpointError as error:
        assert str(error).isprintable() and len(str(error)) < 1500
        return False
    finally:
        (folder / file).write_text(FILES[file])
    return True


@settings(derandomize=True, max_examples=300, deadline=None)
@given(file=st.sampled_from(sorted(FILES)), seed=st.integers(0, 2**32))
def test_edits_anywhere_are_read_or_refused(edited: Path, file: str, seed: int) -> None:
    _tried(edited, file, _spoil(file, seed), read_checkpoint)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(file=st.sampled_from(sorted(FILES)), seed=st.integers(0, 2**32))
def test_edits_that_are_read_are_loaded_or_refused(edited: Path, file: str, seed: int) -> None:
    text = _spoil(file, seed)
    if _tried(edited, file, text, read_checkpoint):
        _tried(edited, file, text, load_checkpoint)
