"""Named models: their configuration and their weights, bundled, from a file, or downloaded.

    loaded = load_model("nano")
    with torch.inference_mode(), loaded.autocast():
        features = loaded.model.encode_image(loaded.model.normalize(frames))

A checkpoint file is what `torch.save` wrote of a dictionary with the state dict under `model`, as
Meta's SAM 2.1 files are; ours also hold `metadata`, a JSON string that says how they were made.
Files are read without running code from them.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from mosam_ros.mosam.motion.encoders import MotionEncoders
from mosam_ros.mosam.sam2_model import Sam2Model

CONFIG_FOLDER = Path(__file__).parent / "configs"
WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class ModelNameError(ValueError):
    """No model of that name; the message lists the known ones."""


class CheckpointError(ValueError):
    """A weights file that cannot be had or used; the message says why and what to do."""


class DeviceError(ValueError):
    """A device or precision that this machine cannot run; the message says what to use."""


@dataclass(frozen=True)
class BundledModel:
    """A model that comes with this package.

    Attributes:
        config: file name of the configuration.
        weights: file name of the weights.
        motion_weights: file name of the weights of its motion encoders.
        max_zoom: how closely it was trained to look at small targets.
    """

    config: str
    weights: str
    motion_weights: str
    max_zoom: float

    def config_file(self) -> Path:
        """Path of the configuration."""
        return CONFIG_FOLDER / self.config

    def weights_file(self) -> Path:
        """Path of the weights.

        Raises:
            CheckpointError: they are missing.
        """
        path = WEIGHTS_FOLDER / self.weights
        if not path.is_file():
            raise CheckpointError(
                f"the bundled weights {path} are missing: the installation is incomplete. Install "
                f"mosam_ros again, or pass the path of a weights file as `checkpoint`"
            )
        return path


@dataclass(frozen=True)
class HubModel:
    """A model whose configuration comes with sam2 and whose weights are on the Hugging Face Hub.

    Attributes:
        config: file name of the configuration.
        repository: of the weights.
        weights: file name of the weights in the repository.
        max_zoom: 1, it was trained on whole frames.
    """

    config: str
    repository: str
    weights: str
    max_zoom: float = 1.0

    def config_file(self) -> Path:
        """Path of the configuration."""
        return Path(str(files("sam2").joinpath("configs", "sam2.1", self.config)))

    def weights_file(self) -> Path:
        """Path of the weights in the Hub's local cache; downloaded, with a progress bar, unless
        they are there. A cached file needs no network. A broken connection is resumed.

        Raises:
            CheckpointError: the download failed.
        """
        try:
            from huggingface_hub import hf_hub_download, try_to_load_from_cache

            cached = try_to_load_from_cache(self.repository, self.weights)
            if isinstance(cached, str):
                return Path(cached)
            return Path(hf_hub_download(self.repository, self.weights))
        except Exception as error:  # HTTP, TLS, proxy, disk: of many unrelated classes
            raise CheckpointError(
                f"{self.weights} could not be downloaded from the Hugging Face repository "
                f"{self.repository} ({_summary(error)}). Try again with a network connection, or "
                f"download that file by hand on any machine, copy it here and pass its path as "
                f"`checkpoint`"
            ) from error


RAFT_URL = "https://download.pytorch.org/models/raft_small_C_T_V2-01064c6d.pth"
"""torchvision's RAFT weights; as with all its files the name ends with the start of the SHA-256."""


def load_raft_weights() -> dict[str, Tensor]:
    """The state dict of torchvision's `raft_small`, downloaded beside the Hub's models, with a
    progress bar, unless it is there. The file's SHA-256 is compared every time.

    Raises:
        CheckpointError: the download failed, or the file is damaged.
    """
    from huggingface_hub.constants import HF_HOME

    path = Path(HF_HOME) / "torchvision" / RAFT_URL.rpartition("/")[2]
    expected = path.stem.rpartition("-")[2]
    if not path.is_file():
        _download(RAFT_URL, path, expected)
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(expected):
        raise _damaged(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _download(url: str, path: Path, sha256_start: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), sha256_start)
    except Exception as error:  # HTTP, TLS, proxy, disk, checksum: of many unrelated classes
        raise CheckpointError(
            f"{url} could not be downloaded ({_summary(error)}). Try again with a network "
            f"connection, or download that file by hand on any machine and copy it to {path}"
        ) from error


MODELS: Mapping[str, BundledModel | HubModel] = {
    "nano": BundledModel("nano.yaml", "nano.pt", "nano_motion.pt", max_zoom=3.5),
    "sam2.1_hiera_tiny": HubModel(
        "sam2.1_hiera_t.yaml", "facebook/sam2.1-hiera-tiny", "sam2.1_hiera_tiny.pt"
    ),
    "sam2.1_hiera_small": HubModel(
        "sam2.1_hiera_s.yaml", "facebook/sam2.1-hiera-small", "sam2.1_hiera_small.pt"
    ),
    "sam2.1_hiera_base_plus": HubModel(
        "sam2.1_hiera_b+.yaml", "facebook/sam2.1-hiera-base-plus", "sam2.1_hiera_base_plus.pt"
    ),
    "sam2.1_hiera_large": HubModel(
        "sam2.1_hiera_l.yaml", "facebook/sam2.1-hiera-large", "sam2.1_hiera_large.pt"
    ),
}
"""The models by name."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        name: in `MODELS`.
        model: in evaluation mode, without gradients, float32 weights on `device`.
        device: where it runs.
        precision: what it computes in: float32, float16 or bfloat16.
        max_zoom: how closely it may look at small targets (`ViewConfig`); 1 for models that were
            trained on whole frames.
    """

    name: str
    model: Sam2Model
    device: torch.device
    precision: torch.dtype
    max_zoom: float = 1.0

    def autocast(self) -> AbstractContextManager[Any]:
        """A fresh context in which to run a frame, so that it is computed in `precision`."""
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.precision)


def load_config(name: str) -> DictConfig:
    """Read a model's configuration, with sam2's `model:` at its top.

    Raises:
        ModelNameError: unknown name.
    """
    config = OmegaConf.load(_find(name).config_file())
    assert isinstance(config, DictConfig)
    return config


def build_model(name: str, image_size: int | None = None) -> Sam2Model:
    """Build a model with fresh weights on the CPU.

    Args:
        name: in `MODELS`.
        image_size: side of the model's square input in pixels, a multiple of 32; None is the
            model's own.

    Raises:
        ModelNameError: unknown name.
        ValueError: `image_size` is no positive multiple of 32.
    """
    return Sam2Model.from_config(load_config(name), image_size)


def load_model(
    name: str = "nano",
    checkpoint: str | Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    image_size: int | None = None,
) -> LoadedModel:
    """Load a model with its weights, ready to run.

    Args:
        name: in `MODELS`.
        checkpoint: path of a weights file; None or empty is the model's own, which is downloaded
            on first use if it is not bundled.
        device: `cpu`, `cuda`, `cuda:1`, …, or `auto`: CUDA where there is one.
        precision: `fp32`, `fp16`, `bf16`, or `auto`: fp32 on the CPU, fp16 on CUDA.
        image_size: side of the model's square input in pixels, a multiple of 32; None is the
            model's own. Smaller is faster and coarser; the weights are the same.

    Raises:
        ModelNameError: unknown name.
        DeviceError: the machine has no such device, or the device cannot compute so.
        CheckpointError: the weights are missing, damaged, not for this model, or the download
            failed.
        ValueError: `image_size` is no positive multiple of 32.
    """
    source = _find(name)
    chosen_device = choose_device(device)
    chosen_precision = choose_precision(precision, chosen_device)
    path = Path(checkpoint).expanduser() if checkpoint else source.weights_file()
    weights = _read(path)["model"]
    model = build_model(name, image_size)
    _require_fit(name, model, weights, path)
    model.base.load_state_dict(weights)
    model.base.eval().requires_grad_(False)
    _move(model, chosen_device)
    return LoadedModel(name, model, chosen_device, chosen_precision, source.max_zoom)


def load_motion_encoders(
    loaded: LoadedModel, checkpoint: str | Path | None = None
) -> MotionEncoders:
    """Load the trained motion encoders for a model.

    Args:
        loaded: the model.
        checkpoint: path of their weights; None or empty is those that come with the model.

    Raises:
        CheckpointError: the model comes with none, or the file is missing, damaged or made for
            another model.
    """
    path = Path(checkpoint).expanduser() if checkpoint else _motion_weights(loaded.name)
    weights = _read(path)["model"]
    encoders = MotionEncoders(loaded.model.width)
    try:
        encoders.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not hold motion encoders for the model {loaded.name}: train them with "
            f"`mosam train motion --model {loaded.name} --data synthetic`, or use linear key "
            f"points and dis flow"
        ) from error
    return encoders.eval().requires_grad_(False).to(loaded.device)


def _motion_weights(name: str) -> Path:
    source = _find(name)
    path = WEIGHTS_FOLDER / source.motion_weights if isinstance(source, BundledModel) else None
    if path is None or not path.is_file():
        raise CheckpointError(
            f"the model {name} comes without trained motion encoders: train them with "
            f"`mosam train motion --model {name} --data synthetic`, or use linear key points and "
            f"dis or raft flow"
        )
    return path


def choose_device(device: str) -> torch.device:
    """The device by its name: `cpu`, `cuda`, `cuda:1`, … or `auto`.

    Raises:
        DeviceError: unknown, or not on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise _unknown_device(device) from error
    if chosen.type not in ("cpu", "cuda"):
        raise _unknown_device(device)
    if chosen.type == "cuda":
        _require_cuda(chosen)
    return chosen


def _unknown_device(device: str) -> DeviceError:
    return DeviceError(f"unknown device {device!r}: use cpu, cuda, cuda:1, … or auto")


def _require_cuda(device: torch.device) -> None:
    if not torch.cuda.is_available():
        build = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        raise DeviceError(
            f"device {device} was asked for, but PyTorch finds no CUDA device (PyTorch "
            f"{torch.__version__} is built {build}). Use cpu or auto, or install NVIDIA's driver "
            f"and a PyTorch built for CUDA"
        )
    count = torch.cuda.device_count()
    if device.index is not None and device.index >= count:
        raise DeviceError(
            f"device {device} was asked for, but there are {count} CUDA devices: use cuda:0 to "
            f"cuda:{count - 1}, or auto"
        )


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """The precision by its name: `fp32`, `fp16`, `bf16` or `auto`.

    Raises:
        DeviceError: unknown, or nothing for the device.
    """
    if precision == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if precision not in PRECISIONS:
        raise DeviceError(f"unknown precision {precision!r}: use {', '.join(PRECISIONS)} or auto")
    if precision == "fp16" and device.type == "cpu":
        raise DeviceError("precision fp16 needs CUDA: on the CPU use fp32 or bf16")
    if precision == "bf16" and device.type == "cuda" and not _has_bfloat16(device):
        name = torch.cuda.get_device_name(device)
        raise DeviceError(f"{name} cannot compute in bf16: use fp16 or fp32")
    return PRECISIONS[precision]


def _has_bfloat16(device: torch.device) -> bool:
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def _move(model: Sam2Model, device: torch.device) -> None:
    try:
        model.base.to(device)
    except RuntimeError as error:
        raise DeviceError(
            f"the model could not be put on {device} ({_summary(error)}): free its memory, or use "
            f"a smaller model or another device"
        ) from error


def save_weights(path: str | Path, weights: Mapping[str, Tensor], metadata: Mapping) -> None:
    """Write a checkpoint in half precision, at once: the file is the old or the new one, never
    half of it.

    Args:
        path: of the file.
        weights: a state dict.
        metadata: how the weights were made; anything that JSON can hold.

    Raises:
        ValueError: a weight is not finite in half precision.
    """
    content = {"model": _half(weights), "metadata": json.dumps(metadata)}
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        torch.save(content, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _half(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    half = {}
    for key, value in weights.items():
        value = value.detach().cpu()
        half[key] = value.half() if value.is_floating_point() else value
        if not half[key].isfinite().all():
            raise ValueError(f"weight {key} is not finite in half precision")
    return half


def read_metadata(path: str | Path) -> dict[str, Any]:
    """How a checkpoint was made; empty for files without metadata, such as Meta's.

    Raises:
        CheckpointError: the file is missing, damaged or no checkpoint.
    """
    path = Path(path).expanduser()
    try:
        metadata = json.loads(_read(path).get("metadata", "{}"))
    except (TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"the metadata of {path} is no JSON ({_summary(error)})") from error
    if not isinstance(metadata, dict):
        raise CheckpointError(f"the metadata of {path} is no JSON object")
    return metadata


def _find(name: str) -> BundledModel | HubModel:
    if name not in MODELS:
        raise ModelNameError(f"unknown model {name!r}: use {', '.join(MODELS)}")
    return MODELS[name]


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint's dictionary, whose `model` is a state dict, onto the CPU."""
    _require_whole(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # PyTorch raises many unrelated classes here
        raise CheckpointError(
            f"{path} is not a checkpoint: it holds other things than weights. It was not loaded, "
            f"for that could run code hidden in it. Pass the path of a checkpoint made for one of "
            f"the models {', '.join(MODELS)}"
        ) from error
    if not _is_checkpoint(content):
        raise CheckpointError(
            f"{path} is not a checkpoint: it does not hold a dictionary with the weights under "
            f"`model`. Pass the path of a checkpoint made for one of the models "
            f"{', '.join(MODELS)}"
        )
    return content


def _require_whole(path: Path) -> None:
    """Refuse a file that is missing or damaged; PyTorch itself compares no checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except OSError as error:
        raise CheckpointError(
            f"cannot read the checkpoint {path} ({error.strerror or _summary(error)}). Pass the "
            f"path of an existing file as `checkpoint`, or none to use the model's own weights"
        ) from error
    except Exception as error:  # whatever zipfile meets in arbitrary bytes
        raise _damaged(path) from error
    if damaged is not None:
        raise _damaged(path)


def _damaged(path: Path) -> CheckpointError:
    real = path.resolve()  # deleting a link into the download cache would not be enough
    return CheckpointError(
        f"{real} ({real.stat().st_size} bytes) is truncated, damaged, or not a PyTorch "
        f"checkpoint: delete it and download or copy it again"
    )


def _is_checkpoint(content: object) -> bool:
    weights = content.get("model") if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        return False
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in weights.items())


def _require_fit(name: str, model: Sam2Model, weights: dict[str, Tensor], path: Path) -> None:
    problems = _differences(model, weights)
    if not any(problems.values()):
        return
    counts = ", ".join(f"{len(keys)} {kind}" for kind, keys in problems.items() if keys)
    first = "; ".join([key for keys in problems.values() for key in keys][:3])
    fitting = next((other for other in MODELS if other != name and _fits(other, weights)), None)
    advice = f"it fits {fitting}" if fitting else "it fits none of the known models"
    raise CheckpointError(
        f"{path} does not fit the model {name}: {counts} weights (first: {first}). By its "
        f"shapes {advice}; choose the model and the checkpoint that belong together"
    )


def _differences(model: Sam2Model, weights: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """What keeps the weights from being loaded: for each kind of problem the keys."""
    expected = model.base.state_dict()
    shared = [key for key in expected if key in weights]
    return {
        "missing": [key for key in expected if key not in weights],
        "unexpected": [key for key in weights if key not in expected],
        "mis-shaped": [
            f"{key} is {_shape(weights[key])}, not {_shape(expected[key])}"
            for key in shared
            if weights[key].shape != expected[key].shape
        ],
    }


def _fits(name: str, weights: Mapping[str, Tensor]) -> bool:
    return not any(_differences(build_model(name), weights).values())


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _summary(error: BaseException) -> str:
    """The error's class and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
