"""Checkpoints: what goes in comes out, on any backend; whatever happens to the files is noticed and named."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tinygrad_rnn as tg
from tinygrad_rnn.errors import CheckpointError, OutputError
from tinygrad_rnn.train import checkpoint


def state(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "numbers": [1, 2.5, None, True, 2**127, "ü"],
        "model": {"a.W": rng.standard_normal((3, 5)).astype(np.float32), "b": rng.standard_normal(4)},
        "carried": [rng.integers(0, 9, (2, 3, 4)), np.float32(seed + 0.1) * np.ones((), np.float32)],
    }


def arrays_file(folder: Path) -> Path:
    (found,) = folder.glob("arrays-*.safetensors")
    return found


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def listing_of_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(a == b)


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(), step=3)
    assert equal(checkpoint.load(tmp_path), state()) and not equal(checkpoint.load(tmp_path), state(1))
    assert sorted(listing(tmp_path)) == ["arrays-3.safetensors", "checkpoint.json"]


def test_arrays_in_any_order_of_memory_come_out_right(tmp_path: Path) -> None:
    x = np.arange(24.0).reshape(4, 6)
    checkpoint.save(tmp_path, {"views": [x.T, np.asfortranarray(x), x[::2, ::-3], x[:, :0]]}, step=0)
    for got, wanted in zip(checkpoint.load(tmp_path)["views"], [x.T, x, x[::2, ::-3], x[:, :0]], strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_tensors_of_any_backend_come_out_as_numpy_arrays(tmp_path: Path, backend: str) -> None:
    checkpoint.save(tmp_path, {"t": tg.tensor([[1.5, 2.5]], name="t")}, step=0)
    got = checkpoint.load(tmp_path)["t"]
    assert type(got) is np.ndarray and got.tolist() == [[1.5, 2.5]]


def test_saving_again_leaves_only_the_new_one(tmp_path: Path) -> None:
    for seed, step in enumerate([1, 2, 2, 2, 5]):
        checkpoint.save(tmp_path, state(seed), step=step)
        assert equal(checkpoint.load(tmp_path), state(seed))
        assert len(listing(tmp_path)) == 2


def test_files_of_others_are_never_deleted_or_overwritten(tmp_path: Path) -> None:
    names = (
        "arrays-0.safetensors",
        "arrays-1.safetensors",
        "arrays-1-again.safetensors",
        "arrays-0.safetensors.partial",
    )
    names += ("arrays-best.safetensors", "thesis.partial", "arrays-4.safetensors.partial")
    for name in names:
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / "arrays-2.safetensors").mkdir()
    for step in (0, 1, 1, 2, 4):
        checkpoint.save(tmp_path, state(step), step=step)
        assert equal(checkpoint.load(tmp_path), state(step))
        arrays_of_ours = tmp_path / json.loads((tmp_path / checkpoint.FILE).read_text())["arrays"]
        (tmp_path / "arrays-copy.safetensors").write_bytes(arrays_of_ours.read_bytes())
    assert all((tmp_path / name).read_bytes() == b"mine" for name in names)
    assert len(listing_of_names(tmp_path)) == len(names) + 4  # the folder, the copy, and the checkpoint: no leavings


class Kill(BaseException):
    """Stands for the end of the process: nothing below handles it."""


def test_a_kill_at_any_call_leaves_the_old_or_the_new_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for fatal in range(20):
        folder = tmp_path / str(fatal)
        folder.mkdir()
        checkpoint.save(folder, state(1), step=1)
        calls = 0

        def lethal(real: Callable[..., Any], fatal: int = fatal) -> Callable[..., Any]:
            def call(*args: Any, **keywords: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls > fatal:
                    raise Kill
                return real(*args, **keywords)

            return call

        with monkeypatch.context() as patch:
            for name in ("fsync", "replace", "open"):
                patch.setattr(os, name, lethal(getattr(os, name)))
            patch.setattr(Path, "unlink", lethal(Path.unlink))
            patch.setattr("builtins.open", lethal(open))
            try:
                checkpoint.save(folder, state(2), step=2)
                finished = True
            except Kill:
                finished = False
        found = checkpoint.load(folder)
        assert equal(found, state(1)) or equal(found, state(2))
        seen.add((equal(found, state(2)), finished))
        checkpoint.save(folder, state(3), step=3)
        assert equal(checkpoint.load(folder), state(3))
        assert len(listing(folder)) == 2  # no leavings
    assert seen == {(False, False), (True, False), (True, True)}


def full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, state(1), step=1)
    before, real = listing(tmp_path), os.fsync
    for file in ("arrays-2.safetensors.partial", "checkpoint.json.partial"):

        def fsync(handle: int, fatal: Path = tmp_path / file) -> None:
            full_disk() if fatal.exists() else real(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            with pytest.raises(OutputError, match=r"could not be written \(No space left on device\).*make room"):
                checkpoint.save(tmp_path, state(2), step=2)
        assert listing(tmp_path) == before


def test_a_folder_that_cannot_be_synced_is_no_reason_to_give_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: full_disk() if os.path.isdir(f"/dev/fd/{handle}") else real(handle))
    checkpoint.save(tmp_path, state(2), step=2)
    assert equal(checkpoint.load(tmp_path), state(2))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting a small disk is not permitted here: {error}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    checkpoint.save(small_disk, state(1), step=1)
    before = listing(small_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        checkpoint.save(small_disk, {"large": np.ones(100_000)}, step=2)
    assert listing(small_disk) == before


def test_a_limit_on_the_size_of_files_is_reported(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits on files are a thing of Unix")
    checkpoint.save(tmp_path, state(1), step=1)
    before, limits = listing(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):
            checkpoint.save(tmp_path, {"large": np.ones(100_000)}, step=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert listing(tmp_path) == before


def edit_json(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        head = json.loads((folder / checkpoint.FILE).read_text())
        change(head)
        (folder / checkpoint.FILE).write_text(json.dumps(head))

    return edit


def forge(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """An edit by one who knows how fingerprints are made."""
    return edit_json(lambda head: [change(head), head.update(head_sha256=checkpoint._sha256_of_head(head))])


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def edit_arrays(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        arrays = load_file(arrays_file(folder))
        change(arrays)
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, arrays_file(folder))

    return edit


def edit_bytes(change: Callable[[bytes], bytes], name: str = "arrays") -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = arrays_file(folder) if name == "arrays" else folder / name
        path.write_bytes(change(path.read_bytes()))

    return edit


def test_reading_while_a_run_saves_finds_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, state(1), step=1)
    real = checkpoint._head

    def overtaken(folder: Path) -> dict[str, Any]:
        monkeypatch.setattr(checkpoint, "_head", real)
        head = real(folder)
        checkpoint.save(folder, state(2), step=2)
        return head

    monkeypatch.setattr(checkpoint, "_head", overtaken)
    assert equal(checkpoint.load(tmp_path), state(2))


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "arrays cut short": (edit_bytes(lambda b: b[:-7]), "truncated"),
    "arrays cut in the header": (edit_bytes(lambda b: b[:30]), "truncated or has a wrong header"),
    "arrays empty": (edit_bytes(lambda b: b""), "truncated or has a wrong header"),
    "a wrong header": (edit_bytes(lambda b: b[:8] + b"[" + b[9:]), "wrong header"),
    "a header of absurd length": (edit_bytes(lambda b: b"\xff" * 8 + b[8:]), "wrong header"),
    "arrays gone": (lambda folder: arrays_file(folder).unlink(), "is missing, which checkpoint.json beside it names"),
    "a missing tensor": (edit_arrays(lambda a: a.pop("model/b")), "lacks the tensor 'model/b'"),
    "an extra tensor": (edit_arrays(lambda a: a.update(spy=np.ones(2))), "extra tensor 'spy'"),
    "a wrong shape": (
        edit_arrays(lambda a: a.update({"model/a.W": a["model/a.W"].T})),
        r"'model/a.W' in .* has shape \(5, 3\) instead of \(3, 5\)",
    ),
    "a wrong dtype": (
        edit_arrays(lambda a: a.update({"model/b": a["model/b"].astype(np.float32)})),
        "'model/b' in .* has dtype float32 instead of float64",
    ),
    "a flipped bit": (edit_bytes(lambda b: b[:-1] + bytes([b[-1] ^ 1])), "altered since they were saved"),
    "a newer format": (edit_json(lambda h: h.update(format_version=2)), r"has format 2, .*pip install --upgrade"),
    "another format": (edit_json(lambda h: h.update(format="cake")), "is not a tinygrad_rnn checkpoint"),
    "no format": (edit_json(lambda h: h.clear()), "is not a tinygrad_rnn checkpoint"),
    "another number": (edit_json(lambda h: h["state"].update(numbers=[1])), "altered since they were saved"),
    "another fingerprint": (edit_json(lambda h: h.update(head_sha256="0" * 64)), "altered since they were saved"),
    "one entry more": (edit_json(lambda h: h.update(note="mine")), "altered since they were saved"),
    "a newer format that is otherwise unknown": (
        edit_json(lambda h: [h.pop("head_sha256"), h.pop("state"), h.update(format_version=7)]),
        r"has format 7, .*pip install --upgrade",
    ),
    "a mark that is none": (edit_json(lambda h: h["state"]["model"].update(b={"array of": 5})), "altered"),
    "no state": (edit_json(lambda h: h.pop("state")), "damaged"),
    "a path out of the folder": (edit_json(lambda h: h.update(arrays="../x.safetensors")), "damaged"),
    "JSON cut short": (edit_bytes(lambda b: b[: len(b) // 2], checkpoint.FILE), "truncated or damaged"),
    "JSON nested without end": (edit_bytes(lambda b: b"[" * 100_000, checkpoint.FILE), "damaged"),
    "a forged mark": (forge(lambda h: h["state"]["model"].update(b={"array of": 5})), "damaged"),
    "a forged name": (forge(lambda h: h.update(arrays="a\0b")), "damaged"),
    "no fingerprint of the arrays": (forge(lambda h: h.pop("arrays_sha256")), "damaged"),
    "a state nested beyond Python's depth": (forge(lambda h: h.update(state=nested(900))), "damaged|extra tensor"),
    "JSON not UTF-8": (edit_bytes(lambda b: b"\xff" + b, checkpoint.FILE), "truncated or damaged"),
    "no JSON": (lambda folder: (folder / checkpoint.FILE).unlink(), "there is no checkpoint in"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_every_damage_is_noticed_and_named(tmp_path: Path, damage: str) -> None:
    checkpoint.save(tmp_path, state(), step=3)
    act, says = DAMAGE[damage]
    act(tmp_path)
    with pytest.raises(CheckpointError, match=says):
        checkpoint.load(tmp_path)
