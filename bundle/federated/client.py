"""What each site of a federation runs: rounds of distillation under its own teacher, on its own frames.

NVFlare starts it at every site, with the configs of the bundle beside it. The site's folder holds ``datalist.json``
and ``teacher.pt``; results stay there, in ``federated/``. Only weights of the student and its scores leave the site.
"""

from __future__ import annotations

import json
from pathlib import Path

import nvflare.client as flare
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject
from nvflare.apis.dxo import MetaKey

from monai_fetalkd.ultrasound.data import load_datalist
from monai_fetalkd.utils.checkpoints import read_state_dict

HERE = Path(__file__).parent  # at a site, where NVFlare has put the configs of the bundle and settings.json


def check_site(folder: Path, class_names: list[str]) -> None:
    """Check that a site has what it takes to join: frames of the class table, and a teacher."""
    try:
        load_datalist(folder / "datalist.json", class_names)
        read_state_dict(folder / "teacher.pt")
    except (OSError, ValueError) as error:
        raise ValueError(f"The site '{folder.name}' cannot join: {error}") from error


def make_client(
    folder: Path, class_names: list[str], local_epochs: int, overlays: list[str], settings: dict
) -> MonaiAlgo:
    """MONAI's federated client on the bundle, with the frames and the teacher of a site."""
    train = [f"configs/{name}" for name in ("train.json", *overlays, "federated.json")]
    given = {
        "bundle_root": str(HERE),
        "output_dir": str(folder / "federated"),
        "dataset_dir": str(folder / "datalist.json"),
        "teacher#ckpt": str(folder / "teacher.pt"),
        "class_names": class_names,
        **settings,
    }
    return MonaiAlgo(
        bundle_root=str(HERE),
        local_epochs=local_epochs,
        send_weight_diff=False,
        config_train_filename=train,
        config_evaluate_filename=[*train, "configs/evaluate.json"],
        train_kwargs=dict(given),
        eval_kwargs=dict(given),
    )


def main() -> None:
    """Take part in the rounds until the server ends them."""
    job = json.loads((HERE / "settings.json").read_text())
    flare.init()
    folder = Path(job["sites"]) / flare.get_site_name()
    check_site(folder, job["class_names"])
    client = make_client(folder, job["class_names"], job["local_epochs"], job["overlays"], job["settings"])
    client.initialize({ExtraItems.CLIENT_NAME: flare.get_site_name()})
    while flare.is_running():
        received = ExchangeObject(weights=flare.receive().params)
        scores = client.evaluate(received).metrics
        client.train(received)
        sent = client.get_weights()
        flare.send(
            flare.FLModel(
                params=sent.weights,
                metrics={name: float(value) for name, value in scores.items()},
                meta={MetaKey.NUM_STEPS_CURRENT_ROUND: sent.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS]},
            )
        )
    client.finalize()


if __name__ == "__main__":
    main()
