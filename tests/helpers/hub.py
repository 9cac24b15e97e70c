"""The fixture `hub`: a hub on loopback that this process asks, with caches of its own; no other network is touched."""

import pytest

from tests.helpers.hub_server import HubServer


@pytest.fixture
def hub(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    with HubServer() as server:
        server.token = "secret"
        for name, value in {
            "HF_ENDPOINT": server.url,
            "HF_HUB_CACHE": str(tmp_path / "hf"),
            "HF_TOKEN": "secret",
            "SEM_JAX_CACHE": str(tmp_path / "sem_jax"),
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield server
