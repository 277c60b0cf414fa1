"""Which blobs an exported file names and does not hold. Reckoned from its records, whatever it says about itself.

Without them keepers are still decided again, and invariants checked: neither needs blobs. Workers' outcomes are derived
where all that they need is there.
"""

from lumina.bus.archive import Archive
from lumina.bus.archive_format import stored_from
from lumina.bus.errors import ArchiveBroken, BlobMissing
from lumina.events.base import Event
from lumina.events.record import Recorded
from lumina.models.errors import ConversationLost
from lumina.replay.bundles.bundle import named_by, named_in_turn
from lumina.replay.errors import BlobLeftOut
from lumina.replay.verifying.workers import Needs


async def left_out_of(archive: Archive) -> frozenset[str]:
    """Return the digests of the blobs that visible fields name, and that are not there.

    Of a file that says that it lacks none, nothing is reckoned: whoever needs a blob finds that it is missing.

    Raises:
        ArchiveBroken: The file says that another number was left out.
        BlobMissing: One that is there is not what its digest says.
    """
    manifest = archive.manifest
    if not archive.hides and not manifest.blobs_left_out:
        return frozenset()
    there = frozenset(manifest.blobs)
    missing: set[str] = set()
    turns: set[str] = set()
    async for line in archive.each_line():
        if line.hidden or not (manifest.whole or line.headers.get("ce-subject") in manifest.runs):
            continue
        stored = stored_from(line)
        named = named_by(stored.payload, event_type=line.headers["ce-type"])
        missing |= named.blobs - there
        turns |= named.turns & there
    missing |= await _missing_in_turns(archive, turns=turns, there=there)
    reckoned, said = len(missing), manifest.blobs_left_out
    # What hidden fields name can't be counted.
    if reckoned > said or (reckoned < said and not archive.hides):
        raise ArchiveBroken(f"its records name {reckoned:,} blobs that are not there; it says that {said:,} are not")
    return frozenset(missing)


async def _missing_in_turns(archive: Archive, *, turns: set[str], there: frozenset[str]) -> set[str]:
    """Return what the conversations that end with `turns` name, as far as they are there."""
    missing: set[str] = set()
    seen: set[str] = set()
    for last in sorted(turns):
        turn: str | None = last
        while turn is not None and turn not in seen:
            seen.add(turn)
            if turn not in there:
                missing.add(turn)
                break
            try:
                texts, turn = named_in_turn(await archive.get(turn))
            except ConversationLost as error:
                raise BlobMissing(str(error)) from error
            missing |= texts - there
    return missing


class Present:
    """The blobs of a file, where one that was left out is told from one that was lost.

    Args:
        needs: Where those are that are there.
        left_out: Digests of those that are not.
    """

    def __init__(self, needs: Needs, *, left_out: frozenset[str]) -> None:
        self._needs = needs
        self._left_out = left_out

    async def __call__(self, digest: str, *, named_by: Recorded[Event]) -> bytes:
        """Return the content. Raises BlobLeftOut, or BlobLost."""
        if digest in self._left_out:
            raise BlobLeftOut(f"blob {digest}, which record {named_by.seq} ({named_by.type}) needs, was left out")
        return await self._needs(digest, named_by=named_by)
