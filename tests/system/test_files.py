"""Files are replaced whole or not at all, also where a folder cannot be synced."""

import errno
import os
from pathlib import Path

import pytest

from hsi_se.system.files import replacing, sync_folder, write_durably


def write_text(path: Path, data: bytes) -> None:
    with replacing(path) as draft:
        draft.write_bytes(data)


@pytest.mark.parametrize("write", [write_durably, write_text])
@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_a_file_is_replaced_by_what_was_written_and_by_nothing_else(write, size, tmp_path):
    path = tmp_path / "file.txt"
    for data in (b"old", bytes(size)):
        write(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("write", [write_durably, write_text])
def test_a_write_that_fails_names_its_file_and_leaves_the_earlier_one(write, tmp_path, monkeypatch):
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file.txt"
    write(path, b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        write(path, b"new")
    assert caught.value.filename == str(path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize(("function", "number"), [("open", errno.EACCES), ("fsync", errno.EINVAL)])
def test_a_system_that_syncs_no_folder_writes_all_the_same(function, number, tmp_path, monkeypatch):
    """Windows opens none; some file systems sync none."""
    real, refused = getattr(os, function), []

    def refuse(target, *arguments):
        if os.path.samestat(os.stat(target), tmp_path.stat()):  # noqa: PTH116  of a descriptor too
            refused.append(target)
            raise OSError(number, "not here")
        return real(target, *arguments)

    monkeypatch.setattr(os, function, refuse)
    sync_folder(tmp_path)
    monkeypatch.undo()
    assert len(refused) == 1


def test_a_folder_that_is_missing_cannot_be_synced(tmp_path):
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "missing")
