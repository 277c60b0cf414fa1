"""`node.toml`: what it may say, what it makes of the machine, and all that can be wrong with it, said at once."""

from pathlib import Path

import gguf
import msgspec
import numpy as np
import pytest

from lumina.events.node import Backend
from lumina.models.errors import BadConfiguration, CorruptModel, UnknownModel
from lumina.models.memory import PROCESS_BYTES
from lumina.models.node import (
    CONFIGURATION_BYTES_MAX,
    DEMO_MODEL,
    MODELS_MAX,
    ModelConfig,
    NodeConfig,
    announcement,
    api_key,
    digest,
    load_config,
    offer,
    spec_of,
)
from lumina.models.node_words import bytes_of, key_problem, url_problem

GIB = 2**30


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the place of a configuration."""
    return tmp_path / "node.toml"


def loaded(file: Path, text: str, *, environ: dict[str, str] | None = None) -> NodeConfig:
    """Write a configuration and read it."""
    file.write_text(text)
    return load_config(file, environ=environ or {})


def problems(file: Path, text: str) -> tuple[str, ...]:
    """Return what is wrong with a configuration."""
    with pytest.raises(BadConfiguration) as refusal:
        loaded(file, text)
    assert str(refusal.value).startswith(f"{file} can't be used:\n  ")
    assert all(problem in str(refusal.value) for problem in refusal.value.problems)
    return refusal.value.problems


def without_demo(config: NodeConfig) -> NodeConfig:
    """Return the user's part: the demo model's file has tests of its own."""
    assert config.models[-1].id == DEMO_MODEL
    return msgspec.structs.replace(config, models=config.models[:-1])


class TestReading:
    def test_no_file_is_the_demo_model_on_half_of_the_memory(self, file: Path) -> None:
        """Lumina works with nothing configured."""
        config = load_config(file, environ={})
        (demo,) = config.models
        assert (config.name, config.ram, config.idle_unload_s) == ("local", "50%", 300)
        assert (demo.id, demo.context, demo.instances_max, demo.slots) == (DEMO_MODEL, 1024, 2, 1)
        assert demo.bare
        assert demo.plans

    def test_the_users_models_come_first_and_the_demo_model_last(self, file: Path, tiny_gguf: Path) -> None:
        """In the order of the file: it is the order of preference."""
        text = f'[[models]]\nid = "b"\npath = "{tiny_gguf}"\n[[models]]\nid = "a"\nurl = "http://127.0.0.1:1/v1"'
        assert [model.id for model in loaded(file, text).models] == ["b", "a", DEMO_MODEL]

    def test_paths_start_at_the_file(self, file: Path, tiny_gguf: Path) -> None:
        """And `~` is the user's folder."""
        (file.parent / "mine.gguf").write_bytes(tiny_gguf.read_bytes())
        config = loaded(file, '[[models]]\nid = "a"\npath = "mine.gguf"')
        assert config.find("a").path == str(file.parent / "mine.gguf")

    def test_a_secret_stays_in_the_environment(self, file: Path) -> None:
        """The configuration holds the reference, whoever calls the server resolves it."""
        text = '[[models]]\nid = "a"\nurl = "http://127.0.0.1:1/v1"\napi_key = "${SOME_KEY}"'
        config = loaded(file, text, environ={"SOME_KEY": "s3cret"})
        assert "s3cret" not in repr(config)
        assert api_key(config.find("a"), environ={"SOME_KEY": "s3cret"}) == "s3cret"
        assert api_key(config.find(DEMO_MODEL), environ={}) is None

    def test_an_unknown_model_is_one_sentence(self, file: Path) -> None:
        """It lists those that there are."""
        with pytest.raises(UnknownModel, match=f"no model nope is configured on node local; its models: {DEMO_MODEL}"):
            load_config(file, environ={}).find("nope")


class TestOffering:
    def test_a_file_is_offered_with_its_estimate(self, file: Path, tiny_gguf: Path) -> None:
        """Its context is what it was trained for, where that is less than the default."""
        text = f'[[models]]\nid = "a"\npath = "{tiny_gguf}"\ninstances_max = 3\nplans = true\npinned = true'
        (made,) = offer(without_demo(loaded(file, text)))
        assert (made.model, made.backend, made.context, made.slots) == ("a", Backend.LLAMA_CPP, 2048, 1)
        assert (made.instances_max, made.plans, made.bare, made.pinned) == (3, True, False, True)
        assert PROCESS_BYTES + tiny_gguf.stat().st_size < made.bytes_estimated < 80_000_000

    def test_more_context_takes_more_memory(self, file: Path, tiny_gguf: Path) -> None:
        """The estimate is made for what is served."""
        sizes = []
        for context in (512, 2048):
            config = loaded(file, f'[[models]]\nid = "a"\npath = "{tiny_gguf}"\ncontext = {context}')
            sizes.append(offer(without_demo(config))[0].bytes_estimated)
        assert sizes[0] < sizes[1]

    def test_a_server_takes_no_memory(self, file: Path) -> None:
        """It has slots, and an assumed context unless told."""
        (made,) = offer(
            without_demo(loaded(file, '[[models]]\nid = "a"\nurl = "https://x.example/v1"\nslots = 4\nbare = true'))
        )
        assert (made.backend, made.bytes_estimated, made.slots, made.context) == (Backend.OPENAI, 0, 4, 4096)
        assert made.bare

    def test_a_file_is_loaded_as_it_was_estimated(self, file: Path, tiny_gguf: Path) -> None:
        """Same context, same micro-batch, not mapped."""
        text = f'[[models]]\nid = "a"\npath = "{tiny_gguf}"\nthreads = 2\ngpu_layers = -1'
        spec = spec_of(loaded(file, text).find("a"))
        assert (spec.path, spec.context, spec.ubatch, spec.mmap) == (str(tiny_gguf), 2048, 64, False)
        assert (spec.threads, spec.gpu_layers) == (2, -1)

    def test_a_file_that_went_away_is_one_sentence(self, file: Path, tiny_gguf: Path) -> None:
        """Between reading the configuration and announcing the node."""
        copy = file.parent / "copy.gguf"
        copy.write_bytes(tiny_gguf.read_bytes())
        config = loaded(file, '[[models]]\nid = "a"\npath = "copy.gguf"')
        copy.unlink()
        for use in (lambda: offer(without_demo(config)), lambda: spec_of(config.find("a")), lambda: digest(config)):
            with pytest.raises(CorruptModel, match=r"copy\.gguf can't be read any more"):
                use()

    def test_the_announcement(self, file: Path, tiny_gguf: Path) -> None:
        """Budget in bytes, idle time in milliseconds, and the digest of what was configured."""
        text = f'name = "den"\nram = "3GiB"\nidle_unload_s = 60\n[[models]]\nid = "a"\npath = "{tiny_gguf}"'
        config = without_demo(loaded(file, text))
        announced = announcement(config)
        assert (announced.node, announced.bytes_max, announced.idle_ms) == ("den", 3 * GIB, 60_000)
        assert announced.models == offer(config)
        assert announced.configuration == digest(config)

    def test_a_share_of_the_memory_is_taken_when_announcing(self, file: Path) -> None:
        """Half of what is available, which is more than nothing."""
        assert announcement(without_demo(loaded(file, 'ram = "50%"'))).bytes_max > 2**20

    def test_pinned_models_must_fit_together(self, file: Path, tiny_gguf: Path) -> None:
        """Otherwise nothing could ever be loaded."""
        config = loaded(file, f'ram = "1MB"\n[[models]]\nid = "a"\npath = "{tiny_gguf}"\npinned = true')
        with pytest.raises(BadConfiguration, match="ram: the pinned models need"):
            announcement(without_demo(config))

    def test_the_digest_changes_with_what_is_configured_and_with_the_files(self, file: Path, tiny_gguf: Path) -> None:
        """What is resident may be the wrong model then."""
        copy = file.parent / "copy.gguf"
        copy.write_bytes(tiny_gguf.read_bytes())
        text = '[[models]]\nid = "a"\npath = "copy.gguf"\n'
        first = digest(without_demo(loaded(file, text)))
        assert digest(without_demo(loaded(file, text))) == first
        assert digest(without_demo(loaded(file, text + "threads = 2"))) != first
        copy.write_bytes(tiny_gguf.read_bytes() + b"\0")
        assert digest(without_demo(loaded(file, text))) != first


WRONG = {
    "unknown key": ("foo = 1", "foo: unknown; possible are idle_unload_s, models, name, ram"),
    "bad name": ('name = "A B"', "name: Expected `str` matching regex '^[a-z0-9][a-z0-9-]{0,39}$'"),
    "bad amount": ('ram = "4XB"', 'ram: \'4XB\' is no amount; write for instance "4GB", "512MiB" or "50%"'),
    "no amount": ("ram = 4", "ram: Expected `str`, got `int`"),
    "bad time": ("idle_unload_s = -1", "idle_unload_s: Expected `int` >= 0"),
    "no list": ("models = 3", "models: must be a list of tables, each headed [[models]]"),
    "no id": ('[[models]]\nurl = "http://x"', "models[0].id: missing"),
    "bad id": ('[[models]]\nid = "a b"\nurl = "http://x"', "models[0].id: Expected `str` matching regex"),
    "no place": ('[[models]]\nid = "a"', "models[0].path: give either path, a GGUF file, or url, a server"),
    "two places": (
        '[[models]]\nid = "a"\npath = "x"\nurl = "http://x"',
        "models[0].path: give either path, a GGUF file, or url, a server",
    ),
    "no file": ('[[models]]\nid = "a"\npath = "no.gguf"', "no.gguf does not exist"),
    "nobody's folder": ('[[models]]\nid = "a"\npath = "~nobody-here/no.gguf"', "no.gguf does not exist"),
    "a folder": ('[[models]]\nid = "a"\npath = "."', "is a folder; name the GGUF file in it"),
    "NUL": ('[[models]]\nid = "a"\npath = "a\\u0000b"', "models[0].path: Expected `str` matching regex"),
    "bad url": ('[[models]]\nid = "a"\nurl = "localhost:1234"', "models[0].url: 'localhost:1234' is no http or https"),
    "bad context": ('[[models]]\nid = "a"\nurl = "http://x"\ncontext = 1', "models[0].context: Expected `int` >= 256"),
    "file's option": ('[[models]]\nid = "a"\nurl = "http://x"\nthreads = 2', "models[0].threads: only for a file"),
    "a secret": (
        '[[models]]\nid = "a"\nurl = "http://x"\napi_key = "s3cret"',
        "models[0].api_key: must be a reference to an environment variable, ${NAME}; secrets do not belong into",
    ),
    "an unset secret": (
        '[[models]]\nid = "a"\nurl = "http://x"\napi_key = "${NOT_SET}"',
        "models[0].api_key: the environment variable NOT_SET is not set",
    ),
    "the demo's id": (f'[[models]]\nid = "{DEMO_MODEL}"\nurl = "http://x"', "is the embedded demo model; choose"),
    "no TOML": ("name = ", "it is no TOML: Invalid value"),
}


class TestRefusing:
    @pytest.mark.parametrize(("text", "why"), WRONG.values(), ids=WRONG.keys())
    def test_a_mistake_is_named_with_its_path(self, file: Path, text: str, why: str) -> None:
        """And nothing else is."""
        (problem,) = problems(file, text)
        assert why in problem
        assert "s3cret" not in problem

    def test_all_mistakes_are_named_at_once(self, file: Path, tiny_gguf: Path) -> None:
        """In one go, in the order of the models, then the rest."""
        text = f"""
            ram = "lots"
            rom = 1
            [[models]]
            id = "a"
            path = "no.gguf"
            contxt = 1
            [[models]]
            id = "a"
            url = "ftp://x"
            pinned = true
            [[models]]
            id = "c"
            path = "{tiny_gguf}"
            slots = 2
            context = 4096
        """
        assert [problem.split(":")[0] for problem in problems(file, text)] == [
            "models[0].contxt",
            "models[0].path",
            "models[1].pinned",
            "models[1].url",
            "models[2].slots",
            "models[2].context",
            "models[1].id",
            "rom",
            "ram",
        ]

    def test_a_truncated_gguf(self, file: Path, tiny_gguf: Path) -> None:
        """Long before anything tries to load it."""
        (file.parent / "cut.gguf").write_bytes(tiny_gguf.read_bytes()[:300_000])
        (problem,) = problems(file, '[[models]]\nid = "a"\npath = "cut.gguf"')
        assert problem.startswith(f"models[0].path: {file.parent / 'cut.gguf'} can't be used: it is truncated")

    def test_one_part_of_a_split_model(self, file: Path) -> None:
        """Its other tensors are elsewhere: the estimate would be wrong."""
        writer = gguf.GGUFWriter(file.parent / "part.gguf", "llama")
        writer.add_uint16("split.count", 2)
        writer.add_tensor("output_norm.weight", np.ones(32, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        (problem,) = problems(file, '[[models]]\nid = "a"\npath = "part.gguf"')
        assert problem.endswith("is one part of several; merge them with llama-gguf-split --merge")

    def test_more_context_than_the_model_was_trained_for(self, file: Path, tiny_gguf: Path) -> None:
        """It would answer nonsense."""
        (problem,) = problems(file, f'[[models]]\nid = "a"\npath = "{tiny_gguf}"\ncontext = 4096')
        assert problem == "models[0].context: 4,096 tokens, but the model was trained for 2,048"

    def test_too_many_models(self, file: Path) -> None:
        """An announcement has a limit."""
        (problem,) = problems(file, '[[models]]\nid = "a"\n' * (MODELS_MAX + 1))
        assert problem == "models: 200 are listed; 199 are possible"

    def test_a_huge_file(self, file: Path) -> None:
        """It is not read as TOML."""
        (problem,) = problems(file, "#" * (CONFIGURATION_BYTES_MAX + 1))
        assert problem == "it has 1,048,577 bytes; 1,048,576 are possible"

    def test_a_folder_in_its_place(self, tmp_path: Path) -> None:
        """It can't be read, and that is said."""
        with pytest.raises(BadConfiguration, match="it can't be read: Is a directory"):
            load_config(tmp_path, environ={})


class TestWords:
    @pytest.mark.parametrize(
        ("amount", "size"),
        [("4GB", 4 * 10**9), ("1.5 GiB", 3 * 2**29), ("512mib", 2**29), ("25%", GIB // 4), ("100%", GIB), ("7 B", 7)],
    )
    def test_amounts(self, amount: str, size: int) -> None:
        """Decimal and binary units, and shares of what is available."""
        assert bytes_of(amount, available=GIB) == size

    @pytest.mark.parametrize("amount", ["", "4", "GB", "-1GB", "0%", "101%", "0 GB", "1e9B", "9999999TB", "4 GB x"])
    def test_no_amounts(self, amount: str) -> None:
        """Nothing is guessed."""
        assert bytes_of(amount, available=GIB) is None

    @pytest.mark.parametrize("url", ["http://127.0.0.1:8080/v1", "https://x.example", "http://[::1]:1234/v1"])
    def test_good_urls(self, url: str) -> None:
        """A base URL of a server."""
        assert url_problem(url) is None

    @pytest.mark.parametrize(
        "url",
        ["", "x", "ftp://x", "http://", "http://x:99999", "http://x:0", "http://u:p@x", "http://x?a=1", "http://a b"],
    )
    def test_bad_urls(self, url: str) -> None:
        """Each has its sentence, and a password in one is not repeated."""
        problem = url_problem(url)
        assert problem
        assert "u:p" not in problem

    def test_references(self) -> None:
        """Only `${NAME}`, and only when it is set to something."""
        assert key_problem(None, environ={}) is None
        assert key_problem("${A}", environ={"A": "x"}) is None
        assert key_problem("${A}", environ={"A": ""}) is not None
        assert key_problem("x${A}", environ={"A": "x"}) is not None


def test_a_model_is_a_file_or_a_server() -> None:
    """The defaults are those of the documentation."""
    plain = ModelConfig(id="a")
    assert (plain.slots, plain.instances_max, plain.threads, plain.gpu_layers) == (1, 1, 1, 0)


def test_the_embedded_demo_model_is_offered(file: Path) -> None:
    """Its file is there, whole, and small enough for two instances on any machine."""
    (made,) = offer(load_config(file, environ={}))
    assert (made.model, made.context, made.instances_max, made.plans, made.bare) == (DEMO_MODEL, 1024, 2, True, True)
    assert PROCESS_BYTES < made.bytes_estimated < 2 * PROCESS_BYTES


def test_the_documented_example_is_good(file: Path, tiny_gguf: Path) -> None:
    """The one in docs/node.md, with a file that is there."""
    document = Path(__file__).parents[2] / "docs" / "node.md"
    example = document.read_text().split("```toml\n")[1].split("```")[0]
    named = "~/models/qwen2.5-coder-1.5b-instruct-q8_0.gguf"
    assert named in example
    text = example.replace(named, str(tiny_gguf)).replace("8192", "2048")
    config = loaded(file, text, environ={"BIG_API_KEY": "x"})
    assert [model.id for model in config.models] == ["coder", "big", DEMO_MODEL]


def test_every_key_is_documented() -> None:
    """The table in docs/node.md has them all."""
    document = (Path(__file__).parents[2] / "docs" / "node.md").read_text()
    keys = [*ModelConfig.__struct_fields__, *NodeConfig.__struct_fields__]
    assert [key for key in keys if key not in document] == []
