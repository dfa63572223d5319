"""The README's examples, run, with the output it shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


def test_the_readme_has_its_examples():
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize(("code", "shown"), EXAMPLES)
def test_an_example_prints_what_the_readme_shows(code, shown):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == shown


def test_the_commands_of_the_readme_exist():
    makefile = (README.parent / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", README.read_text("utf-8"), re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_the_training_config_of_the_readme_is_one(tmp_path):
    from m3_retrievers.training import read_settings

    [config] = re.findall(r"```toml\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    (tmp_path / "run.toml").write_text(config)
    settings = read_settings(tmp_path / "run.toml")
    assert settings.self_distill_from == 200
    assert settings.lora.rank == 16


def test_the_recipes_of_the_benchmarks_are_configs():
    from m3_retrievers.training import read_settings

    folder = README.parent / "benchmarks" / "m3_mini"
    if not folder.is_dir():
        pytest.skip("a source distribution without the benchmarks")
    assert read_settings(folder / "main.toml").self_distill_from == 300
    assert read_settings(folder / "first.toml").steps == 150
