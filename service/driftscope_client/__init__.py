"""What an RL trainer installs to push its steps: httpx, numpy, safetensors; torch is optional."""

from driftscope_client.client import DriftscopeClient
from driftscope_client.errors import DriftscopeError

__all__ = ["DriftscopeClient", "DriftscopeError"]
