"""A low-rank delta in PEFT's files, merged without PEFT, against PEFT itself."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from m3_retrievers import HeadSpec, HybridRetriever, M3Encoder
from m3_retrievers.encoder import mini
from m3_retrievers.encoder.checkpoint import load
from m3_retrievers.encoder.source import locate
from m3_retrievers.errors import CheckpointError, IndexModelError

TEXTS = ["rivers run to the sea", "one", ""]
NONE = HeadSpec(sparse=False, colbert="identity")

pytestmark = pytest.mark.slow  # PEFT takes seconds to import


def write_adapter(backbone: Path, folder: Path, *, seed: int = 0, **options) -> Path:
    torch.manual_seed(seed)
    model = AutoModel.from_pretrained(backbone)
    config = LoraConfig(r=4, lora_alpha=12, target_modules=["query", "dense"], **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        wrapped = get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:  # PEFT starts B at 0, where the delta would be nothing
            torch.nn.init.normal_(parameter, std=0.05)
    wrapped.peft_config["default"].base_model_name_or_path = str(backbone)
    wrapped.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["tiny_m3", "tiny_bert"])
def backbone(request, tiny_m3, tiny_bert) -> Path:
    return tiny_m3 if request.param == "tiny_m3" else tiny_bert


@pytest.fixture
def adapter(backbone, tmp_path) -> Path:
    return write_adapter(backbone, tmp_path / "adapter")


@pytest.mark.parametrize("rslora", [False, True])
def test_the_merged_backbone_is_the_one_peft_merges(backbone, tmp_path, rslora):
    folder = write_adapter(backbone, tmp_path / "adapter", use_rslora=rslora)
    ours = load(locate(folder, heads=NONE), device=torch.device("cpu"), dtype=torch.float32)
    plain = AutoModel.from_pretrained(backbone)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        theirs = PeftModel.from_pretrained(AutoModel.from_pretrained(backbone), folder)
    merged = theirs.merge_and_unload().state_dict()
    moved = 0
    for name, weight in ours.backbone.state_dict().items():
        torch.testing.assert_close(weight, merged[name], rtol=0, atol=1e-6)
        moved += not torch.equal(weight, plain.state_dict()[name])
    assert moved > 2


def test_a_delta_in_half_precision_is_added_in_float32(tiny_m3, tmp_path):
    folder = write_adapter(tiny_m3, tmp_path / "adapter")
    path = folder / "adapter_model.safetensors"
    save_file({key: value.half() for key, value in load_file(path).items()}, path)
    whole = M3Encoder.from_pretrained(folder, heads=NONE, device="cpu")
    low = M3Encoder.from_pretrained(folder, heads=NONE, device="cpu", precision="bf16")
    exact, rounded = (one.encode_queries(TEXTS).dense for one in (whole, low))
    assert 0 < np.abs(exact - rounded).max() < 0.05


def test_the_heads_and_settings_are_those_beside_the_delta(tiny_m3, adapter):
    state = {"weight": torch.ones(5, 32), "bias": torch.zeros(5)}
    save_file(state, adapter / "colbert_linear.safetensors")
    config = {"pooling": "mean", "heads": {"sparse": False}, "max_length": 9}
    (adapter / "m3_retrievers.json").write_text(json.dumps(config))
    encoder = M3Encoder.from_pretrained(adapter, device="cpu")
    assert encoder.outputs == ("dense", "colbert")
    assert encoder.checkpoint.max_length == 9
    assert encoder.encode_query("one").colbert.dimension == 5


def test_another_delta_is_another_model(tiny_m3, tmp_path):
    one = M3Encoder.from_pretrained(write_adapter(tiny_m3, tmp_path / "a"), heads=NONE)
    other = M3Encoder.from_pretrained(write_adapter(tiny_m3, tmp_path / "b", seed=1), heads=NONE)
    assert one.fingerprint != other.fingerprint
    retriever = HybridRetriever(one, legs=("dense",))
    retriever.add(["a text"])
    retriever.save(tmp_path / "index")
    HybridRetriever.load(tmp_path / "index", one)
    with pytest.raises(IndexModelError):
        HybridRetriever.load(tmp_path / "index", other)


def change_config(folder: Path, **changes) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type='IA3'"),
        ({"use_dora": True}, "use_dora=True"),
        ({"bias": "all"}, "bias='all'"),
        ({"modules_to_save": ["pooler"]}, "modules_to_save"),
        ({"rank_pattern": {"query": 2}}, "rank_pattern"),
        ({"lora_bias": True}, "lora_bias=True"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out=True"),
        ({"alpha_pattern": {"query": 2}}, "alpha_pattern"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa', expected"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"an_option_of_a_later_version": {"a": 1}}, "an_option_of_a_later_version"),
        ({"r": None}, "expected to be a LoRA configuration"),
        ({"r": 0}, "expected to be a LoRA configuration"),
    ],
)
def test_what_cannot_be_merged_is_refused(adapter, changes, message):
    change_config(adapter, **changes)
    with pytest.raises(CheckpointError, match=message):
        locate(adapter, heads=NONE)


def change_weights(folder: Path, change) -> None:
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)


def rename(state, old, new):
    key = next(key for key in state if old in key)
    state[key.replace(old, new)] = state.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(next(iter(s))), "got one of them for"),
        (lambda s: s.update({"base_model.model.x.weight": torch.ones(1)}), "expected base_model"),
        (lambda s: [rename(s, "layer.0.output.dense", "layer.9.output.dense") for _ in range(2)],
         "no linear layer of that name"),
        (lambda s: [s.update({k: v[:, :-1].clone()}) for k, v in s.items() if "lora_A" in k],
         r"expects A and B of .* to have shapes \(\[4, 32\], \[32, 4\]\), got \(\[4, 31\]"),
        (lambda s: [s.update({k: v[:-1].clone()}) for k, v in s.items() if "lora_A" in k],
         r"got \(\[3, 32\]"),
        (lambda s: [s.update({k: v.flatten()}) for k, v in s.items() if "lora_B" in k],
         r"\[128\]\)"),
        (lambda s: [s.update({k: v * torch.nan}) for k, v in s.items() if "lora_A" in k],
         "expects finite numbers"),
    ],
)  # fmt: skip
def test_a_delta_that_does_not_fit_is_refused(adapter, change, message):
    change_weights(adapter, change)
    source = locate(adapter, heads=NONE)
    with pytest.raises(CheckpointError, match=message):
        load(source, device=torch.device("cpu"), dtype=torch.float32)


def test_a_rank_that_is_not_the_tensors_own_is_refused(adapter):
    change_config(adapter, r=8)  # would halve the delta, in silence
    with pytest.raises(CheckpointError, match=r"to have shapes \(\[8, 32\], \[32, 8\]\), got"):
        load(locate(adapter, heads=NONE), device=torch.device("cpu"), dtype=torch.float32)


def test_a_torn_delta_names_its_file(adapter):
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors cannot be read"):
        M3Encoder.from_pretrained(adapter, heads=NONE).encode_query("one")


def test_a_delta_on_a_delta_is_refused(adapter, tmp_path):
    second = tmp_path / "second"
    second.mkdir()
    for file in adapter.iterdir():
        (second / file.name).write_bytes(file.read_bytes())
    change_config(second, base_model_name_or_path=str(adapter))
    with pytest.raises(CheckpointError, match="only one can be added"):
        locate(second, heads=NONE)
    change_config(second, base_model_name_or_path=str(second))
    with pytest.raises(CheckpointError, match="only one can be added"):
        locate(second, heads=NONE)


def test_m3_mini_is_its_backbone_with_a_delta():
    trained, plain = locate("m3-mini"), locate("m3-mini/backbone")
    assert trained.folder == plain.folder
    assert trained.adapter is not None
    assert plain.adapter is None
    assert (plain.heads.sparse, plain.heads.colbert) == (False, "identity")
    assert sum(path.stat().st_size for path in trained.heads_folder.iterdir()) < 6_000_000


def test_m3_mini_refuses_files_that_were_not_published(monkeypatch, tmp_path):
    for file in locate("m3-mini").heads_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    moved = tuple(replace(one, ours=tmp_path) for one in mini._ALL)
    monkeypatch.setattr(mini, "_ALL", moved)
    locate("m3-mini")
    head = tmp_path / "sparse_linear.safetensors"
    head.write_bytes(head.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"sparse_linear\.safetensors has SHA-256"):
        locate("m3-mini")
    head.unlink()
    with pytest.raises(CheckpointError, match="no file"):
        locate("m3-mini")
