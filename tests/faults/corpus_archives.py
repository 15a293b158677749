"""Make hostile archives: in what they unpack to, name, point at, and claim about themselves."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.faces import face, png
from tests.faults.corpus import CUT, DAMAGED, FINE, Hostile

GOOD = png(face(2, 1))


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


REFUSED = "refused"
MiB = 1 << 20
# Two rows, with one bit of the footer flipped. pyarrow 26 and others abort the process when they
# are asked for the column's sizes.
HISTOGRAM = base64.b64decode(
    "UEFSMRUEFRQVFEwVBBUAEgAAAQAAAGEBAAAAYhUAFRIVEiwVBBUQFQYVBhw2ACgBYhgBYRERAAAAAgAAAAQBAQMCFQQZLDUAGAZz"
    "Y2hlbWEVAgAVDCUCGAVpbWFnZQAWBBkcGRwmABwVDBk1AAYQGRgFaW1hZ2UVABYEFnwWfCY4JggcNgAoAWIYAWEREQAZLBUEFQAV"
    "AgAVABUQFQIAPBYEGUYZJgAEAAAAFnwWBCYIFnwAKCBwYXJxdWV0LWNwcC1hcnJvdyB2ZXJzaW9uIDI2LjAuMRkcHAAAgJoAAABQ"
    "QVIx"
)


def archive(name: str, data: bytes, rows: Mapping[str, str], error: str = "") -> Hostile:
    under = {
        member if member == "*" else f"/{member}": statuses for member, statuses in rows.items()
    }
    return Hostile(f"archives/{name}", data, under, error)


def info(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0
) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, size
    return member


def tar(
    members: Iterable[tuple[tarfile.TarInfo | str, bytes]], form: int = tarfile.PAX_FORMAT
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(
        fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as written:
        for given, data in members:
            member = info(given) if isinstance(given, str) else given
            member.size = member.size or len(data)
            written.addfile(member, io.BytesIO(data) if data else None)
    return out.getvalue()


def zipped(members: Sequence[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as written:
        for name, data in members:
            written.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    return out.getvalue()


def parquet(columns: Mapping[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), out, **options)
    return out.getvalue()


def hostile_archives(outside: str) -> Iterator[Hostile]:
    """Return all hostile archives. outside: an absolute path that must not be created."""
    yield from ways_out(outside)
    yield from kinds()
    yield from names()
    yield from damage()
    yield from numbers()
    yield from nested()
    yield from tables()
    yield from sidecars()


def ways_out(outside: str) -> Iterator[Hostile]:
    """Return archives whose members' names lead out of the folder they are unpacked to."""
    led = (
        "../up.png",
        f"{outside}/absolute.png",
        "a/../../up.png",
        "..\\up.png",
        "C:\\up.png",
        "//up.png",
    )
    rows = {name: REFUSED for name in led} | {"good.png": FINE}
    yield archive("out.tar", tar([(name, GOOD) for name in (*led, "good.png")]), rows)
    yield archive("out.zip", zipped([(name, GOOD) for name in (*led, "good.png")]), rows)


def kinds() -> Iterator[Hostile]:
    """Return archives with members that are not files."""
    of = {
        "link.png": (tarfile.SYMTYPE, "/etc/passwd"),
        "hard.png": (tarfile.LNKTYPE, "../../../etc/passwd"),
        "self.png": (tarfile.SYMTYPE, "self.png"),
        "character.png": (tarfile.CHRTYPE, ""),
        "block.png": (tarfile.BLKTYPE, ""),
        "pipe.png": (tarfile.FIFOTYPE, ""),
        "unknown.png": (b"Z", ""),
    }
    members = [(info(name, kind, target), b"") for name, (kind, target) in of.items()]
    yield archive(
        "kinds.tar",
        tar([*members, ("good.png", GOOD)]),
        dict.fromkeys(of, REFUSED) | {"good.png": FINE},
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as written:
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        written.writestr(link, "/etc/passwd")
        written.writestr("good.png", GOOD)
    yield archive("link.zip", out.getvalue(), {"link.png": REFUSED, "good.png": FINE})
    locked = bytearray(zipped([("locked.png", GOOD), ("good.png", GOOD)]))
    for at in (locked.find(b"PK\x03\x04") + 6, locked.find(b"PK\x01\x02") + 8):
        locked[at] |= 1
    yield archive("locked.zip", bytes(locked), {"locked.png": REFUSED, "good.png": FINE})


def names() -> Iterator[Hostile]:
    long = "n" * 9_996 + ".png"
    odd = [
        "line\nbreak.png",
        "tab\t.png",
        "\udcff\udcfe.png",
        long,
        "\u202egnp.png",
        "#corrupt",
        "#truncated.png",
    ]
    shown = [
        name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for name in odd
    ]
    # `#corrupt` is what a break is called.
    rows = {name.replace("#corrupt", "#corrupt#2"): FINE for name in shown}
    yield archive("names.tar", tar([(name, GOOD) for name in odd]), rows)
    yield archive("names-gnu.tar", tar([(name, GOOD) for name in odd], tarfile.GNU_FORMAT), rows)
    text = [name for name in odd if "\udcff" not in name]
    yield archive(
        "names.zip",
        zipped([(name, GOOD) for name in text]),
        {name: FINE for name in rows if "\\xff" not in name},
    )
    raw = zipped([("aa.png", GOOD)]).replace(b"aa.png", b"\xff\xfe.png")
    yield archive("bytes.zip", raw, {b"\xff\xfe.png".decode("cp437"): FINE})
    yield archive(
        "nul.zip",
        zipped([("aa.png", GOOD)]).replace(b"aa.png", b"a\0.png"),
        {"a\\x00.png": REFUSED},
    )
    first = zipped([("aa.png", GOOD)]).replace(b"aa.png", b"\0a.png")
    yield archive("nul-first.zip", first, {"\\x00a.png": REFUSED})
    thrice = {"a.png": FINE, "a.png#2": FINE, "a.png#3": FINE}
    doubled = [("a.png", GOOD)] * 3
    yield archive("twice.tar", tar(doubled), thrice)
    yield archive("twice.zip", zipped(doubled), thrice)
    yield archive("no-name.tar", tar([(info(""), GOOD)]), {"": FINE})


def header(
    name: str, size: int, kind: bytes = tarfile.REGTYPE, field: bytes | None = None
) -> bytes:
    """Return a tar header. field: the text in the place of the size."""
    made = bytearray(info(name, kind, size=size).tobuf(tarfile.USTAR_FORMAT))
    if field is not None:
        made[124:136] = field
        made[148:156] = b" " * 8
        made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def extended(data: bytes) -> bytes:
    """Return a pax header with these records."""
    return header("pax", len(data), tarfile.XHDTYPE) + padded(data)


def record(key: bytes, value: bytes) -> bytes:
    """Return a record of a pax header, which begins with its own length."""
    for digits in range(1, 8):
        length = len(key) + len(value) + 3 + digits
        if len(str(length)) == digits:
            return b"%d %s=%s\n" % (length, key, value)
    raise ValueError("too long for a pax header")


def numbers() -> Iterator[Hostile]:
    """Return archives with numbers that no table can hold and that Python refuses to read."""
    good = header("good.png", len(GOOD)) + padded(GOOD) + bytes(1024)
    broken = {"#corrupt": "corrupt"}
    yield archive("pax-length-digits.tar", extended(b"1" * 5000 + b" a=b\n") + good, broken)
    yield archive("pax-size-digits.tar", extended(record(b"size", b"9" * 5000)) + good, broken)
    yield archive("pax-size-2-64.tar", extended(record(b"size", b"%d" % 2**64)) + good, broken)
    huge = b"\x80" + (2**70).to_bytes(11, "big")
    for name, kind in (
        ("link", tarfile.LNKTYPE),
        ("device", tarfile.CHRTYPE),
        ("file", tarfile.REGTYPE),
    ):
        yield archive(f"{name}-of-2-70.tar", header("a.png", 0, kind, huge) + good, broken)
    in_table = b"\x80" + (2**62).to_bytes(11, "big")
    rows = {"a.png": REFUSED, "good.png": FINE}
    yield archive("link-of-2-62.tar", header("a.png", 0, tarfile.LNKTYPE, in_table) + good, rows)
    yield archive("long-of-2-64.zip", zip64("a.png", 2**64 - 1), {"a.png": "too_large"})
    yield archive("headers-only.tar", extended(record(b"a", b"b")) * 100 + good, broken)
    short = extended(b"6 a=b\n" * (MiB // 6)) * 20
    yield archive("records.tar.gz", gzip.compress(short + good), broken)
    few = b"".join(record(b"k%d" % n, b"v") for n in range(5000))
    yield archive("many-records.tar", extended(few) + good, {"good.png": FINE})
    rows_of_nothing = parquet({"image": pa.nulls(1_000_000, pa.binary())})
    yield archive("rows-of-nothing.parquet", rows_of_nothing, broken, "1,000,000 rows in")
    yield archive("histogram.parquet", HISTOGRAM, {"0": "corrupt", "1": "corrupt"})


def zip64(name: str, size: int) -> bytes:
    """Return a zip whose directory claims that its one member unpacks to this size."""
    raw = bytearray(zipped([(name, GOOD)]))
    entry, extra = raw.rindex(b"PK\x01\x02"), struct.pack("<HHQ", 1, 8, size)
    struct.pack_into("<L", raw, entry + 24, 0xFFFFFFFF)
    struct.pack_into("<H", raw, entry + 30, len(extra))
    raw[entry + 46 + len(name) : entry + 46 + len(name)] = extra
    end = raw.rindex(b"PK\x05\x06") + 12
    struct.pack_into("<L", raw, end, struct.unpack_from("<L", raw, end)[0] + len(extra))
    return bytes(raw)


def damage() -> Iterator[Hostile]:
    """Return archives with wrong lengths, checksums and directories."""
    whole = tar([("a.png", GOOD), ("b.png", GOOD)])
    second = 512 + -(-len(GOOD) // 512) * 512
    yield archive("cut.tar", whole[: second + 700], {"a.png": FINE, "#truncated": "truncated"})
    yield archive(
        "header.tar",
        whole[:second] + b"\xff" * 512 + whole[second + 512 :],
        {"a.png": FINE, "#corrupt": "corrupt"},
    )
    yield archive("zeros.tar", bytes(10_240), {})
    huge = info("a.png", size=1 << 60).tobuf(tarfile.GNU_FORMAT)
    yield archive("huge.tar", huge + bytes(2048), {"#truncated": "truncated"})
    negative = bytearray(info("a.png").tobuf(tarfile.GNU_FORMAT))
    negative[124:136] = b"\xff" * 12
    yield archive("negative.tar", with_checksum(negative) + bytes(1024), {"#corrupt": "corrupt"})
    name = info("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=1 << 40)
    yield archive(
        "long-name.tar", name.tobuf(tarfile.GNU_FORMAT) + bytes(2048), {"#corrupt": "corrupt"}
    )
    pax = info("x", tarfile.XHDTYPE, size=512).tobuf(tarfile.USTAR_FORMAT)
    yield archive(
        "pax.tar",
        pax + b"99999999999999999999 path=a\n".ljust(512, b"\0") + bytes(1024),
        {"#corrupt": "corrupt"},
    )
    yield archive(
        "pax-zero.tar", pax + b"0 path=a\n".ljust(512, b"\0") + bytes(1024), {"#corrupt": "corrupt"}
    )
    yield archive(
        "pax-size.tar",
        pax + b"17 size=-99999\n\0\0".ljust(512, b"\0") + whole,
        {"#corrupt": "corrupt"},
    )
    for ending, pack in (
        ("gz", gzip.compress),
        ("bz2", bz2.compress),
        ("xz", lzma.compress),
        ("zst", zstd),
    ):
        packed = pack(whole)
        yield archive(f"cut.tar.{ending}", packed[: len(packed) // 2], {"*": f"{CUT}|ok"})
        yield archive(f"text.tar.{ending}", b"no archive at all" * 40, {"#corrupt": "corrupt"})
    summed = bytearray(gzip.compress(tar([("a.png", GOOD)])[: 512 + len(GOOD)]))
    summed[-8] ^= 1
    yield archive("sum.tar.gz", bytes(summed), {"a.png": FINE, "#corrupt": "corrupt"})
    files = zipped([("a.png", GOOD), ("b.png", GOOD)])
    yield archive("cut.zip", files[:-30], {"#truncated": "truncated"})
    wrong = bytearray(files)
    wrong[files.index(GOOD) + 50] ^= 0xFF
    yield archive("sum.zip", bytes(wrong), {"a.png": "corrupt", "b.png": FINE})
    small = bytearray(zipped([("a.png", bytes(5 * MiB))], zipfile.ZIP_DEFLATED))
    at = small.rindex(b"PK\x01\x02") + 24
    small[at : at + 4] = struct.pack("<I", 10)
    yield archive("says-10-bytes.zip", bytes(small), {"a.png": DAMAGED})
    far = bytearray(files)
    at = far.rindex(b"PK\x01\x02") + 42
    far[at : at + 4] = b"\xff\xff\xff\x7f"
    yield archive("offset.zip", bytes(far), {"a.png": FINE, "b.png": "corrupt|truncated"})
    many = bytearray(files)
    at = many.rindex(b"PK\x05\x06") + 8
    many[at : at + 4] = b"\xff\xff\xff\xff"
    yield archive("count.zip", bytes(many), {"*": f"{CUT}|ok"})
    method = bytearray(files)
    for at in (method.index(b"PK\x03\x04") + 8, method.index(b"PK\x01\x02") + 10):
        method[at : at + 2] = struct.pack("<H", 97)
    yield archive("method.zip", bytes(method), {"a.png": "unsupported", "b.png": FINE})


def with_checksum(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def heavy_archives() -> Iterator[Hostile]:
    """Return archives that unpack to a thousand times their size."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as written:
        for number in range(3):
            written.writestr(f"{number}.png", bytes(64 * MiB))
        written.writestr("good.png", GOOD)
    yield archive(
        "bomb.zip",
        out.getvalue(),
        {f"{n}.png": "unsupported" for n in range(3)} | {"good.png": FINE},
    )
    header = info("a.bin", size=3 << 30).tobuf(tarfile.GNU_FORMAT)
    packed = gzip.compress(header) + gzip_zeros(3 << 30) + gzip.compress(tar([("good.png", GOOD)]))
    yield archive("bomb.tar.gz", packed, {"#corrupt": "corrupt"}, "times its size")
    packed = zstd(header) + zstd(bytes(64 * MiB)) * 48
    yield archive("bomb.tar.zst", packed, {"#corrupt": "corrupt"}, "times its size")
    header = info("a.png", size=3 << 30).tobuf(tarfile.GNU_FORMAT)
    yield archive(
        "bomb-photo.tgz", gzip.compress(header) + gzip_zeros(3 << 30), {"#corrupt": "corrupt"}
    )
    values = pa.DictionaryArray.from_arrays(
        pa.array([0] * 24, pa.int32()), pa.array([bytes(64 * MiB)], pa.binary())
    )
    rows = {str(n): "unsupported" for n in range(24)}
    yield archive(
        "bomb.parquet",
        parquet(
            {"image": values},
            compression="zstd",
            dictionary_pagesize_limit=1 << 30,
            store_schema=False,
        ),
        rows,
    )
    words = pa.DictionaryArray.from_arrays(
        pa.array([0] * 40, pa.int32()), pa.array(["x" * (16 * MiB)])
    )
    spoken = {"image": pa.array([GOOD] * 40, pa.binary()), "text": words}
    long = parquet(
        spoken, compression="zstd", dictionary_pagesize_limit=1 << 30, store_schema=False
    )
    yield archive("words.parquet", long, {str(n): FINE for n in range(40)})
    text = json.dumps({"t": "x" * (MiB - 100)}).encode()
    swollen = [pair for n in range(300) for pair in ((f"{n}.png", b""), (f"{n}.json", text))]
    yield archive(
        "swollen.tar.gz", gzip.compress(tar(swollen), 1), {f"{n}.png": "empty" for n in range(300)}
    )


def gzip_zeros(count: int) -> bytes:
    """Return this many zeros, packed as consecutive members of 64 MiB."""
    block = gzip.compress(bytes(64 * MiB))
    return block * (count // (64 * MiB)) + gzip.compress(bytes(count % (64 * MiB)))


def nested() -> Iterator[Hostile]:
    """Return archives in archives, which must not be unpacked."""
    inner = tar([("bomb.gz", gzip_zeros(50 * MiB)), ("good.png", GOOD)])
    yield archive("gzip-in-tar.tar", inner, {"good.png": FINE})
    inner = zipped([("a.png", GOOD)])
    for _ in range(20):
        inner = zipped([("inner.zip", inner), ("good.png", GOOD)])
    yield archive("nested.zip", inner, {"good.png": FINE})
    yield archive(
        "nested.tar",
        tar([("inner.tar", tar([("a.png", GOOD)])), ("good.png", GOOD)]),
        {"good.png": FINE},
    )
    yield archive(
        "photo-is-zip.tar", tar([("a.png", zipped([("a.png", GOOD)]))]), {"a.png": "unsupported"}
    )
    yield archive("photo-is-tar", tar([("good.png", GOOD)]), {"good.png": FINE})
    yield archive("zip-is-tar.zip", tar([("good.png", GOOD)]), {"good.png": FINE})


def tables() -> Iterator[Hostile]:
    """Return Parquet files with other schemas, and with values that nothing can hold."""
    yield archive("no-photos.parquet", parquet({"a": [1, 2]}), {})
    yield archive("text.parquet", parquet({"image": ["a", "b"]}), {})
    yield archive(
        "listed.parquet", parquet({"image": pa.array([[GOOD]], pa.list_(pa.binary()))}), {}
    )
    two = pa.table([pa.array([GOOD]), pa.array([GOOD])], names=["image", "image"])
    out = io.BytesIO()
    pq.write_table(two, out)
    yield archive("two.parquet", out.getvalue(), {"#corrupt": "corrupt"})
    odd = {
        "image": pa.array([GOOD, None, b"", b"no photo"], pa.binary()),
        "when": pa.array([1 << 62, 0, -(1 << 62), None], pa.timestamp("ms")),
        "size": pa.array([float("nan"), float("inf"), -0.0, None]),
        "status\n": ["a", "\ud7ff", "\0", "x" * 100_000],
    }
    yield archive(
        "odd.parquet", parquet(odd), {"0": FINE, "1": "empty", "2": "empty", "3": "unsupported"}
    )
    yield archive("no-rows.parquet", parquet({"image": pa.array([], pa.binary())}), {})
    whole = parquet({"image": pa.array([GOOD] * 20, pa.binary())}, use_dictionary=False)
    yield archive("cut.parquet", whole[:-20], {"#truncated": "truncated"})
    yield archive("footer.parquet", whole[:-8] + b"\xff\xff\xff\x7fPAR1", {"#corrupt": "corrupt"})
    yield archive("magic.parquet", b"PAR1" * 3, {"#corrupt": "corrupt"})


def sidecars() -> Iterator[Hostile]:
    """Return sidecar files that pass through into tables and must not bloat them."""
    deep = "[" * 100_000 + "]" * 100_000
    odd = {
        "a": '{"a": ' + deep + "}",
        "b": '{"n": ' + "9" * 10_000 + "}",
        "c": '{"x": NaN, "y": 1e999, "\\ud800": "\\udfff", "": "", "A": 1, "a": 2, "k\\u0000": "\\u0000"}',
        "d": "{" + ",".join(f'"k{n}": {n}' for n in range(5000)) + "}",
        "e": json.dumps({"t": "x" * (MiB - 100)}),
        "f": "no json",
        "g": '{"unit_id": "x", "meta_a": 1, "image_id": 2, "' + "k" * 5000 + '": 1}',
    }
    members = [
        pair
        for name, text in odd.items()
        for pair in ((f"{name}.png", GOOD), (f"{name}.json", text.encode()))
    ]
    yield archive("sidecars.tar", tar(members), {f"{name}.png": FINE for name in odd})
    depths = range(900, 1000, 3)  # about as deep as Python goes
    nested = [
        (f"{d}.{ending}", data)
        for d in depths
        for ending, data in (("png", GOOD), ("json", _nested(d)))
    ]
    yield archive("depths.tar", tar(nested), {f"{depth}.png": FINE for depth in depths})


def _nested(depth: int) -> bytes:
    return b'{"k": ' + b"[" * depth + b"]" * depth + b"}"
