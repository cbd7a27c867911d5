"""Readers: how files become rows, by suffix; one file per format, one line in a table."""

READERS = {
    ".csv": "guidebook.data.readers.separated:CSV",
    ".tsv": "guidebook.data.readers.separated:TSV",
    ".jsonl": "guidebook.data.readers.json_lines:JSON_LINES",
    ".json": "guidebook.data.readers.json_whole:JSON_WHOLE",
    ".txt": "guidebook.data.readers.plain:PLAIN",
    ".conll": "guidebook.data.readers.conll:CONLL",
    ".iob": "guidebook.data.readers.conll:CONLL",
    ".iob2": "guidebook.data.readers.conll:CONLL",
    ".bio": "guidebook.data.readers.conll:CONLL",
    ".parquet": "guidebook.data.readers.parquet:PARQUET",
}
"""Suffix -> the reader of such files."""
COMPRESSED = {
    ".gz": "guidebook.data.readers.compressed:GZIP",
    ".xz": "guidebook.data.readers.compressed:XZ",
    ".bz2": "guidebook.data.readers.compressed:BZIP2",
    ".zst": "guidebook.data.readers.compressed:ZSTANDARD",
}
"""Suffix behind a suffix -> how such files are unpacked while they are read."""
