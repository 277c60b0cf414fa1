"""The models of a node as its configuration describes them, each reached in its way: `Models` for the real world."""

from collections.abc import Mapping
from pathlib import Path

from lumina.models.backend import Backend, Loaded, OnLoad, ignore_load
from lumina.models.llama_pool import LlamaPool
from lumina.models.node import ModelConfig, NodeConfig, api_key, spec_of
from lumina.models.openai import OpenAiBackend


class NodeModels:
    """Files run in worker processes under `folder`, which all processes of the node share; the rest are servers."""

    def __init__(self, config: NodeConfig, *, folder: Path, environ: Mapping[str, str]) -> None:
        self._config = config
        self._environ = environ
        self._pool = LlamaPool(folder)
        self._servers: dict[str, OpenAiBackend] = {}

    async def backend_for(self, instance: str, *, on_load: OnLoad = ignore_load) -> tuple[Backend, Loaded | None]:
        """Return the backend of an instance, loaded or reached, as `Models.backend_for` says."""
        model = self._config.find(model_of(instance))
        if model.path is not None:
            return await self._pool.ensure(instance, spec_of(model), on_load=on_load)
        if model.id not in self._servers:
            self._servers[model.id] = self._server(model)
        server = self._servers[model.id]
        await server.discover()
        return server, None

    async def unload(self, instance: str) -> bool:
        """End the worker process of an instance; a server's models are not ours to unload."""
        return await self._pool.unload(instance)

    async def clear(self) -> int:
        """End what an earlier life of this node left running; return how many processes that were."""
        return await self._pool.clear()

    async def aclose(self) -> None:
        """Let go of all models."""
        await self._pool.aclose()
        for server in self._servers.values():
            await server.aclose()
        self._servers.clear()

    def _server(self, model: ModelConfig) -> OpenAiBackend:
        assert model.url is not None, "a model has a path or a url"
        return OpenAiBackend(
            url=model.url,
            model=model.model or model.id,
            api_key=api_key(model, environ=self._environ),
            context=model.context,
            slots=model.slots,
        )


def model_of(instance: str) -> str:
    """Return `coder` for `coder#0`."""
    return instance.rpartition("#")[0]
