"""Names, files and downloads become models, or errors that say what to do."""

import functools
import http.server
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from mosam_ros.mosam import checkpoints
from mosam_ros.mosam.checkpoints import (
    MODELS,
    CheckpointError,
    DeviceError,
    ModelNameError,
    build_model,
    load_config,
    load_model,
    read_metadata,
    save_weights,
)

ROOT = Path(__file__).parents[1]
TINY = "sam2.1_hiera_tiny"
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


def build_seeded(name: str, image_size: int):
    torch.manual_seed(0)
    return build_model(name, image_size)


def encode(model, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        return model.encode_image(torch.randn(1, 3, size, size, generator=generator)).coarse


@pytest.fixture(scope="module")
def tiny():
    return build_seeded(TINY, 256)


@pytest.fixture(scope="module")
def tiny_file(tiny, tmp_path_factory) -> Path:
    """A file in Meta's layout."""
    path = tmp_path_factory.mktemp("meta") / "sam2.1_hiera_tiny.pt"
    torch.save({"model": tiny.base.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def nano():
    return build_seeded("nano", 256)


@pytest.fixture(scope="module")
def nano_file(nano, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ours") / "nano.pt"
    save_weights(path, nano.base.state_dict(), {"seed": 0, "note": "größer"})
    return path


# --- names and configurations


def test_unknown_names_are_refused_with_the_known_ones():
    for call in (load_config, build_model, load_model):
        with pytest.raises(ModelNameError, match="'nanO'.* nano, .*sam2.1_hiera_large"):
            call("nanO")


def test_every_model_has_a_configuration():
    own_sizes = {name: load_config(name).model.image_size for name in MODELS}
    assert own_sizes.pop("nano") == 256
    assert set(own_sizes.values()) == {1024}


@pytest.mark.parametrize("size", [256, 512])
def test_hiera_runs_at_smaller_sizes_with_the_same_weights(tiny, size):
    model = build_model(TINY, size)
    model.base.load_state_dict(tiny.base.state_dict())
    features = encode(model, size)
    assert features.shape == (1, 256, size // 16, size // 16)
    assert features.isfinite().all()


# --- loading


def test_bundled_weights_load():
    if not (checkpoints.WEIGHTS_FOLDER / "nano.pt").is_file():
        pytest.skip("no bundled weights here")
    loaded = load_model()
    assert loaded.name == "nano"
    assert encode(loaded.model, loaded.model.image_size).isfinite().all()


def test_saved_weights_give_the_same_model(nano, tmp_path):
    nano.base.load_state_dict({k: v.half() for k, v in nano.base.state_dict().items()})
    save_weights(tmp_path / "weights.pt", nano.base.state_dict(), {})
    loaded = load_model("nano", str(tmp_path / "weights.pt"), device="cpu")
    assert torch.equal(encode(loaded.model, 256), encode(nano, 256))
    assert loaded.precision == torch.float32
    base = loaded.model.base
    assert not base.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in base.parameters())


def test_a_file_in_metas_layout_loads(tiny, tiny_file):
    loaded = load_model(TINY, tiny_file, device="cpu", image_size=256)
    state = loaded.model.base.state_dict()
    for key, value in tiny.base.state_dict().items():
        assert torch.equal(state[key], value)


def test_bf16_runs_in_bf16(nano_file):
    loaded = load_model("nano", nano_file, device="cpu", precision="bf16")
    with loaded.autocast():
        assert encode(loaded.model, 256).dtype == torch.bfloat16


def test_the_image_size_is_checked(nano_file):
    with pytest.raises(ValueError, match="multiple of 32"):
        load_model("nano", nano_file, image_size=100)


# --- devices


def test_fp16_on_the_cpu_is_refused():
    with pytest.raises(DeviceError, match="fp32 or bf16"):
        load_model("nano", device="cpu", precision="fp16")


def test_unknown_devices_and_precisions_are_refused():
    for device in ("gpu", "mps", ""):
        with pytest.raises(DeviceError, match="cpu, cuda"):
            load_model("nano", device=device)
    with pytest.raises(DeviceError, match="fp32, fp16, bf16 or auto"):
        load_model("nano", precision="half")


@NO_CUDA
def test_cuda_without_cuda_is_refused(nano_file):
    with pytest.raises(DeviceError, match="no CUDA device.*cpu or auto"):
        load_model("nano", device="cuda")
    assert load_model("nano", nano_file).device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
def test_cuda_runs_in_fp16(nano_file):
    loaded = load_model("nano", nano_file)
    assert (loaded.device.type, loaded.precision) == ("cuda", torch.float16)
    with loaded.autocast(), torch.inference_mode():
        images = torch.zeros(1, 3, 256, 256, device="cuda")
        assert loaded.model.encode_image(images).coarse.dtype == torch.float16
    with pytest.raises(DeviceError, match="cuda:0 to"):
        load_model("nano", nano_file, device="cuda:99")


# --- files that cannot be used


def test_missing_files_are_named(tmp_path):
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(CheckpointError, match=f"{re.escape(str(path))} .*`checkpoint`"):
            load_model("nano", path)


def test_missing_bundled_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "WEIGHTS_FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match="nano.pt are missing.*`checkpoint`"):
        load_model("nano")


def damage(content: bytes, kind: str) -> bytes:
    middle = len(content) // 2
    flipped = bytes([content[middle] ^ 0xFF])
    return {
        "half": content[:middle],
        "end cut off": content[:-10],
        "one byte changed": content[:middle] + flipped + content[middle + 1 :],
        "noise": os.urandom(4096),
        "zeros": bytes(4096),
        "empty": b"",
        "web page": b"<html>404 Not Found</html>",
    }[kind]


@pytest.mark.parametrize(
    "kind", ["half", "end cut off", "one byte changed", "noise", "zeros", "empty", "web page"]
)
def test_damaged_files_are_refused(kind, nano_file, tmp_path):
    path = tmp_path / "damaged.pt"
    path.write_bytes(damage(nano_file.read_bytes(), kind))
    link = tmp_path / "link.pt"
    link.symlink_to(path)
    size = path.stat().st_size
    with pytest.raises(CheckpointError, match=rf"damaged.pt \({size} bytes\).*delete it"):
        load_model("nano", link)


class Malicious:
    """Runs a command when it is unpickled the usual way."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_code_in_a_file_is_not_run(tmp_path):
    trace = tmp_path / "was here"
    torch.save({"model": Malicious(trace)}, tmp_path / "archive.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"model": Malicious(trace)}))
    with pytest.raises(CheckpointError, match="could run code"):
        load_model("nano", tmp_path / "archive.pt")
    with pytest.raises(CheckpointError, match="not a PyTorch checkpoint"):
        load_model("nano", tmp_path / "pickle.pt")
    assert not trace.exists()


def test_files_with_other_content_are_refused(tmp_path):
    path = tmp_path / "other.pt"
    for content in ([1, 2], {"weights": {}}, {"model": 3}, {"model": {"epoch": 3}}):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match="is not a checkpoint.*under `model`"):
            load_model("nano", path)


def test_another_models_file_is_refused_by_its_name(nano_file):
    with pytest.raises(CheckpointError, match="does not fit") as caught:
        load_model(TINY, nano_file, image_size=256)
    message = str(caught.value)
    assert TINY in message
    assert "missing" in message and "mis-shaped" in message
    assert "it fits nano;" in message


def test_other_keys_and_shapes_are_named(nano, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "MODELS", {"nano": MODELS["nano"]})
    weights = dict(nano.base.state_dict())
    first, second, third = list(weights)[:3]
    weights["extra"] = weights.pop(first)
    weights[second] = torch.zeros(7, 5)
    save_weights(tmp_path / "odd.pt", weights, {})
    with pytest.raises(CheckpointError) as caught:
        load_model("nano", tmp_path / "odd.pt")
    message = str(caught.value)
    assert "1 missing, 1 unexpected, 1 mis-shaped weights" in message
    assert first in message and "extra" in message and f"{second} is 7x5, not" in message
    assert third not in message
    assert "fits none of the known models" in message


# --- saving


def test_weights_are_saved_in_half_precision_with_metadata(nano_file, tiny_file):
    content = torch.load(nano_file, weights_only=True)
    dtypes = {v.dtype for v in content["model"].values()}
    assert torch.float16 in dtypes and torch.float32 not in dtypes
    assert read_metadata(nano_file) == {"seed": 0, "note": "größer"}
    assert read_metadata(tiny_file) == {}


def test_a_failed_save_keeps_the_old_file(nano_file, tmp_path):
    path = tmp_path / "weights.pt"
    save_weights(path, {"a": torch.ones(3)}, {"run": 1})
    with pytest.raises(ValueError, match="weight a is not finite"):
        save_weights(path, {"a": torch.tensor([1e6])}, {"run": 2})
    with pytest.raises(TypeError):
        save_weights(path, {"a": torch.ones(3)}, {"run": object()})
    assert read_metadata(path) == {"run": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_metadata_of_other_kinds_is_refused(tmp_path):
    path = tmp_path / "odd.pt"
    for metadata in ("{", "[1]", 3):
        torch.save({"model": {}, "metadata": metadata}, path)
        with pytest.raises(CheckpointError, match="metadata"):
            read_metadata(path)


# --- downloading


LOAD = f"""
from mosam_ros.mosam.checkpoints import load_model
loaded = load_model({TINY!r}, device="cpu", image_size=256)
print(float(sum(p.double().sum() for p in loaded.model.base.parameters())))
"""


def load_in_another_process(cache: Path, address: str) -> subprocess.CompletedProcess:
    """Download and load, as the Hub's client reads its address when it is imported."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    settings = {"HF_HUB_CACHE": str(cache), "HF_ENDPOINT": address, "NO_PROXY": "127.0.0.1"}
    show_progress = {"TQDM_POSITION": "-1"}  # although standard error is no terminal
    return subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=ROOT,
        env=inherited | settings | show_progress,
        capture_output=True,
        text=True,
        timeout=400,
        check=True,
    )


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Path:
    """The empty cache of a Hub's client that is not allowed to use the network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


class Hub(http.server.BaseHTTPRequestHandler):
    """A Hub that serves one file and breaks off in the middle unless asked for a range."""

    def __init__(self, file: Path, requests: list, *args) -> None:
        self.file, self.requests = file, requests
        super().__init__(*args)

    def log_message(self, *args) -> None:
        """Say nothing."""

    def answer(self) -> bytes:
        if self.path != f"/facebook/sam2.1-hiera-tiny/resolve/main/{TINY}.pt":
            self.send_error(404)
            return b""
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        self.requests.append((self.command, start))
        content = self.file.read_bytes()
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"0123456789abcdef"')
        self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        return body if start else body[: len(body) // 2]

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.wfile.write(self.answer())


@pytest.fixture
def hub(tiny_file):
    """The address of a local Hub and the (method, first byte) of the requests it got."""
    requests: list[tuple[str, int]] = []
    handler = functools.partial(Hub, tiny_file, requests)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_download_is_resumed_and_cached(hub, tiny, tiny_file, offline):
    address, requests = hub
    process = load_in_another_process(offline, address)
    expected = float(sum(p.detach().double().sum() for p in tiny.base.parameters()))
    assert float(process.stdout) == pytest.approx(expected, rel=1e-12)
    assert f"{TINY}.pt: 100%" in process.stderr
    gets = [start for method, start in requests if method == "GET"]
    assert len(gets) == 2
    assert gets[0] == 0 < gets[1] <= tiny_file.stat().st_size // 2

    load_model(TINY, device="cpu", image_size=256)  # offline


def test_a_failed_download_says_what_to_do(offline):
    with pytest.raises(CheckpointError, match=f"{TINY}.pt could not be .* by hand .*`checkpoint`"):
        load_model(TINY, device="cpu")
    assert not list(offline.rglob("*.pt"))
