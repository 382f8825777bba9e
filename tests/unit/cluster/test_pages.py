"""What the pages of docs/ tell people to type: commands of dpscale parse, files and folders are there, names are those of the manifests."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from ray.scripts.scripts import cli

from jobs.arguments import parser
from tests.unit.cluster.manifests import CLUSTER, JOBS, OVERLAYS, ROOT, built, of_kind

PAGES = [ROOT / "docs" / f"{name}.md" for name in ("images", "kubernetes", "mlflow_server", "ray_up", "slurm")]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def typed(page: Path) -> list[str]:
    """Lines of indented blocks, those joined that a backslash continues, comments gone."""
    lines = [line.strip() for line in page.read_text().replace("\\\n", " ").splitlines() if line.startswith("    ")]
    return [re.sub(r"\s+# .*|\s+&$", "", line) for line in lines]


def words_after(line: str, program: str) -> list[str] | None:
    """Arguments of the last `program` on the line."""
    words = shlex.split(line.replace("\\", ""), comments=True) if line.count('"') % 2 == 0 and line.count("'") % 2 == 0 else line.split()
    places = [n for n, word in enumerate(words) if word in (program, f".venv/bin/{program}")]
    return words[places[-1] + 1 :] if places else None


def test_commands_of_dpscale_parse():
    here = [line for page in PAGES for line in typed(page) if line.startswith((".venv/bin/", "docker run"))]
    commands = [arguments for arguments in (words_after(line, "dpscale") for line in here) if arguments and arguments != ["--help"]]
    assert {parser().parse_args(arguments).job for arguments in commands} >= {"personalize"}


@each_page
def test_commands_of_ray_exist(page):
    for line in typed(page):
        arguments = words_after(line, "ray")
        if arguments and not line.startswith("docker"):
            assert arguments[0] in cli.commands, line


@each_page
def test_named_files_are_there(page):
    named = set(re.findall(r"(?<![\w/])(?:cluster|tests|jobs/configs)/[\w./-]*\w/?", page.read_text()))
    assert named
    for name in named - {"cluster/mlflow/.env"}:  # whoever follows the page writes it, and git ignores it
        assert (ROOT / name).exists(), name


@each_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_what_is_applied_can_be_built():
    applied = [words[words.index("-k") + 1] for page in PAGES for line in typed(page) if "-k" in (words := line.split()) and words[0] == "kubectl"]
    assert {"cluster/kuberay/jobs/local-kind", "cluster/kuberay/overlays/local-kind", "cluster/mlflow/kubernetes"} <= set(applied)
    for folder in applied:
        assert built(ROOT / folder)


def test_the_page_describes_every_build():
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    for folder in [*OVERLAYS, *JOBS]:
        assert f"`{folder.relative_to(CLUSTER / 'kuberay')}`" in page


def test_names_on_the_page_are_those_of_the_manifests():
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    (cluster,) = of_kind(built(OVERLAYS[0]), "RayCluster")
    (job,) = of_kind(built(JOBS[0]), "RayJob")
    assert f"get secret {cluster['metadata']['name']} " in page
    assert f"service/{cluster['metadata']['name']}-head-svc" in page
    assert f"job/{job['metadata']['name']}\n" in page
    assert f"`{job['spec']['entrypoint']}`" in page
    assert set(re.findall(r"kubectl -n (\S+)", page)) == {"dpscale"}
