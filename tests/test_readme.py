"""The README's examples, run, with the output it shows; its commands, its configuration."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import readme

SECTIONS = readme.sections()
EXAMPLES = {title: readme.examples(text) for title, text in SECTIONS.items() if "```py" in text}
# that of PostgreSQL needs a server: tests/index/pgvector/test_recipe.py
ALONE = {title: found for title, found in EXAMPLES.items() if title != "In PostgreSQL"}


def test_the_readme_has_its_examples():
    counts = {title: len(found) for title, found in EXAMPLES.items()}
    assert counts == {
        "": 1,
        "The models": 1,
        "In a LangChain chain": 5,
        "In a LlamaIndex query engine": 1,
        "How a search goes": 1,
        "In PostgreSQL": 1,
        "The whole hybrid inside Qdrant": 1,
        "What runs where, and what it weighs": 1,
        "One file, every change on disk": 1,
    }


# sections know nothing of one another; each works in a folder of its own
RUN = """
import contextlib, io, json, os, sys
printed = {}
for number, (title, examples) in enumerate(json.load(sys.stdin).items()):
    names = {"__name__": "__main__"}
    printed[title] = []
    os.mkdir(str(number))
    with contextlib.chdir(str(number)):
        for code in examples:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(code, f"README, {title!r}", "exec"), names)
            printed[title].append(out.getvalue())
json.dump(printed, sys.stdout)
"""


@pytest.mark.slow
def test_the_examples_print_what_the_readme_shows(tmp_path):
    """Later examples of a section go on from its first, as the text says.

    One process runs all of them: most of the time goes into loading torch.
    """
    codes = {title: [example.code for example in found] for title, found in ALONE.items()}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN],
        input=json.dumps(codes),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    shown = {title: [example.shown for example in found] for title, found in ALONE.items()}
    assert json.loads(done.stdout) == shown


def test_the_commands_of_the_readme_exist():
    makefile = (readme.PATH.parent / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", readme.PATH.read_text("utf-8"), re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_the_links_of_the_readme_lead_somewhere():
    text = readme.PATH.read_text("utf-8")
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("https://"):
            assert (readme.PATH.parent / target.split("#")[0]).exists(), target


def test_the_training_configs_of_the_readme_are_some(tmp_path):
    from m3_retrievers.training import SpladeSettings, read_settings

    configs = readme.blocks(readme.PATH.read_text("utf-8"), "toml")
    for name, config in zip(("m3", "splade"), configs, strict=True):
        (tmp_path / f"{name}.toml").write_text(config)
    settings = read_settings(tmp_path / "m3.toml")
    assert settings.self_distill_from == 200
    assert settings.lora.rank == 16
    splade = read_settings(tmp_path / "splade.toml")
    assert splade.objective == "splade"
    assert splade.splade == SpladeSettings()  # what is not named is as shown


def test_the_recipes_of_the_benchmarks_are_configs():
    from m3_retrievers.training import read_settings

    folder = Path(__file__).parent.parent / "benchmarks" / "m3_mini"
    if not folder.is_dir():
        pytest.skip("a source distribution without the benchmarks")
    assert read_settings(folder / "main.toml").loss.prior_share == 2.0
    assert read_settings(folder / "second.toml").loss.prior_share == 3.0
    assert read_settings(folder / "first_main.toml").self_distill_from == 300
    for path in folder.parent.glob("m3_mini*/**/*.toml"):
        assert read_settings(path).lora is not None, path
