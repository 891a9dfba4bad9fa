"""Builders of torch.save's files, opcode by opcode: well formed unless told otherwise."""
import io
import struct
import zipfile

LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
DICT = b"ccollections\nOrderedDict\n)R"


def text(s):
    return b"X" + struct.pack("<I", len(s.encode())) + s.encode()


def number(n):
    return b"\x8a\x09" + n.to_bytes(9, "little", signed=True)


def many(items):
    """A tuple of opcodes."""
    return b"(" + b"".join(items) + b"t"


def name(module, attribute):
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def storage(kind, key, numel, more=b"", where=("torch", "Storage")):
    parts = [text("storage"), name(where[0], kind + where[1]), text(key), text("cpu"), number(numel)]
    return many([*parts, more] if more else parts) + b"Q"


def tensor(kind, key, numel, shape, stride=None, offset=0, more=b"", function="_rebuild_tensor_v2"):
    """A view of a storage; the stride is that of an array in order unless given."""
    if stride is None:
        stride = [1] * len(shape)
        for i in range(len(shape) - 2, -1, -1):
            stride[i] = stride[i + 1] * shape[i + 1]
    return name("torch._utils", function) + many([
        storage(kind, key, numel, more), number(offset), many(map(number, shape)), many(map(number, stride)), b"\x89",
        DICT]) + b"R"


def parameter(value):
    return name("torch._utils", "_rebuild_parameter") + many([value, b"\x88", DICT]) + b"R"


def pickled(entries, metadata=b""):
    """A state dict: names and the opcodes of their values. metadata: opcodes of its attributes."""
    items = b"".join(text(key) + value for key, value in entries.items())
    return b"\x80\x02" + DICT + b"(" + items + b"u" + metadata + b"."


def torch_zip(pickle, storages, folder="archive", order=b"little", compression=zipfile.ZIP_STORED, more=()):
    """A file of today's torch.save. storages: bytes by key; more: further (name, bytes)."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(f"{folder}/data.pkl", pickle)
        archive.writestr(f"{folder}/byteorder", order)
        for key, data in storages.items():
            archive.writestr(f"{folder}/data/{key}", data)
        archive.writestr(f"{folder}/version", b"3\n")
        for entry, data in more:
            archive.writestr(entry, data)
    return file.getvalue()


def torch_legacy(pickle, storages, version=1001, little=b"\x88", keys=None):
    """An older file of torch.save. storages: (count, bytes) by key."""
    system = b"\x80\x02}(" + text("protocol_version") + number(1001) + text("little_endian") + little + b"u."
    listed = b"\x80\x02](" + b"".join(map(text, storages if keys is None else keys)) + b"e."
    return (LEGACY_MAGIC + b"\x80\x02" + number(version) + b"." + system + pickle + listed
            + b"".join(struct.pack("<q", count) + data for count, data in storages.values()))
