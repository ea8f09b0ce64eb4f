"""Damage to the content of a file, drawn from a generator: bytes of any kind, and tricks of single formats."""

import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

SCENE_KINDS = ("mat-v5", "mat-v5-packed", "mat-v7.3", "hdr", "npy", "npz", "tif", "csv", "png", "gpkg", "geojson")
LABEL_KINDS = ("csv", "png", "gpkg", "geojson")
RUN_FILES = ("bundle.safetensors", "split.safetensors", "bundle.json", "record.json", "config.yaml")
KINDS = (*SCENE_KINDS, "yaml", *RUN_FILES)
EXTREME_NUMBERS = (
    "-1", "0", "99999999999", "-9223372036854775808", "18446744073709551616", "1e308", "nan", "-inf", "",
    "{", "x" * 5000, "9" * 5000, "0x7fffffff", "2147483647", "65536",
)  # fmt: skip


def make_bad(kind: str, index: int, originals: Path) -> bytes:
    """The bad file number `index` of a kind: the same bytes for the same arguments."""
    rng = np.random.default_rng([KINDS.index(kind), index])
    content = (originals / kind).read_bytes()
    special = SPECIAL.get(kind, ())
    damages: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (*GENERAL, *special, *special)
    for _ in range(int(rng.integers(1, 3))):
        content = damages[int(rng.integers(len(damages)))](content, rng)
    return content


def _truncate(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(0, len(content) + 1))]


def _flip_bits(content: bytes, rng: np.random.Generator) -> bytes:
    changed = np.frombuffer(content, np.uint8).copy()
    # Most damage that matters is in the first bytes, where the headers are.
    reach = min(len(changed), int(rng.choice([64, 512, 4096, 2**30])))
    if reach:
        places = rng.integers(0, reach, int(rng.choice([1, 4, 32])))
        changed[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
    return changed.tobytes()


def _lie_about_a_number(content: bytes, rng: np.random.Generator) -> bytes:
    """A binary number somewhere becomes huge, negative or NaN."""
    word = rng.choice(
        [b"\xff" * 4, b"\xff" * 8, b"\x00" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x00\x00\xc0\x7f",
         b"\x00\x00\x01\x00", struct.pack("<d", np.nan), struct.pack("<q", 2**40)]
    )  # fmt: skip
    place = int(rng.integers(0, max(1, min(len(content), int(rng.choice([256, 1024, 2**30]))))))
    return content[:place] + bytes(word) + content[place + len(word) :]


def _repeat_or_cut_out(content: bytes, rng: np.random.Generator) -> bytes:
    start, stop = sorted(rng.integers(0, len(content) + 1, 2).tolist())
    return content[:start] + content[start:stop] * int(rng.choice([0, 2, 3])) + content[stop:]


def _replace_by_noise(content: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(0, len(content) + 1))
    return content[:start] + rng.bytes(int(rng.integers(1, 200))) + content[start + 100 :]


def _change_a_text_number(content: bytes, rng: np.random.Generator) -> bytes:
    """A number written in digits becomes an extreme one."""
    import re

    numbers = list(re.finditer(rb"-?\d+\.?\d*", content))
    if not numbers:
        return content
    match = numbers[int(rng.integers(len(numbers)))]
    return content[: match.start()] + str(rng.choice(EXTREME_NUMBERS)).encode() + content[match.end() :]


def _nest_text(content: bytes, rng: np.random.Generator) -> bytes:
    opening = str(rng.choice(["[", "{", "{a: ", '{"a":', "- ", "((", "'", '"'])).encode()
    place = int(rng.integers(0, len(content) + 1))
    return content[:place] + opening * int(rng.choice([50, 2000, 100_000])) + content[place:]


def _yaml_tricks(content: bytes, rng: np.random.Generator) -> bytes:
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    tricks = (
        laughs, "self: &self [*self]\n", "x: !!python/object/apply:os.system ['touch sprung']\n",
        "? {a: b}\n: c\n", "<<: &m {<<: *m}\n", "seed: .nan\n", "seed: 0x" + "f" * 3000 + "\n", "%TAG ! x\n",
    )  # fmt: skip
    return str(rng.choice(tricks)).encode() + (content if rng.random() < 0.7 else b"")


def _npy_header(content: bytes, rng: np.random.Generator) -> bytes:
    shape = str(rng.choice([
        "(99999999999, 9, 9)", "(-1, 10, 16)", "(12, 10, -16)", "(2147483648, 2147483648, 2147483648)", "()",
        "(0, 0, 0)", "((1,), 2, 3)", "(1.5, 2, 3)", "('a',)", "(" * 90 + ")" * 90,
    ]))  # fmt: skip
    dtypes = ("'<i2'", "'|O'", "'<c16'", "[('a', '<i2'), ('b', '|O')]", "'<U999999999'", "'V8'")
    dtype = dtypes[int(rng.integers(len(dtypes)))]
    header = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content[128:]


def _archive_tricks(content: bytes, rng: np.random.Generator) -> bytes:
    """Symbolic links, climbing paths, bombs, and members that say one size and hold another."""
    del content
    with tempfile.TemporaryFile() as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            link = zipfile.ZipInfo("cube.npy")
            link.external_attr = (0o120777) << 16
            match int(rng.integers(5)):
                case 0:
                    archive.writestr(link, "/etc/passwd")
                case 1:
                    archive.writestr("../../cube.npy", b"\x93NUMPY")
                case 2:
                    archive.writestr("cube.npy", _npy_header(b"", rng) + bytes(20_000_000))
                case 3:
                    archive.writestr("cube.npy", _npy_header(bytes(4000), rng))
                    archive.writestr("labels.npy", b"")
                case _:
                    for number in range(2000):
                        archive.writestr(f"{number}.npy", _npy_header(b"", rng)[:90])
        stream.seek(0)
        return stream.read()


def _matlab_tricks(content: bytes, rng: np.random.Generator) -> bytes:
    """Cells in cells, and sizes of elements that are not there."""
    depth = int(rng.choice([10, 1000, 20_000]))
    inner = b""
    shape = struct.pack("<iiii", 5, 8, 1, 1)
    if rng.random() < 0.5:
        head = struct.pack("<iiII", 6, 8, 1, 0) + shape + struct.pack("<ii", 1, 0)
        size = len(head) + 8
        inner = b"".join(struct.pack("<II", 14, min(size * (depth - level), 2**31)) + head for level in range(depth))
        return content[:128] + inner + content[128:]
    dims = struct.pack("<iiiii", 5, 12, *rng.choice([-1, 0, 2**30, 2**31 - 1, 7], 3).astype(np.int32)) + bytes(4)
    body = struct.pack("<iiII", 6, 8, 6, 0) + dims + struct.pack("<ii", 1, 4) + b"cube" + bytes(4)
    body += struct.pack("<iI", 9, int(rng.choice([0, 8, 2**31, 2**32 - 1]))) + bytes(64)
    return content[:128] + struct.pack("<iI", 14, len(body)) + body


def _safetensors_header(content: bytes, rng: np.random.Generator) -> bytes:
    size = int.from_bytes(content[:8], "little") if len(content) > 8 else 0
    header, data = content[8 : 8 + size], content[8 + size :]
    for _ in range(int(rng.integers(1, 3))):
        header = (_nest_text if rng.random() < 0.2 else _change_a_text_number)(header, rng)
    stated = len(header) if rng.random() < 0.8 else int(rng.choice([0, 2**31, 2**62, 7]))
    return stated.to_bytes(8, "little") + header + data


def _json_tricks(content: bytes, rng: np.random.Generator) -> bytes:
    import re

    value = str(rng.choice(["null", "NaN", "-1", "1e999", '""', "[]", "{}", "true", "9" * 400, "[[[[1]]]]"])).encode()
    values = list(re.finditer(rb":\s*([^,{}\[\]]+)", content))
    if not values:
        return value
    match = values[int(rng.integers(len(values)))]
    return content[: match.start(1)] + value + content[match.end(1) :]


GENERAL = (_truncate, _flip_bits, _flip_bits, _lie_about_a_number, _repeat_or_cut_out, _replace_by_noise)
SPECIAL: dict[str, tuple[Callable[[bytes, np.random.Generator], bytes], ...]] = {
    "mat-v5": (_matlab_tricks,),
    "mat-v5-packed": (_matlab_tricks,),
    "hdr": (_change_a_text_number, _change_a_text_number, _nest_text),
    "npy": (_npy_header,),
    "npz": (_archive_tricks,),
    "csv": (_change_a_text_number, _nest_text),
    "geojson": (_change_a_text_number, _nest_text),
    "yaml": (_change_a_text_number, _nest_text, _yaml_tricks),
    "config.yaml": (_change_a_text_number, _nest_text, _yaml_tricks),
    "bundle.json": (_json_tricks, _json_tricks, _nest_text),
    "record.json": (_json_tricks, _json_tricks, _nest_text),
    "bundle.safetensors": (_safetensors_header,),
    "split.safetensors": (_safetensors_header,),
}
