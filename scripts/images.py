#!/usr/bin/env python3
"""Checks the files of packaging/ that a container engine or Kubernetes reads, as far as that goes without one.

The Dockerfile: what it copies is there, its stages and make targets too. compose.yaml: the Compose specification (compose-spec), and the
files that it names. cloudnativepg.yaml: the paths and names that it shares with the image. hadolint runs beside this, in lint.sh.
"""

import re
import sys
from pathlib import Path

import yaml
from compose_spec import PyCompose

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "packaging/docker"
wrong = []


def check(good, what):
    if not good:
        wrong.append(what)


def dockerfile():
    """The stages of the Dockerfile."""
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().split()
    stages = set()
    for instruction, rest in re.findall(r"^([A-Z]+) (.*)$", text, re.MULTILINE):
        if instruction == "FROM":
            stages.add(rest.partition(" AS ")[2])
        if instruction == "COPY":
            *sources, _ = [word for word in rest.split() if not word.startswith("--")]
            if stage := re.search(r"--from=(\S+)", rest):
                check(stage[1] in stages, f"Dockerfile: COPY from {stage[1]}, which is no stage above it")
            else:
                for source in sources:
                    check((ROOT / source).exists(), f"Dockerfile: COPY of {source}, which is not there")
                    check(source not in ignored, f"Dockerfile: COPY of {source}, which its dockerignore leaves out")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"\bRUN make ([a-z-]+)", text):
        check(target in targets, f"Dockerfile: make {target} is no target")
    rust = re.search(r"ARG RUST_VERSION=(.*)", text)[1]
    check(f'rust-version = "{rust}"' in (ROOT / "Cargo.toml").read_text(), f"Dockerfile: Rust {rust} is not Cargo.toml's rust-version")
    return stages


def compose(stages):
    path = DOCKER / "compose.yaml"
    try:
        PyCompose.from_yaml(path.read_text()).validate()
    except Exception as error:  # of types of its own
        check(False, f"compose.yaml: {error}")
        return
    services = yaml.safe_load(path.read_text())["services"]
    for name, service in services.items():
        if build := service.get("build"):
            context = DOCKER / build["context"]
            check(context.resolve() == ROOT, f"compose.yaml: {name} is built in {context}")
            check((context / build["dockerfile"]).exists(), f"compose.yaml: {name} is built from a file that is not there")
            check(build.get("target", "server") in stages, f"compose.yaml: {name} is built from a stage that is not there")
        for volume in service.get("volumes", []):
            check((DOCKER / volume.split(":")[0]).exists(), f"compose.yaml: {name} mounts {volume}, which is not there")
        for port in service.get("ports", []):
            check(port.startswith("127.0.0.1:"), f"compose.yaml: {name} is open to the network: {port}")
    # The aliases of README, and the emulator's version that is tested with.
    keys = re.search(r"^KEYS = \{(.*?)\}", (ROOT / "scripts/kms_emulator.py").read_text(), re.MULTILINE | re.DOTALL)[1]
    for alias in re.findall(r'"([a-z]+)":', keys):
        check(f'"alias/{alias}"' in path.read_text(), f"compose.yaml: no alias/{alias}")
    version = re.search(r"^moto_version=(.*)", (ROOT / "scripts/setup.sh").read_text(), re.MULTILINE)[1]
    check(services["kms"]["image"].endswith(f":{version}"), f"compose.yaml: the emulator is not {version}")


def cloudnativepg(stages):
    cluster, database = yaml.safe_load_all((ROOT / "packaging/cloudnativepg.yaml").read_text())
    postgresql = cluster["spec"]["postgresql"]
    # It looks for lib/ and share/extension/ in the image unless told otherwise.
    check("extension" in stages, "Dockerfile: no stage for CloudNativePG")
    text = (DOCKER / "Dockerfile").read_text()
    check(all(f"/image/{path}" in text for path in ("lib/", "share/extension")), "Dockerfile: the extension's image has another layout")
    check([e["name"] for e in postgresql["extensions"]] == ["envelope_pg"], "cloudnativepg.yaml: another extension")
    check([e["name"] for e in database["spec"]["extensions"]] == ["envelope_pg"], "cloudnativepg.yaml: another extension in the database")
    check(database["spec"]["cluster"]["name"] == cluster["metadata"]["name"], "cloudnativepg.yaml: a database of another cluster")
    settings = (ROOT / "docs/reference/settings.md").read_text()
    for setting in postgresql["parameters"]:
        check(f"## {setting}\n" in settings, f"cloudnativepg.yaml: no setting {setting}")


stages = dockerfile()
compose(stages)
cloudnativepg(stages)
for line in wrong:
    print(line)
print(f"images: {int(not wrong)} passed, {int(bool(wrong))} failed")
sys.exit(bool(wrong))
