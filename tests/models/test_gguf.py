"""The header reader: what it finds in a good file, what it refuses, and that nothing makes it crash or hang."""

import struct
import time
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumina.models.errors import CorruptModel
from lumina.models.gguf import (
    ARRAY_ELEMENTS_KEPT_MAX,
    ARRAY_ELEMENTS_MAX,
    BLOCKS,
    KEYS_MAX,
    STRING_BYTES_MAX,
    TENSORS_MAX,
    Header,
    read_header,
)

VOCABULARY_LARGE = 151_936
SECONDS_MAX = 1.0
"""A hundred times what it takes on an idle machine, and a tenth of what the gguf package needs."""
FUZZ = settings(deadline=5000, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


def text(content: str) -> bytes:
    """Return a string as GGUF has it."""
    return struct.pack("<Q", len(content.encode())) + content.encode()


def key(name: str, kind: int, value: bytes) -> bytes:
    """Return a metadata entry."""
    return text(name) + struct.pack("<I", kind) + value


ARCHITECTURE = key("general.architecture", 8, text("llama"))


def tensor(name: str = "w", *, shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    """Return the description of a tensor."""
    dimensions = b"".join(struct.pack("<Q", length) for length in shape)
    return text(name) + struct.pack("<I", len(shape)) + dimensions + struct.pack("<IQ", kind, offset)


def whole(*keys: bytes, tensors: tuple[bytes, ...] = (tensor(),), version: int = 3, data: int = 128) -> bytes:
    """Return a file with these entries and so many bytes of weights."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + bytes(data)


def header_of(content: bytes, folder: Path) -> Header:
    """Read a file with this content."""
    path = folder / "model.gguf"
    path.write_bytes(content)
    return read_header(path)


class TestAGoodFile:
    def test_metadata_and_tensors_are_those_of_the_reference_reader(self, tiny_gguf: Path) -> None:
        """The gguf package, which is slow, reads the same."""
        header = read_header(tiny_gguf)
        reference = gguf.GGUFReader(tiny_gguf)
        assert header.architecture == "llama"
        assert header.vocabulary == len(reference.fields["tokenizer.ggml.tokens"].data)
        assert [(one.name, one.shape, one.kind, one.size) for one in header.tensors] == [
            (one.name, tuple(map(int, one.shape)), one.tensor_type.name, one.n_bytes) for one in reference.tensors
        ]
        for name, field in reference.fields.items():
            if field.types == [gguf.GGUFValueType.UINT32] and not name.startswith("GGUF."):
                assert header.values[name] == field.contents(), name
        assert header.values["tokenizer.chat_template"] == reference.fields["tokenizer.chat_template"].contents()

    def test_block_sizes_are_those_of_the_reference(self) -> None:
        """For every type that both know."""
        names = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
        shared = BLOCKS.keys() & names.keys()
        assert len(shared) > 25
        assert {code: BLOCKS[code] for code in shared} == {code: names[code] for code in shared}

    def test_every_scalar_type(self, tmp_path: Path) -> None:
        """Each is read with its width and sign."""
        numbers: dict[int, tuple[str, float]] = {0: ("<B", 200), 1: ("<b", -3), 2: ("<H", 60_000), 3: ("<h", -5)}
        numbers |= {4: ("<I", 2**31), 5: ("<i", -7), 6: ("<f", 0.5), 7: ("<?", True)}
        numbers |= {10: ("<Q", 2**60), 11: ("<q", -(2**60)), 12: ("<d", 0.1)}
        entries = [key(f"k{kind}", kind, struct.pack(form, value)) for kind, (form, value) in numbers.items()]
        values = header_of(whole(ARCHITECTURE, *entries), tmp_path).values
        assert {kind: values[f"k{kind}"] for kind in numbers} == {kind: value for kind, (_, value) in numbers.items()}

    @pytest.mark.parametrize("version", [2, 3])
    def test_arrays_of_numbers_are_kept_up_to_a_limit(self, tmp_path: Path, version: int) -> None:
        """Per-layer numbers are; a vocabulary's scores are only counted."""
        size = ARRAY_ELEMENTS_KEPT_MAX
        small = key("small", 9, struct.pack("<IQ", 4, size) + struct.pack(f"<{size}I", *range(size)))
        large = key("large", 9, struct.pack("<IQ", 4, size + 1) + bytes(4 * (size + 1)))
        header = header_of(whole(ARCHITECTURE, small, large, version=version), tmp_path)
        assert header.values["small"] == tuple(range(size))
        assert "large" not in header.values
        assert header.counts == {"small": size, "large": size + 1}

    def test_a_large_vocabulary_takes_milliseconds(self, tmp_path: Path) -> None:
        """152,000 tokens are hopped over, not decoded."""
        tokens = b"".join(text(f"token {number}") for number in range(VOCABULARY_LARGE))
        listed = key("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, VOCABULARY_LARGE) + tokens)
        started = time.perf_counter()
        header = header_of(whole(ARCHITECTURE, listed), tmp_path)
        assert header.vocabulary == VOCABULARY_LARGE
        assert time.perf_counter() - started < SECONDS_MAX


REFUSED = {
    "no GGUF": (b"PK\x03\x04" + bytes(100), "is not a GGUF file"),
    "nothing": (b"", "is empty"),
    "only the magic": (b"GGUF", "truncated within its header"),
    "version 1": (whole(ARCHITECTURE, version=1), "GGUF version 1 is unknown"),
    "big-endian": (whole(ARCHITECTURE, version=3 << 24), "big-endian"),
    "no tensors": (whole(ARCHITECTURE, tensors=()), "names 0 tensors"),
    "too many tensors": (b"GGUF" + struct.pack("<IQQ", 3, TENSORS_MAX + 1, 1), "names 1,048,577 tensors"),
    "too many keys": (b"GGUF" + struct.pack("<IQQ", 3, 1, KEYS_MAX + 1), "names 1,048,577 metadata keys"),
    "no architecture": (whole(), "does not name its architecture"),
    "a key twice": (whole(ARCHITECTURE, ARCHITECTURE), "'general.architecture' stands in it twice"),
    "a long string": (whole(key("k", 8, struct.pack("<Q", STRING_BYTES_MAX + 1))), "has 1,048,577 bytes"),
    "a string past the end": (whole(key("k", 8, struct.pack("<Q", 1000))), "truncated within its header"),
    "no UTF-8": (whole(key("k", 8, struct.pack("<Q", 2) + b"\xff\xff")), "the value of k is no UTF-8"),
    "an unknown value type": (whole(key("k", 13, bytes(8))), "unknown type 13"),
    "a nested array": (whole(key("k", 9, struct.pack("<IQ", 9, 1))), "elements of the unknown type 9"),
    "a huge array": (whole(key("k", 9, struct.pack("<IQ", 4, ARRAY_ELEMENTS_MAX + 1))), "134,217,729 elements"),
    "an array past the end": (whole(key("k", 9, struct.pack("<IQ", 4, 10**6))), "truncated within its header"),
    "strings past the end": (whole(key("k", 9, struct.pack("<IQ", 8, 10**6))), "truncated within its header"),
    "a long element": (whole(key("k", 9, struct.pack("<IQQ", 8, 1, 2**40))), "an element of k has"),
    "an odd alignment": (
        whole(ARCHITECTURE, key("general.alignment", 4, struct.pack("<I", 33))),
        "alignment 33 is no power of two",
    ),
    "a tensor twice": (whole(ARCHITECTURE, tensors=(tensor(), tensor())), "tensor 'w' stands in it twice"),
    "rank 9": (whole(ARCHITECTURE, tensors=(tensor(shape=(32,) * 9),)), "9 dimensions"),
    "rank 0": (whole(ARCHITECTURE, tensors=(tensor(shape=()),)), "0 dimensions"),
    "an empty tensor": (whole(ARCHITECTURE, tensors=(tensor(shape=(32, 0)),)), "impossible shape"),
    "an absurd tensor": (whole(ARCHITECTURE, tensors=(tensor(shape=(2**40, 2**40)),)), "impossible shape"),
    "an unknown tensor type": (whole(ARCHITECTURE, tensors=(tensor(kind=99),)), "type 99, which can't be run"),
    "F64 weights": (whole(ARCHITECTURE, tensors=(tensor(kind=28),)), "type 28, which can't be run"),
    "a broken row": (whole(ARCHITECTURE, tensors=(tensor(shape=(33,), kind=8),)), "no multiple of Q8_0's 32"),
    "an odd offset": (whole(ARCHITECTURE, tensors=(tensor(offset=8),)), "does not start at a multiple of 32"),
    "an offset past the end": (whole(ARCHITECTURE, tensors=(tensor(offset=2**62),)), "it is truncated: the last"),
    "missing weights": (whole(ARCHITECTURE, data=127), "it is truncated: the last 1 of"),
}


class TestRefusing:
    @pytest.mark.parametrize(("content", "why"), REFUSED.values(), ids=REFUSED.keys())
    def test_a_malformed_file_is_one_sentence(self, tmp_path: Path, content: bytes, why: str) -> None:
        """It names the file, what is wrong, and what to do."""
        with pytest.raises(CorruptModel) as refusal:
            header_of(content, tmp_path)
        message = str(refusal.value)
        assert message.startswith(str(tmp_path / "model.gguf"))
        assert why in message
        assert message.endswith("download or copy it again")
        assert "\n" not in message

    def test_a_half_downloaded_file(self, tiny_gguf: Path, tmp_path: Path) -> None:
        """Its header is perfect; only the length gives it away."""
        content = tiny_gguf.read_bytes()
        with pytest.raises(CorruptModel, match="it is truncated: the last"):
            header_of(content[: len(content) // 2], tmp_path)

    def test_a_missing_file_is_an_os_error(self, tmp_path: Path) -> None:
        """The caller knows what it was looking for."""
        with pytest.raises(FileNotFoundError):
            read_header(tmp_path / "nothing.gguf")


class TestFuzzing:
    @FUZZ
    @given(cut=st.floats(0, 1, exclude_max=True))
    def test_truncation_anywhere(self, tiny_gguf: Path, tmp_path: Path, cut: float) -> None:
        """However much is missing, it is said; only padding may."""
        content = tiny_gguf.read_bytes()
        length = int(len(content) * cut)
        try:
            header_of(content[:length], tmp_path)
        except CorruptModel:
            return
        assert not any(content[length:]), "all that is missing is padding"

    @FUZZ
    @given(flips=st.lists(st.tuples(st.integers(0, 16_000), st.integers(1, 255)), min_size=1, max_size=8))
    def test_flipped_bits(self, tiny_gguf: Path, tmp_path: Path, flips: list[tuple[int, int]]) -> None:
        """Anything in the header may be wrong: it is refused, or still a header."""
        content = bytearray(tiny_gguf.read_bytes())
        for place, mask in flips:
            content[place] ^= mask
        _only_corrupt(bytes(content), tmp_path)

    @FUZZ
    @given(body=st.binary(max_size=400), counts=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)))
    def test_noise(self, tmp_path: Path, body: bytes, counts: tuple[int, int]) -> None:
        """With a good opening and nothing but noise behind it."""
        _only_corrupt(b"GGUF" + struct.pack("<IQQ", 3, *counts) + body, tmp_path)

    @FUZZ
    @given(
        entries=st.lists(st.tuples(st.text(max_size=8), st.integers(0, 14), st.binary(max_size=40)), max_size=4),
        shape=st.lists(st.integers(0, 2**64 - 1), max_size=10),
        kind=st.integers(0, 50),
        offset=st.integers(0, 2**64 - 1),
    )
    def test_structured_noise(
        self, tmp_path: Path, entries: list[tuple[str, int, bytes]], shape: list[int], kind: int, offset: int
    ) -> None:
        """With entries and a tensor that are nearly right."""
        keys = [key(name, code, value) for name, code, value in entries]
        described = tensor(shape=tuple(shape), kind=kind, offset=offset)
        _only_corrupt(whole(ARCHITECTURE, *keys, tensors=(described,)), tmp_path)


def _only_corrupt(content: bytes, folder: Path) -> None:
    try:
        header = header_of(content, folder)
    except CorruptModel:
        return
    assert all(one.size > 0 for one in header.tensors)
    assert sum(one.size for one in header.tensors[:1]) <= header.file_bytes
