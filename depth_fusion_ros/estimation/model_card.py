"""Model cards: what a weights file is, and the check that it is that file.

A card is JSON beside the weights: ``difuse_net_s.json`` names ``difuse_net_s.safetensors`` and,
where exported, ``difuse_net_s.onnx``, each with its sha256.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from depth_fusion_ros.estimation.sigma_calibration import SigmaCalibration

WEIGHTS_FOLDER = Path(__file__).resolve().parent.parent / "weights"


class ModelError(ValueError):
    """A model that cannot be used; the text names the file, the fault and the remedy."""


class FileEntry(BaseModel):
    """One file of a model: name (in the card's folder) and sha256 of its content."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str
    sha256: str


class ModelCard(BaseModel):
    """What is known of a set of weights.

    Attributes:
        name, version, licence, date: of the weights.
        network: "difuse_net" or "difuse_net_s"; architecture: its configuration.
        parameters: count. weights: the safetensors; onnx: the exported graph, if any.
        training_data, training: how they were made (command, seed, steps, hardware).
        accuracy: measured results, each naming the data it was measured on.
        valid_range: limits of what was trained on (depth, blur, disparity).
        sigma_scale: factor that turns the network's Laplace scale into one standard deviation
            that was measured to hold; sigma_calibration: the map that does it better, if there
            is one (`SigmaCalibration.to_dict`), with the shares that were measured.
        input_multiple_px: height and width are padded to multiples of this.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    version: str
    licence: str
    date: str
    network: str
    architecture: dict[str, Any]
    parameters: int
    weights: FileEntry
    onnx: FileEntry | None = None
    training_data: str
    training: dict[str, Any]
    accuracy: list[dict[str, Any]]
    valid_range: dict[str, Any]
    sigma_scale: float
    sigma_calibration: dict[str, Any] | None = None
    input_multiple_px: int

    @field_validator("sigma_calibration")
    @classmethod
    def _is_a_map(cls, values: dict[str, Any] | None) -> dict[str, Any] | None:
        if values is not None:
            SigmaCalibration.from_dict(values)
        return values

    @property
    def sigma(self) -> SigmaCalibration:
        """How the network's scale becomes one standard deviation."""
        if self.sigma_calibration is None:
            return SigmaCalibration.factor(self.sigma_scale)
        return SigmaCalibration.from_dict(self.sigma_calibration)

    @property
    def model_id(self) -> str:
        """"<name>@<first eight digits of the weights' sha256>"."""
        return f"{self.name}@{self.weights.sha256[:8]}"


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def shipped_models() -> list[str]:
    """Names of the models in the package's weights folder."""
    return sorted(p.stem for p in WEIGHTS_FOLDER.glob("*.json"))


def find_card(model: str) -> Path:
    """Resolve a shipped name, or the path of a card or of weights that lie beside their card.

    Raises:
        ModelError: empty, unknown or missing; the text says what can be given.
    """
    choices = ", ".join(shipped_models()) or "none"
    if not model:
        raise ModelError(
            f"model.path is empty: give the name of shipped weights ({choices}), or the path of "
            "a model card (.json)")
    if model in shipped_models():
        return WEIGHTS_FOLDER / f"{model}.json"
    path = Path(model).expanduser()
    if path.suffix in (".safetensors", ".onnx"):
        path = path.with_suffix(".json")
    if not path.is_file():
        raise ModelError(
            f"model.path = {model!r}: no shipped weights of that name ({choices}) and no model "
            f"card at {path}; weights need their card (.json) beside them")
    return path


def load_card(path: Path) -> ModelCard:
    """Read and validate a card.

    Raises:
        ModelError: not readable, not JSON, or a field is missing or unknown.
    """
    try:
        return ModelCard.model_validate_json(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"model card {path}: cannot be read ({error})") from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:4])
        raise ModelError(f"model card {path}: not a valid card ({faults}); "
                         "take the card that came with the weights") from error


def checked_file(card_path: Path, entry: FileEntry, expected_sha256: str = "") -> Path:
    """Path of a model file after checking its content.

    Args:
        card_path: the card; the file lies in its folder.
        entry: name and sha256 from the card.
        expected_sha256: what the user demands (`model.sha256`); "" = the card's word is enough.

    Raises:
        ModelError: missing, or its sha256 is not the card's or not the demanded one.
    """
    path = card_path.parent / entry.file
    if not path.is_file():
        raise ModelError(f"model file {path}: missing; the card {card_path.name} names it, "
                         "restore it beside the card")
    actual = sha256_of(path)
    if actual != entry.sha256:
        raise ModelError(
            f"model file {path}: sha256 is {actual[:16]}…, the card says {entry.sha256[:16]}…: "
            "corrupt or not the file that was published; fetch it again")
    if expected_sha256 and actual != expected_sha256.lower():
        raise ModelError(
            f"model file {path}: sha256 is {actual[:16]}…, model.sha256 demands "
            f"{expected_sha256[:16]}…: another version; correct model.sha256 or the path")
    return path
