"""How much of everything one pushed step may hold. Beyond: PushError, before memory is taken."""

from __future__ import annotations

#: 512 sequences × 8,192 tokens, a large step of one trainer, eight times over.
MAX_TOKENS = 2**25
#: Every response of a large step is far longer than 32 tokens.
MAX_SEQUENCES = 2**20
#: The whole file is read into memory; 4M tokens with experts of 48 layers × 8 need 1.7 GB.
MAX_FILE_BYTES = 2 * 2**30
#: Thirteen tensors and their metadata need about 2 KiB.
MAX_HEADER_BYTES = 256 * 2**10
#: Frameworks note a handful of settings; the header limit would allow ten thousand.
MAX_METADATA_ENTRIES = 64
#: A model name or a version, not a document.
MAX_METADATA_CHARACTERS = 1024
#: JSON takes 50 bytes per token in the file and ten times that while it is parsed: this is about
#: 300,000 tokens. Larger steps belong into safetensors.
MAX_JSON_BYTES = 16 * 2**20
#: prime-rl writes about 350 bytes per token, one sequence per line: up to 190,000 tokens.
MAX_EXPORT_LINE_BYTES = 64 * 2**20
#: Read line by line, so that the tokens limit memory; this only ends the reading of a wrong file.
MAX_EXPORT_BYTES = 16 * 2**30
