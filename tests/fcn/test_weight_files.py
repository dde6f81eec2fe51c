"""Every kind of file gives the same arrays, and a bad one is refused with a reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fcn.errors import WeightsError
from fcn.weight_files import read_arrays

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["npz", "safetensors", "ckpt", "pth"]


def arrays():
    rng = np.random.default_rng(0)
    return {
        "features.0.weight": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "features.0.bias": rng.normal(size=4).astype(np.float16),
        "features.1.num_batches_tracked": np.array(7),
    }


def write(path: Path, values) -> Path:
    kind = path.suffix[1:]
    if kind == "npz":
        np.savez(path, **values)
    elif kind == "safetensors":
        from safetensors.numpy import save_file

        save_file(values, path)
    elif kind == "ckpt":
        ms = pytest.importorskip("mindspore")
        ms.save_checkpoint([{"name": n, "data": ms.Tensor(v)} for n, v in values.items()], str(path))
    else:
        torch = pytest.importorskip("torch", reason="torch, which reads .pth, is not installed")
        torch.save({n: torch.from_numpy(v) for n, v in values.items()}, path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_arrays(tmp_path, kind):
    found = read_arrays(write(tmp_path / f"x.{kind}", arrays()))
    assert set(found) == set(arrays())
    for name, array in arrays().items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == (np.float32 if array.dtype.kind == "f" else array.dtype)


def test_bfloat16_is_read(tmp_path):
    """As files of the last years are kept; NumPy has no such type."""
    from safetensors import TensorSpec, serialize_file

    values = np.array([1.0, -2.5, 3e-5], np.float32)
    upper = np.ascontiguousarray((values.view(np.uint32) >> 16).astype(np.uint16))
    spec = TensorSpec(dtype="bfloat16", shape=[3], data_ptr=upper.ctypes.data, data_len=upper.nbytes)
    serialize_file({"x": spec}, tmp_path / "x.safetensors")
    np.testing.assert_allclose(read_arrays(tmp_path / "x.safetensors")["x"], values, rtol=2**-7)


def test_a_training_scripts_checkpoint_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch, which reads .pth, is not installed")
    state = {"features.module.0.weight": torch.ones(2, 2, dtype=torch.bfloat16)}
    torch.save({"epoch": 3, "arch": "vgg16_bn", "state_dict": state, "best_acc1": 0.7}, tmp_path / "x.pth")
    found = read_arrays(tmp_path / "x.pth")
    assert list(found) == ["features.0.weight"] and found["features.0.weight"].dtype == np.float32


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_data_parallel_training_are_those_of_the_network(tmp_path, kind):
    names = ["module.features.0.weight", "features.module.1.weight", "submodule.weight", "module"]
    found = read_arrays(write(tmp_path / f"x.{kind}", dict.fromkeys(names, np.zeros(2, np.float32))))
    assert set(found) == {"features.0.weight", "features.1.weight", "submodule.weight", "module"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0, 0.3, 0.97])
def test_a_file_that_was_cut_short_is_refused(tmp_path, kind, kept):
    path = write(tmp_path / f"x.{kind}", arrays())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(WeightsError, match=f"{path}: "):
        read_arrays(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_refused(tmp_path, kind):
    if kind == "pth":
        pytest.importorskip("torch", reason="torch, which reads .pth, is not installed")
    (tmp_path / f"x.{kind}").write_text("<html>not found</html>")
    with pytest.raises(WeightsError, match="read"):
        read_arrays(tmp_path / f"x.{kind}")


class Harmful:
    def __reduce__(self):
        return (open, ("harmed", "w"))


def test_a_pickle_that_would_run_something_is_not_run(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="torch, which reads .pth, is not installed")
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Harmful()}, "x.pth")
    with pytest.raises(WeightsError, match="not a readable PyTorch weights file"):
        read_arrays(Path("x.pth"))
    assert not Path("harmed").exists()


def test_a_pickle_in_an_npz_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", x=np.array([Harmful()], object))
    with pytest.raises(WeightsError, match=r"not a readable \.npz file"):
        read_arrays(Path("x.npz"))
    assert not Path("harmed").exists()


def test_without_torch_the_remedy_is_told(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"")
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from fcn.weight_files import read_arrays\n"
        "read_arrays(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x.pth")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "WeightsError" in done.stderr and "pip install torch" in done.stderr


def test_folders_missing_files_and_unknown_kinds_are_refused(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"\x89HDF")
    for name, expected in [
        (".", "is a folder"),
        ("none.npz", "no such file"),
        ("x.h5", "expected .npz, .safetensors, .ckpt, .pth"),
    ]:
        with pytest.raises(WeightsError, match=expected):
            read_arrays(tmp_path / name)


def test_no_framework_is_imported_for_other_files(tmp_path):
    write(tmp_path / "x.npz", arrays())
    write(tmp_path / "x.safetensors", arrays())
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from fcn.weight_files import read_arrays\n"
        "[read_arrays(Path(file)) for file in sys.argv[1:]]\n"
        "sys.exit('mindspore' in sys.modules or 'torch' in sys.modules)"
    )
    files = [str(tmp_path / "x.npz"), str(tmp_path / "x.safetensors")]
    assert subprocess.run([sys.executable, "-c", program, *files], cwd=ROOT).returncode == 0
