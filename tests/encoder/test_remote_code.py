"""A model folder runs no code, asks nothing, and makes nothing be fetched."""

import ast
import builtins
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import transformers.modeling_utils as modeling

import m3_retrievers
from m3_retrievers import M3Encoder
from m3_retrievers.encoder.pretrained import load_masked_model
from m3_retrievers.errors import CheckpointError

EVIL = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import BertConfig as EvilConfig, BertModel as EvilModel
from transformers import BertTokenizerFast as EvilTokenizer
EvilMasked = EvilModel
"""
AUTO_MAP = {
    "AutoConfig": "evil.EvilConfig",
    "AutoModel": "evil.EvilModel",
    "AutoModelForMaskedLM": "evil.EvilMasked",
    "AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"],
}


@pytest.fixture
def folder(tiny_m3, tmp_path, monkeypatch):
    """A model with code of its own, and somebody at the terminal who says yes to everything."""
    copy = shutil.copytree(tiny_m3, tmp_path / "model")
    (copy / "evil.py").write_text(EVIL.format(marker=str(tmp_path / "ran")))
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("it asked"))
    return copy


def change(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_unknown_model_type_with_code_is_refused_without_a_question(folder):
    change(folder / "config.json", model_type="evil", auto_map=AUTO_MAP)
    for load in (lambda: M3Encoder.from_pretrained(folder).checkpoint, load_masked_model):
        with pytest.raises(CheckpointError, match="Code that comes with a model is never run"):
            load() if load is not load_masked_model else load(folder)
    assert not (folder.parent / "ran").exists()


def test_of_a_known_model_type_the_known_code_is_run(folder, tiny_m3):
    change(folder / "config.json", auto_map=AUTO_MAP)
    change(folder / "tokenizer_config.json", auto_map=AUTO_MAP, tokenizer_class="EvilTokenizer")
    plain = M3Encoder.from_pretrained(tiny_m3, device="cpu").encode_query("page")
    found = M3Encoder.from_pretrained(folder, device="cpu").encode_query("page")
    np.testing.assert_array_equal(found.dense, plain.dense)
    load_masked_model(folder)
    assert not (folder.parent / "ran").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"attn_implementation": "kernels-community/flash-attn2"},
        {"_attn_implementation": "kernels-community/flash-attn2"},
        {"attn_implementation": "somebody/kernel@main:attention"},
        {"attn_implementation": {"": "somebody/kernel"}},
        {"attn_implementation": "flash_attention_2"},
        {"experts_implementation": "deepgemm"},
        {"use_kernels": True, "kernel_config": {"kernel_mapping": {"RMSNorm": "a/b:c"}}},
    ],
    ids=str,
)
def test_no_kernel_is_fetched_whatever_the_configuration_says(
    folder, tiny_m3, monkeypatch, changes
):
    """As where the package kernels is installed, which would ask the hub."""
    monkeypatch.setattr(modeling, "is_kernels_available", lambda *_, **__: True)
    monkeypatch.setattr(
        modeling, "lazy_import_flash_attention", lambda *_, **__: pytest.fail("it fetched")
    )
    change(folder / "config.json", **changes)
    plain = M3Encoder.from_pretrained(tiny_m3, device="cpu").encode_query("page")
    found = M3Encoder.from_pretrained(folder, device="cpu").encode_query("page")
    np.testing.assert_array_equal(found.dense, plain.dense)
    load_masked_model(folder)


def test_every_call_that_reads_a_model_says_that_its_code_is_not_trusted():
    root = Path(m3_retrievers.__file__).parent
    readers = []
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("transformers"):
                autos = [name.name for name in node.names if name.name.startswith("Auto")]
                assert not autos or path.name == "pretrained.py", path
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if path.name == "pretrained.py" and node.func.attr in (
                "from_pretrained",
                "from_config",
            ):
                readers.append(node)
                said = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert said.get("trust_remote_code") == "False", ast.unparse(node)
    assert len(readers) == 4
