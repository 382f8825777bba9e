"""One performer's deltas as a version of a registered model: what is in it, how it is called and how it is loaded.

Safetensors and JSON only. No flavour of MLflow's own loads it: those unpickle.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dpscale.data.checkpoint import write_json
from dpscale.tracking.lane import Refused
from dpscale.tracking.names import model_name, safe_key, safe_text
from dpscale.tracking.tracker import Event

CHAMPION = "champion"
"""Alias of the newest version, unless somebody gave it to another one."""

ARTIFACTS = "model"
"""Folder of the run's artifacts that holds a folder for each version: a performer's run may make several."""

TEXT_CHARACTERS = 5000
_SIGNATURE = {
    "inputs": [
        ("keypoints", "float32", [-1, 18, 3]),
        ("iuv", "uint8", [-1, -1, -1, 3]),
        ("reference", "uint8", [-1, -1, 3]),
    ],
    "outputs": [("frames", "uint8", [-1, -1, -1, 3])],
}
"""Poses of N frames and one picture of the performer in, N frames out (dpscale.data.types.Pose)."""

_DESCRIPTION = """\
What finetuning on **{performer}** changed of the base model ({preset}): `denoiser.safetensors` (poses to latents) and
`decoder.safetensors` (latents to pixels), with the settings (`config.json`) and what training said (`card.json`).

In: `keypoints` [N, 18, 3] (x, y in px, confidence), `iuv` [N, H, W, 3], a `reference` picture [H, W, 3]. Out: `frames` [N, H, W, 3].

    mlflow artifacts download --artifact-uri "models:/{name}@{champion}" --dst-path model

    from pathlib import Path
    from dpscale.config.load import load
    from dpscale.diffusion.delta import FINETUNED, load_delta
    from dpscale.diffusion.weights import load_model
    folder = Path("model")
    model = load_model(load(folder / "config.json").diffusion)
    for file, part in zip(FINETUNED, (model.denoiser, model.autoencoder)):
        load_delta(folder / file, part)
"""


def register_version(client: Any, experiment: str, run: Any, event: Event) -> None:
    """Uploads the files of a `register` event to `run` and makes them a version, unless one with the same `settings` is there.

    A new version becomes the champion; an event that comes again gives nobody's alias away. Raises Refused where files are missing."""
    name = model_name(experiment, event["performer"])
    version = _version(client, name, event["about"]["settings"])
    if version is None:
        version = _new_version(client, name, run, event)
    if version.tags.get("time_ms") == str(event["time_ms"]) and _is_newer(client, name, version):
        client.set_registered_model_alias(name, CHAMPION, version.version)


def _version(client: Any, name: str, settings: str) -> Any | None:
    """The finished version made with `settings`."""
    found = client.search_model_versions(f"name = '{name}'", max_results=1000)
    return next((version for version in found if version.tags.get("settings") == settings), None)


def _new_version(client: Any, name: str, run: Any, event: Event) -> Any:
    files = [Path(file) for file in event["files"]]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise Refused(f"{', '.join(missing)} is not there any more", certain=True)
    about = event["about"]
    folder_name = f"{ARTIFACTS}/{hashlib.sha256(about['settings'].encode()).hexdigest()[:16]}"
    for file in files:
        client.log_artifact(run.info.run_id, str(file), folder_name)
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "MLmodel", _ml_model(run.info.run_id, folder_name, about, [file.name for file in files]))
        client.log_artifact(run.info.run_id, str(Path(folder) / "MLmodel"), folder_name)
    description = _DESCRIPTION.format(performer=event["performer"], preset=about.get("preset", "see config.json"), name=name, champion=CHAMPION)
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name, {"performer": event["performer"]}, description)
    tags = {safe_key(tag): safe_text(value, TEXT_CHARACTERS) for tag, value in about.items()} | {"time_ms": str(event["time_ms"])}
    source = f"{run.info.artifact_uri}/{folder_name}"
    return client.create_model_version(name, source, run.info.run_id, tags, description=description, await_creation_for=0)


def _is_newer(client: Any, name: str, version: Any) -> bool:
    """Than the champion: a record that is replayed late does not take the alias from a later one."""
    champion = client.get_registered_model(name).aliases.get(CHAMPION)
    if champion is None:
        return True
    return int(client.get_model_version(name, champion).tags.get("time_ms", 0)) < int(version.tags["time_ms"])


def _ml_model(run_id: str, folder_name: str, about: Mapping[str, str], files: Sequence[str]) -> Mapping[str, Any]:
    """MLflow's description of a model. JSON is YAML."""
    return {
        "artifact_path": folder_name,
        "run_id": run_id,
        "flavors": {"dpscale": {"files": list(files), "load": "dpscale.diffusion.delta.load_delta", **about}},
        "signature": {side: json.dumps([_tensor(*tensor) for tensor in tensors]) for side, tensors in _SIGNATURE.items()},
    }


def _tensor(name: str, dtype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}
