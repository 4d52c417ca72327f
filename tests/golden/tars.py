"""A WebDataset shard, and what the library `webdataset` reads in it, for `tests/test_tars.py`, which needs none.

python3 -m venv gold && gold/bin/pip install webdataset==1.0.2 numpy pillow pyarrow
PYTHONPATH=. gold/bin/python -m tests.golden.tars
"""

import io
import json
import tarfile
import tempfile
from pathlib import Path

from .folders import png


MEMBERS = {
    "a/0001.png": png(0),
    "a/0001.cls": b"3",
    "a/0002.cls": b"5\n",
    "a/0002.PNG": png(1),
    "a/0002.seg.png": png(9),
    "b/0001.v1.json": b"{}",
    "b/0001.png": png(2),
    "b/0001.json": b'{"label": 7, "index": 1}',
    "without": b"an ending",
    "b/0003.txt": b"no image",
    "b/" + "long" * 40 + ".png": png(3),
    "b/" + "long" * 40 + ".cls": b"3",
    "été.png": png(4),
}


def shard(path: Path, members: dict[str, bytes] = MEMBERS) -> Path:
    """Writes members in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def main() -> None:
    """Records the key of every sample, and its members in hexadecimal."""
    import webdataset

    with tempfile.TemporaryDirectory() as folder:
        path = shard(Path(folder) / "shard.tar")
        facts = [
            [sample["__key__"], {k: v.hex() for k, v in sample.items() if not k.startswith("__")}]
            for sample in webdataset.WebDataset(str(path), shardshuffle=False)
        ]
    content = {"webdataset": webdataset.__version__, "samples": facts}
    (Path(__file__).parent / "tars.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
