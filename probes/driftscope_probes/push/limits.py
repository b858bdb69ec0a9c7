"""How much of everything one pushed step may hold. Beyond: PushError, before memory is taken."""

from __future__ import annotations

#: 512 sequences × 8,192 tokens, a large step of one trainer, eight times over.
MAX_TOKENS = 2**25
#: Every response of a large step is far longer than 32 tokens.
MAX_SEQUENCES = 2**20
#: The whole file is read into memory; 4M tokens with experts of 48 layers × 8 need 1.7 GB.
MAX_FILE_BYTES = 2 * 2**30
#: Thirteen tensors and their metadata need about 2 KiB. Of Arrow, each message's header.
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
#: Log-probabilities hardly shrink (1.3 times); a padded step that is nine tenths padding shrinks
#: tenfold, one with a single long response in 128 perhaps a hundredfold.
MAX_ZSTD_RATIO = 200.0
#: Writers make batches of thousands of rows: this is one batch per 256 sequences at the worst.
MAX_ARROW_BATCHES = 4096
#: The shards of a step are joined in memory, side by side with the whole: twice a file's limit.
MAX_JOINED_BYTES = 4 * 2**30
