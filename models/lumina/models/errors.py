"""What can go wrong between an agent and a model.

ModelError
├── ModelUnavailable  nobody answers, or the process died: try again later, or another model; the message says where
├── ModelTimedOut     it was too slow: the work was stopped; ask for less, allow more time, or take a faster model
├── ModelGarbage      something answers, but not as a model server does: check the URL; the message shows what came
├── ContextExceeded   prompt and reserve are longer than the served context: shorten the prompt, don't repeat it
├── CorruptModel      the file is truncated or not a GGUF that llama.cpp can run: download it again
├── BadConfiguration  `node.toml` is wrong: correct what the message lists, all of it at once
├── ConversationLost  a turn can't be read, or there are too many: begin a new conversation
└── UnknownModel      no model of that name is configured here: the message lists those that are
"""

from pathlib import Path


class ModelError(Exception):
    """Base of all errors of models. The message is one sentence for people, the same for the same cause."""


class ModelUnavailable(ModelError):
    """Nobody answers at the place that the message names. Nothing is known to be wrong with the request."""


class ModelTimedOut(ModelError):
    """The answer took longer than was allowed. The work was stopped."""


class ModelGarbage(ModelError):
    """What came back is not what a model server says. Trying again is useless until the URL is put right."""


class ContextExceeded(ModelError):
    """The prompt does not fit. Nothing was generated."""


class CorruptModel(ModelError):
    """The model file can't be used. The message has its path and what to do."""


class BadConfiguration(ModelError):
    """The node's configuration can't be used.

    Attributes:
        problems: Each begins with the path of the field, for instance `models[1].url`.
    """

    def __init__(self, file: Path, problems: tuple[str, ...]) -> None:
        super().__init__(f"{file} can't be used:\n" + "\n".join(f"  {problem}" for problem in problems))
        self.problems = problems


class ConversationLost(ModelError):
    """An earlier conversation can't be continued. The message says why."""


class UnknownModel(ModelError):
    """The node has no such model. Correct the name."""
