"""The words in which records are shown; they belong to `lumina.replay.words`, since proofs speak them, too."""

from lumina.replay.words import BRIEF_CHARACTERS_MAX, finding_line, say, shorten, size, speed

__all__ = ["BRIEF_CHARACTERS_MAX", "finding_line", "say", "shorten", "size", "speed"]
