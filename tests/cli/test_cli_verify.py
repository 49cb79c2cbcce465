"""`gemctl verify`: what it asks of the daemon, and how it shows what was found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from gemd.cli.failures import Exit
from gemd.v1 import operation_pb2
from gemd.v1 import store_service_pb2 as service
from tests.support.daemon_says import model, operation

if TYPE_CHECKING:
    from tests.support.fake_daemon import FakeDaemon
    from tests.support.gemctl import Inside

VERIFY = operation_pb2.Operation.KIND_VERIFY
REQUEST = service.VerifyModelRequest


def verified(*, passed: bool = True, variant: str = "q4") -> operation_pb2.Operation:
    """The last snapshot of one."""
    last = operation("SUCCEEDED", kind=VERIFY, variant=variant)
    last.verify.passed = passed
    last.verify.checks.add(check="sizes", passed=True, detail="1 file, 1000 bytes")
    last.verify.checks.add(
        check="kl-divergence", passed=passed, detail="mean 0.8 nats", value=0.8, limit=0.64
    )
    return last


def test_a_table_of_checks_with_their_figures(inside: Inside, daemon: FakeDaemon) -> None:
    """Words and not colours say what passed; hashes and structure are what is checked."""
    daemon.script.verifications = [verified()]
    done = inside("verify", "smollm2-135m", "--variant", "q4")
    assert done.returncode == Exit.OK
    lines = done.stdout.splitlines()
    assert lines[0] == "smollm2-135m:q4"
    assert lines[2].split() == ["sizes", "passed", "1", "file,", "1000", "bytes"]
    assert lines[3].split()[:4] == ["kl-divergence", "passed", "0.8", "0.64"]
    [request] = daemon.asked("VerifyModel")
    assert (request.variant, request.depth) == ("q4", REQUEST.DEPTH_HASHES)


@pytest.mark.parametrize(
    "source, mending",
    [
        ("quantized", "gemctl quantize smollm2-135m --to Q4_1 --variant q4_1 --force"),
        ("hub", "gemctl pull smollm2-135m --variant q4_1 --force"),
    ],
)
def test_a_failed_check_is_the_exit_code(
    inside: Inside, daemon: FakeDaemon, source: str, mending: str
) -> None:
    """And the last lines say that it is not served, what mends it, and how it goes."""
    found = model("smollm2-135m")
    found.variants[0].source = source
    daemon.script.models = {"smollm2-135m": found}
    daemon.script.verifications = [verified(passed=False, variant="q4_1")]
    done = inside("verify", "smollm2-135m", "--variant", "q4_1", "--full")
    assert done.returncode == Exit.FAILURE
    assert "FAILED" in done.stdout
    assert "1 of 1 did not pass; will not be served: smollm2-135m:q4_1" in done.stderr
    assert f"  try: {mending}\n       gemctl rm smollm2-135m --variant q4_1\n" in done.stderr
    assert daemon.asked("VerifyModel")[0].depth == REQUEST.DEPTH_FULL


def test_a_bad_file_of_the_users_is_told_of_and_used(inside: Inside, daemon: FakeDaemon) -> None:
    """Nothing is written down about it, so nothing keeps it from being served; and it is theirs."""
    own = model("local/own")
    own.variants[0].source = "local"
    daemon.script.models = {"local/own": own}
    last = verified(passed=False, variant="")
    last.model = "models/local/own"
    daemon.script.verifications = [last]
    done = inside("verify", "local/own")
    assert done.returncode == Exit.FAILURE
    assert "used all the same" in done.stderr
    assert "not be served" not in done.stderr
    assert "gemctl rm" not in done.stderr


def test_every_variant_on_disk_is_one_verification(inside: Inside, daemon: FakeDaemon) -> None:
    """Of all models, those included that an earlier verification rejected."""
    found = model("smollm2-135m")
    found.variants[0].on_disk = True
    first = found.variants[0].id
    found.variants.add(id="q8", quantization="Q8_0", rejection="sha256: other")
    found.variants.add(id="bf16", quantization="BF16")
    absent = model("big", state="ABSENT")
    absent.variants[0].on_disk = False
    daemon.script.models = {"smollm2-135m": found, "big": absent}
    daemon.script.verifications = [verified(variant=first), verified(passed=False, variant="q8")]
    done = inside("verify", "--json")
    assert done.returncode == Exit.FAILURE
    assert [each.variant for each in daemon.asked("VerifyModel")] == [first, "q8"]
    shown = json.loads(done.stdout)["verifications"]
    assert [each["verify"].get("passed", False) for each in shown] == [True, False]


def test_one_that_cannot_be_looked_at_keeps_nobody_from_the_others(
    inside: Inside, daemon: FakeDaemon
) -> None:
    """Of all models; it is named, and the exit code is its own."""
    found = model("smollm2-135m")
    found.variants[0].on_disk = True
    first = found.variants[0].id
    found.variants.add(id="q8", quantization="Q8_0", on_disk=True)
    daemon.script.models = {"smollm2-135m": found}
    failed = operation("FAILED", kind=VERIFY, variant=first)
    failed.error.reason, failed.error.message = "OPERATION_CONFLICT", "it is being pulled"
    daemon.script.verifications = [failed, verified(variant="q8")]
    done = inside("verify")
    assert done.returncode == Exit.FAILURE
    assert f"smollm2-135m:{first} is left out: it is being pulled" in done.stderr
    assert done.stdout.splitlines()[0] == "smollm2-135m:q8"


def test_nothing_on_disk_is_no_failure(inside: Inside, daemon: FakeDaemon) -> None:
    """There is nothing wrong then."""
    daemon.script.models = {}
    done = inside("verify")
    assert (done.returncode, done.stdout) == (Exit.OK, "")
    assert "no model is on disk" in done.stderr


def test_a_variant_needs_its_model(inside: Inside, daemon: FakeDaemon) -> None:
    """A usage error, and no call."""
    assert inside("verify", "--variant", "q4").returncode == Exit.USAGE
    assert daemon.requests == []
