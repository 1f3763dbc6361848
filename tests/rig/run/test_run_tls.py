"""Rigs whose link is encrypted: they are judged like any other, and what is wrong with their certificates ends the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hwvirt.errors import ExitCode
from hwvirt.rig.certificates import generate
from tests.rig.run.kit import FILL, JUDGE, REDIRECT, Ran, rig_of, run, workload

STEPS = (FILL, REDIRECT, workload(300, "at: 30%, link: {flip: 1}", "at: 60%, link: cut, for: 200ms"), JUDGE)


def test_link_with_certificates_of_the_run_is_judged_and_leaves_no_key(tmp_path: Path) -> None:
    ran = run(rig_of(*STEPS, link="stall: 10s, tls: generated"), tmp_path)
    assert ran.code is ExitCode.PASSED
    assert "a damaged TLS record" in ran.log("a") + ran.log("b")
    tls = json.loads((ran.folder / "a.json").read_bytes())["link"]["tls"]
    assert not any(Path(path).exists() for path in tls.values())
    assert not [path for path in ran.folder.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]


def _with_files(tmp_path: Path, *, authority_of_b: str) -> Ran:
    """A run with the files of a desk, beside its rig file; a believes `authority_of_b`."""
    for desk in ("desk", "other"):
        for name, papers in generate("ab").items():
            papers.write(tmp_path / f"{desk}.{name}")
    files = {name: {key: f"desk.{name}/{key}.pem" for key in ("authority", "certificate", "key")} for name in "ab"}
    files["a"]["authority"] = f"{authority_of_b}.b/authority.pem"
    return run(rig_of(*STEPS, link=f"stall: 10s, tls: {{files: {json.dumps(files)}}}"), tmp_path)


def test_link_with_files_of_a_desk_is_judged(tmp_path: Path) -> None:
    assert _with_files(tmp_path, authority_of_b="desk").code is ExitCode.PASSED


def test_certificate_that_is_not_believed_ends_the_run(tmp_path: Path) -> None:
    ran = _with_files(tmp_path, authority_of_b="other")
    assert ran.code is ExitCode.INFRASTRUCTURE
    assert "has a certificate of another authority. Give both controllers certificates of one authority." in ran.log("a")
    assert "does not accept the certificate of this controller: another authority made it." in ran.log("b")


@pytest.mark.parametrize("missing", ["authority", "certificate", "key"])
def test_file_that_is_not_there_ends_the_run_before_anything_starts(missing: str, tmp_path: Path) -> None:
    paths = {key: tmp_path / f"{key}.pem" for key in ("authority", "certificate", "key")}
    for key, path in paths.items():
        if key != missing:
            path.touch()
    words = ", ".join(f"{key}: {path}" for key, path in paths.items())
    ran = run(rig_of(*STEPS, link=f"tls: {{files: {{a: {{{words}}}, b: {{{words}}}}}}}"), tmp_path)
    assert ran.code is ExitCode.USAGE
    (error,) = [event for event in ran.events if event.name == "rig.failed"]
    assert error.fields["reason"] == (
        f"link TLS {paths[missing]}: No such file or directory. Correct `link.ethernet.tls` of the rig."
    )
