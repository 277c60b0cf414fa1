"""A real run whose log is damaged, restored from an exported file, and gone on with."""

from pathlib import Path

from tests.system.command import Lumina, sum_request


def test_a_restored_log_goes_on(lumina: Lumina, zoo: str, tmp_path: Path) -> None:
    """The log's newest block is cut: repair says so, restores it from the file, all is proved, and a new run works."""
    first = lumina("run", "--json", "--model-url", f"{zoo}/adds/v1", sum_request("before_1"))
    assert first.code == 0, first
    file = tmp_path / "log.lumina"
    exported = lumina("export", "--all", "-o", str(file))
    assert exported.code == 0, exported
    block = next((lumina.home / "nats" / "js").rglob("LUMINA_LOG/msgs/*.blk"))
    block.write_bytes(block.read_bytes()[: block.stat().st_size // 2])
    refused = lumina("run", "--json", "--model-url", f"{zoo}/adds/v1", sum_request("between_1"))
    assert refused.code == 5, refused
    assert "lumina repair" in refused.err
    lost = lumina("repair")
    assert lost.code == 5, lost
    assert "lumina repair --from FILE" in lost.out
    restored = lumina("repair", "--from", str(file))
    assert restored.code == 0, restored
    assert "restored and verified" in restored.out
    assert lumina("verify", "--all", "--invariants").code == 0
    second = lumina("run", "--json", "--model-url", f"{zoo}/adds/v1", sum_request("after_1"))
    assert second.code == 0, second
    assert lumina("verify", "--all", "--invariants").code == 0
