"""The files in deploy/: what can be told of them without Docker, Helm or a cluster."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import AliasChoices

from imageloom.domain.metrics import QUEUE_OLDEST, QUEUE_PENDING, QUEUE_RUNNING
from imageloom.settings import Limits, Settings

DEPLOY = Path(__file__).parent.parent / "deploy"
CHART = DEPLOY / "helm" / "imageloom"
TEMPLATES = sorted((CHART / "templates").iterdir())
# Of Compose itself, of PostgreSQL's and MinIO's images, of libraries.
FOREIGN = re.compile(r"^(AWS_|POSTGRES_|MINIO_|STORE_|OMP_|HF_|PYTHON|PIP_|PATH$)")


def settings_known() -> set[str]:
    """Return every variable that the server reads."""
    known = set()
    for kind in (Settings, Limits):
        prefix = kind.model_config["env_prefix"]
        for name, field in kind.model_fields.items():
            known.add(f"{prefix}{name}".upper())
            if isinstance(field.validation_alias, AliasChoices):
                known |= {str(each) for each in field.validation_alias.choices}
    return known


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yml").read_text())
    return found


def test_compose_sets_only_variables_that_are_read(compose: dict[str, Any]) -> None:
    known = settings_known()
    for name, service in compose["services"].items():
        for variable in service.get("environment", {}):
            assert variable in known or FOREIGN.match(variable), f"{name}: {variable}"


def test_compose_names_only_what_it_has(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= services.keys()
        assert set(service.get("networks", ())) <= compose["networks"].keys()
        named = [each.partition(":")[0] for each in service.get("volumes", ())]
        for volume in named:
            assert (
                volume in compose["volumes"]
                or (DEPLOY / volume).exists()
                or volume
                == (
                    "./imageloom-key"  # which the operator makes
                )
            )


def test_each_variable_of_compose_is_in_the_example_or_has_a_default() -> None:
    text = (DEPLOY / "compose.yml").read_text()
    example = (DEPLOY / "example.env").read_text()
    told = set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))
    required = set(re.findall(r"(?<!\$)\$\{([A-Z_]+):\?\}", text))
    assert required <= told
    assert set(re.findall(r"(?<!\$)\$\{([A-Z_]+)\}", text)) == set()


def values_of(path: str, values: dict[str, Any]) -> bool:
    """Whether the values have something at a dotted path."""
    found: Any = values
    for part in path.split("."):
        if not isinstance(found, dict) or part not in found:
            return False
        found = found[part]
    return True


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_chart_uses_only_values_that_there_are(template: Path) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    text = template.read_text()
    for path in re.findall(r"\.Values\.([A-Za-z.]+)", text):
        assert values_of(path, values), path
    for path in re.findall(r"\$pool\.([A-Za-z.]+)", text):
        assert values_of(path, values["workers"]["gpu"]), path
    opened = re.findall(r"\{\{-? *(?:if|range|with|define) ", text)
    assert len(opened) == len(re.findall(r"\{\{-? *end *\}\}", text))


def test_chart_sets_only_variables_that_are_read() -> None:
    text = "".join(template.read_text() for template in TEMPLATES)
    used = set(re.findall(r"\b(IMAGELOOM_[A-Z_]+|DATABASE_URL)\b", text))
    assert used <= settings_known()


def test_a_worker_has_time_to_drain_before_it_is_killed(compose: dict[str, Any]) -> None:
    drain = Settings.model_fields["drain_timeout"].default
    pool = yaml.safe_load((CHART / "values.yaml").read_text())["workers"]["gpu"]
    assert pool["terminationGracePeriodSeconds"] >= pool["drainTimeout"] + 20
    for name in ("worker", "worker-cpu"):
        assert float(compose["services"][name]["stop_grace_period"].removesuffix("s")) > drain
    unit = (DEPLOY / "systemd" / "imageloom-worker@.service").read_text()
    found = re.search(r"TimeoutStopSec=(\d+)", unit)
    assert found
    assert float(found[1]) > drain


def test_scaling_asks_for_metrics_that_there_are() -> None:
    asked = set(re.findall(r"imageloom_queue_\w+", (CHART / "templates/workers.yaml").read_text()))
    assert asked == {each.name for each in (QUEUE_OLDEST, QUEUE_PENDING, QUEUE_RUNNING)}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", ["imageloom-api.service", "imageloom-worker@.service"])
def test_systemd_accepts_the_units(unit: str, tmp_path: Path) -> None:
    # An instance, and a program that is here: it looks for both.
    text = (
        (DEPLOY / "systemd" / unit).read_text().replace("/opt/imageloom/bin/imageloom", "/bin/sh")
    )
    file = tmp_path / unit.replace("@.", "@cpu.")
    file.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
