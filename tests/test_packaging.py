"""pyproject.toml, the lowest versions and the hosted CI say the same."""

import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import readme
from m3_retrievers import llama_index

ROOT = readme.PATH.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
METADATA = PROJECT["project"]
# a framework's binding that needs an older client of Milvus than the other's, which the tests have
APART = {"llama-index-vector-stores-milvus", "pymilvus"}


def pins(path):
    lines = (ROOT / path).read_text("utf-8").splitlines()
    named = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in named}


def floors():
    """Return the lowest version of each requirement, whichever extra names it."""
    groups = [METADATA["dependencies"], *METADATA["optional-dependencies"].values()]
    found = {}
    for requirement in map(Requirement, (text for group in groups for text in group)):
        if requirement.name != METADATA["name"]:
            [floor] = [s.version for s in requirement.specifier if s.operator == ">="]
            found[canonicalize_name(requirement.name)] = Version(floor)
    return found


def test_the_lowest_versions_are_those_that_are_tested():
    lowest = pins(".ci/constraints-lowest.txt")
    asked = {name: floor for name, floor in floors().items() if name not in APART}
    assert {name: lowest.get(name) for name in asked} == asked


def test_the_versions_of_a_run_satisfy_what_is_asked():
    newest = pins("constraints.txt")
    assert [name for name, floor in floors().items() if newest.get(name, floor) < floor] == []


def test_the_frameworks_end_at_their_next_major():
    texts = [text for extra in METADATA["optional-dependencies"].values() for text in extra]
    assert "langchain-core>=1.4.9,<2" in texts
    assert "llama-index-core>=0.14.23,<0.15" in texts


def test_the_hosted_ci_runs_every_python_that_is_promised():
    named = {line.split(" :: ")[-1] for line in METADATA["classifiers"] if "Python :: 3." in line}
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")
    [listed] = re.findall(r"python: \[(.*)\]", workflow)
    assert set(re.findall(r"3\.\d+", listed)) == named
    for path in re.findall(r"constraints: \[?([\w./-]+)", workflow):
        assert (ROOT / path).exists(), path


def test_llama_hub_is_told_every_class():
    listed = PROJECT["tool"]["llamahub"]
    assert listed["import_path"] == llama_index.__name__
    assert sorted(listed["class_authors"]) == sorted(llama_index.__all__)
